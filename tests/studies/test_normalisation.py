"""Every row of the studies whose system can have layer normalisation has it: it was the default of their figures."""

import types

import pytest

from studies import heads
from studies.balancing import study as balancing_study
from studies.cells import document_of
from studies.entire_space import study as entire_space_study
from studies.kuairand_funnel import study as kuairand_funnel
from studies.m3oe import study as m3oe_study
from studies.m3oe.published import TABLE_2
from studies.territories import study as territory_study
from tfmtr.recipe import FORMER_DEFAULTS, Recipe

SYSTEMS = set(FORMER_DEFAULTS["share"])


def test_the_study_of_m3oe():
    found = {}
    for row in TABLE_2:
        of_row = m3oe_study.Recipe(
            row.system, row.setting, "time", 0, 0.01, m3oe_study.system_options(1).get(row.system, {})
        )
        share = of_row.trained(1).share
        found[m3oe_study.FILES.get(row.system, row.system)] = share[1].get("normalize") if len(share) == 2 else None
        assert "normalize" not in of_row.document["options"]  # as the cells that there are
    assert {name for name, normalize in found.items() if normalize} == SYSTEMS & set(found)
    given = m3oe_study.Recipe("mlp", "single", "time", 0, 0.01, {"normalize": False})
    assert given.trained(1).share == ("shared_bottom", {"normalize": False})


def test_the_study_of_territories():
    found = territory_study.contenders((1, 1), None)
    for name in territory_study.PER_PAIR_FILES:
        recipe = found[f"{name}, a tower a group"].recipe
        assert recipe.share == (name, {"normalize": True})
        assert document_of(recipe)["share"] == name
    assert set(territory_study.PER_PAIR_FILES) == SYSTEMS
    assert document_of(Recipe(share=("ple", {"num_experts": 2})))["share"] == {"name": "ple", "num_experts": 2}


@pytest.mark.parametrize(
    ("study", "name"),
    [
        (entire_space_study, "esmm"), (kuairand_funnel, "esmm"), (balancing_study, "mmoe+equal"),
        (balancing_study, "shared_bottom+equal"), (balancing_study, "ple+equal"),
    ],
)  # fmt: skip
def test_the_studies_of_heads_and_balancers(study, name, monkeypatch):
    def fit(parts, *arguments, **options):
        raise StopIteration(parts["share"])

    monkeypatch.setattr(heads, "fit", fit)
    rows = {"train": ({}, {"click": [0]}), "validation": ({}, {}), "test": ({}, {})}
    before = () if study is entire_space_study else (types.SimpleNamespace(tasks=()), rows)
    with pytest.raises(StopIteration) as found:
        study.run(*before, name, 0, {"batch_size": 1, "rows": 50, "confounding": 1.0, "hidden": 0.0})
    assert found.value.args[0][1]["normalize"] is True

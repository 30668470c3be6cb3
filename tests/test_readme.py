"""The pages' worked examples run as they are printed."""

import functools
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfmtr.sharing
from tfmtr import components, models
from tfmtr.heads._head import Head
from tfmtr.schema import Feature, Scenario, Schema, Task

PAGE = Path(__file__).parents[1] / "docs" / "add-a-system.md"
HEAD_PAGE = PAGE.with_name("add-a-head.md")
FORMS = {"ranking": models.ranking, "two_tower": functools.partial(models.two_tower, units=(8, 4))}


def example_file(page, folder, tmp_path):
    """A page's code block as a file with the name that the page gives it."""
    text = page.read_text(encoding="utf-8")
    name = re.search(rf"`tfmtr/{folder}/(\w+\.py)`", text)[1]
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    file = tmp_path / name
    file.write_text(block, encoding="utf-8")
    return file


def test_the_readme_s_recipe_fits_the_readme_s_data():
    """The simulator has one task, which follows no other."""
    text = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^    form = .*?\n\n", text, re.MULTILINE | re.DOTALL)
    recipe = tfmtr.Recipe.from_toml(inspect.cleandoc(block))
    schema = Schema([Feature("age", "user", "number")], [Task("event")], Scenario(["territory"], {("DE",): "west"}))
    assert recipe.adapt(schema) == schema
    assert (recipe.head, recipe.balance) == ("parallel", None)


@pytest.fixture
def film_file(tmp_path):
    return example_file(PAGE, "sharing", tmp_path)


@pytest.fixture
def in_the_package(film_file, monkeypatch):
    """Puts the file's folder beside `tfmtr/sharing/`, as if it were in there."""
    monkeypatch.setattr(tfmtr.sharing, "__path__", [*tfmtr.sharing.__path__, str(film_file.parent)])
    yield
    sys.modules.pop(f"tfmtr.sharing.{film_file.stem}", None)


def load(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, file.stem)


def train(form, share):
    """A few steps on labels whose sign depends on the scenario; returns the model and the loss of each step."""
    schema = Schema(
        [Feature("taste", "user", "vector", width=4), Feature("movie", "title", "id", ["a", "b"])],
        [Task("click"), Task("like")],
        Scenario(["territory"], {("DE",): "west", ("PL",): "east"}),
    )
    rng = np.random.default_rng(0)
    x = {
        "taste": rng.normal(size=(64, 4)).astype("float32"),
        "movie": rng.integers(1, 3, 64).astype("int32"),
        "scenario": 1 + np.arange(64, dtype="int32") % 2,
    }
    labels = (x["taste"][:, 0] * np.where(x["scenario"] == 1, 1, -1) > 0).astype("float32")
    keras.utils.set_random_seed(0)
    model = FORMS[form](schema, share=share, unknown_rate=0.0)
    model.compile(keras.optimizers.Adam(0.03))
    return model, model.fit(x, {"click": labels, "like": labels}, epochs=8, verbose=0).history["loss"]


@pytest.mark.parametrize("form", FORMS)
def test_the_example_trains_when_its_function_is_passed(form, film_file):
    model, losses = train(form, load(film_file))
    assert losses[-1] < losses[0] - 0.05
    for name in ("scale", "shift"):  # they start at zero
        assert np.asarray(model.get_layer(name).embeddings).any()


def test_the_example_is_found_by_its_file_name(film_file, in_the_package):
    assert film_file.stem in components.names("sharing")
    model, _ = train("ranking", film_file.stem)
    assert model.get_layer("scale").embeddings.shape[0] == 2


def test_without_the_file_its_name_is_unknown(film_file):
    name = f"{film_file.stem}_of_nobody"  # who follows the page has the page's own
    with pytest.raises(ValueError, match=f"`share` must be one of .*Received: share='{name}'"):
        components.find("sharing", name)


def test_the_page_names_every_side_input():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(set(re.findall(r'sides\["(\w+)"\]', inspect.getsource(models._share))))


def test_the_table_of_systems_has_every_file_with_its_lines_and_test():
    root = PAGE.parents[1]
    readme = (root / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\((\S+)\) \|.*\| (\d+) \| \[test\]\((\S+)\) \|$", readme, re.MULTILINE)
    assert {name for name, *_ in rows} <= set(components.names("sharing"))
    assert len(rows) > 10  # and a file that somebody has just added is in no table yet
    for name, file, lines, test in rows:
        assert (root / file).name == f"{name}.py"
        assert len((root / file).read_text(encoding="utf-8").splitlines()) == int(lines)
        assert (root / test).is_file()


def test_the_table_of_systems_has_the_benchmark_s_speeds_and_the_study_s_auc():
    import m3oe_study
    from m3oe_tables import of_systems

    root = PAGE.parents[1]
    readme = (root / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \[(\w+)\]\(tfmtr/sharing/\w+\.py\) \|.*\| (\S+) \| (\S+) \| \d+ \| \[", readme, re.MULTILINE
    )
    assert len(rows) > 10
    systems = json.loads((root / "benchmarks/results/sharing.json").read_text(encoding="utf-8"))["systems"]
    cells = m3oe_study.read_cells(root / "benchmarks/results/m3oe")
    aucs = of_systems(m3oe_study.of_study(cells, "movielens"))
    for system, speed, auc in rows:
        assert speed == f"{systems[system]['ratio']:.2f}"
        assert auc == (f"{aucs[system]:.2f}" if system in aucs else "n/a"), system


def test_the_readme_and_the_study_s_page_have_the_table_of_the_cells():
    import m3oe_study
    from m3oe_tables import in_short

    root = PAGE.parents[1]
    cells = m3oe_study.read_cells(root / "benchmarks/results/m3oe")
    table = in_short(*(m3oe_study.of_study(cells, dataset) for dataset in ("movielens", "kuairand")))
    for page in ("README.md", "docs/results/m3oe.md"):
        assert table in (root / page).read_text(encoding="utf-8"), page


def test_the_example_of_a_head_keeps_the_contract_and_follows_its_equation(tmp_path, monkeypatch):
    import combinations
    from head_oracles import LABELS, LOGITS, cross_entropy, losses

    import tfmtr.heads

    file = example_file(HEAD_PAGE, "heads", tmp_path)
    monkeypatch.setattr(tfmtr.heads, "__path__", [*tfmtr.heads.__path__, str(file.parent)])
    try:
        for form in FORMS:
            model = combinations.build("focal", "ple", form)
            combinations.check_step(model, combinations.labels(combinations.tasks_of("focal")))
            combinations.check_export(model, tmp_path / form)
    finally:
        sys.modules.pop("tfmtr.heads.focal", None)
        combinations.tasks_of.cache_clear()
    focal = load(file)
    p, y = 1 / (1 + np.exp(-np.asarray(LOGITS["click"]))), np.asarray(LABELS["click"])
    expected = np.mean(np.abs(y - p) ** 2 * cross_entropy(p, y))
    assert losses(focal([Task("click")]), LOGITS, LABELS)["click"] == pytest.approx(expected, rel=1e-5)
    assert losses(focal([Task("click")]), LOGITS, {"click": [float("nan")] * 4}) == {"click": 0.0}
    with pytest.raises(ValueError, match="is for binary tasks"):
        focal([Task("seconds", kind="regression")])


def test_the_pages_name_every_head_and_every_field_of_a_head():
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\(tfmtr/heads/(\w+)\.py\) \|", readme, re.MULTILINE)
    assert {name for name, _ in rows} <= set(components.names("heads"))
    assert len(rows) > 15
    assert all(name == file for name, file in rows)
    fields = re.findall(r"^\| `(\w+)` \|", HEAD_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fields) == set(Head._fields) - {"outputs", "losses", "is_two_tower_only"}


def test_the_table_of_balancers_has_every_file_and_the_benchmark_s_figures():
    root = PAGE.parents[1]
    readme = (root / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\(tfmtr/balancing/(\w+)\.py\) \|.*\| (\d\.\d\d) \|$", readme, re.MULTILINE)
    assert {name for name, *_ in rows} <= set(components.names("balancing"))
    assert len(rows) > 15
    models = json.loads((root / "benchmarks/results/balancing.json").read_text(encoding="utf-8"))["models"]
    for name, file, ratio in rows:
        assert name == file
        model = "m3oe+bilevel" if name == "bilevel" else f"mmoe+{name}"
        assert ratio == f"{models[model]['ratio']:.2f}"

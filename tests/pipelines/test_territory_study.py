import json

import pyarrow.parquet as pq
import pytest
import territory_study as study

from tfmtr import training
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.prepared import Prepared

SIZE = {"num_users": 2_500, "num_titles": 80, "num_territories": 8}
CHANGES = {"epochs": 1, "patience": 1, "units": (16, 8), "batch_size": 1024}
SOME = ("baseline + upsampling", "multi-task", "one group", study.PER_GROUP)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    options = {"seeds": 2, "finalists": 1, "size": SIZE, "runs": folder / "runs", "results": folder / "results"}
    everyone = study.contenders
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "contenders", lambda *a, **k: {name: everyone(*a, **k)[name] for name in SOME})
        patch.setattr(study, "FINALIST_SEEDS", 2)
        cells = study.main("simulator", **options, **CHANGES)
        patch.setattr(training, "train", None)  # would fail if a cell were computed again
        again = study.main("simulator", **options, **CHANGES)
    return folder, cells, again


def test_cells_are_computed_once_and_the_best_of_the_others_gets_more_seeds(computed):
    folder, cells, again = computed
    assert again == cells
    assert {name: len(documents) for name, documents in cells.items()} == dict(zip(SOME, (2, 2, 2, 1), strict=True))
    files = sorted(file.name for file in (folder / "results/simulator").glob("*.json"))
    assert len(files) == 7
    assert json.loads((folder / "results/simulator" / files[0]).read_text())["windows"].keys() == {"1", "2", "3"}
    page = (folder / "results/simulator/README.md").read_text()
    assert page.count("| multi-task |") == 2  # among the contenders and under popularity bias
    assert page.count("| one group |") == 3  # among the claims, too


def test_every_group_has_a_model_and_test_rows_of_its_own(computed):
    folder, cells, _ = computed
    (own,), (_, reference) = cells[study.PER_GROUP], cells["baseline + upsampling"]
    assert own["parameters"] == len(own["epochs"]) * reference["parameters"]
    for window, slices in reference["windows"].items():
        assert {name: cell["rows"] for name, cell in slices.items() if name != "overall"} == {
            name: cell["rows"] for name, cell in own["windows"][window].items() if name != "overall"
        }
    assert own["validation_loss"] is None  # of groups, no loss of the whole
    data = Prepared(folder / "runs/simulator/data")
    parts = study.split_by_group(data, folder / "parts")
    rows = [[pq.read_table(file)["territory"].to_pylist() for file in part.examples("train")] for part in parts]
    total = sum(pq.read_metadata(file).num_rows for file in data.examples("train"))
    assert sum(len(file) for own in rows for file in own) == total
    territories = [set().union(*own) for own in rows]
    assert sum(map(len, territories)) == len(set().union(*territories))


def test_the_contenders_differ_in_what_their_names_say(tmp_path):
    logs, truth = study.tables("homogeneous", None, tmp_path / "tables", num_users=300, num_titles=40)
    assert len(set(truth.values())) > 1
    tastes = pq.read_table(tmp_path / "tables/truth/territories.parquet")["taste"].to_pylist()
    assert all(taste == pytest.approx(tastes[0]) for taste in tastes)
    found = study.contenders((100, 250), truth, epochs=6)
    recipes = {name: contender.recipe for name, contender in found.items()}
    assert recipes["baseline, equal steps"].epochs * 100 == recipes["upsampling, equal steps"].epochs * 250
    assert len(recipes["one layer deeper"].units) == len(recipes["baseline"].units) + 1
    assert recipes["true groups"].groups == truth
    assert "true groups" not in study.contenders((1, 1), None)
    assert len({json.dumps(recipe.document()) for recipe in recipes.values()}) == len(recipes) - 1  # one a group apart
    schema = prepare(logs, tmp_path / "data", progress=False).schema
    recipes["mmoe, a tower a group"].adapt(schema)


def test_gains_and_territories_won_are_those_of_the_cells(computed):
    data = Prepared(computed[0] / "runs/simulator/data")
    names = list(data.report["statistics"]["territories"])

    def cell(value):
        figures = {"pr_auc": value, "prevalence": 0.1, "rows": 900, "positives": 90}
        windows = {w: {name: {**figures, "pr_auc": value + i / 100} for i, name in enumerate(names)} for w in "12"}
        for slices in windows.values():
            slices["overall"] = figures
        facts = {"date": "2026-01-01", "versions": {"keras": "3"}, "epochs": [2], "seconds": 4.0, "parameters": 10}
        lists = {metric: {w: {key: value for _, key, _ in study.BIAS} for w in "12"} for metric, *_ in study.BIAS}
        return {**facts, "recall": {"1": 0.5}, "lists": lists, "k": 10, "local_share": 0.3, "windows": windows}

    cells = {"baseline": [cell(0.2)], "baseline + upsampling": [cell(0.25), cell(0.35)], "multi-task": [cell(0.4)]}
    page = study.study("toy", cells, data, "command")
    gain = sum(100 * (0.4 + i / 100) / (0.2 + i / 100) - 100 for i in range(8)) / 8
    assert f"{gain:+.1f} %" in page
    assert "8 of 8" in page
    assert "| baseline + upsampling | 2 | 0.3000 (0.0707) |" in page
    assert "| baseline | 0.2000 | 0.200 | 0.200 | 0.20 | 0 | +0.20 | 0.2000 | 0.2000 |" in page


def test_sixteen_territories_are_major_or_half_of_few():
    def statistics(count):
        return {f"t{i:02}": {"positives": i} for i in range(count)}

    assert study.major(statistics(40)) == [f"t{i}" for i in range(39, 23, -1)]
    assert study.major(statistics(7)) == ["t06", "t05", "t04", "t03"]


def test_too_many_rows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "MAX_ROWS", 10)
    with pytest.raises(ValueError, match=r"a run must have at most 10 rows; make the data smaller\. Received: [\d,]+"):
        study.main("simulator", runs=tmp_path, results=tmp_path, size=SIZE)

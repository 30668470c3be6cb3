import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.untraced import untraced
from sklearn.metrics import average_precision_score

from studies.cells import RESULTS, document_of, read_cells
from studies.territories import page as territory_page
from studies.territories import study
from tfmtr import training
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.prepare import prepare
from tfmtr.evaluation.territories import mean_gain
from tfmtr.reporting.gains import only

SIZE = {"num_users": 3_000, "num_titles": 80, "num_territories": 5}
CHANGES = {"epochs": 1, "patience": 1, "units": (8,), "batch_size": 65_536, "listwise": False}
SOME = ("baseline", "baseline + upsampling", "multi-task", "one group", study.PER_GROUP)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    options = {"seeds": 2, "finalists": 1, "size": SIZE, "runs": folder / "runs", "folder": folder}
    everyone = study.contenders
    with untraced(), pytest.MonkeyPatch.context() as patch:  # of a cell's few steps
        patch.setattr(study, "contenders", lambda *a, **k: {name: everyone(*a, **k)[name] for name in SOME})
        patch.setattr(study, "FINALIST_SEEDS", 2)
        patch.setattr(study, "STEPS", 1)
        patch.setattr(study, "STEP_ROWS", 64)
        cells = study.main("simulator", **options, **CHANGES)
        patch.setattr(training, "train", None)  # would fail if a cell were computed again
        again = study.main("simulator", **options, **CHANGES)
    return folder, cells, again


def test_cells_are_computed_once_and_the_best_of_the_others_gets_more_seeds(computed):
    folder, cells, again = computed
    assert again == cells
    assert {name: len(documents) for name, documents in cells.items()} == dict(zip(SOME, (2, 2, 2, 2, 1), strict=True))
    found = read_cells(folder / RESULTS, "simulator/")
    assert len(found) == 9 + 3  # and titles, times and truth
    assert found["multi-task-seed-1"]["windows"].keys() == {"1", "2", "3"}
    page = (folder / "simulator.md").read_text()
    assert page.count("\n| multi-task |") == 3  # among the contenders, under popularity bias and under classes
    assert page.count("\n| one group |") == 4  # among the claims, too
    assert page.count("\n| truth |") == 3


def test_every_group_has_a_model_and_test_rows_of_its_own(computed):
    folder, cells, _ = computed
    (own,), (_, reference) = cells[study.PER_GROUP], cells["baseline + upsampling"]
    assert own["parameters"] == len(own["epochs"]) * reference["parameters"]
    for window, slices in reference["windows"].items():
        assert {name: cell["rows"] for name, cell in slices.items() if name != "overall"} == {
            name: cell["rows"] for name, cell in own["windows"][window].items() if name != "overall"
        }
    assert own["validation_loss"] is None  # of groups, no loss of the whole
    data = Dataset(folder / "runs/simulator/data")
    parts = study.split_by_group(data, folder / "parts")
    rows = [[pq.read_table(file)["territory"].to_pylist() for file in part.examples("train")] for part in parts]
    total = sum(pq.read_metadata(file).num_rows for file in data.examples("train"))
    assert sum(len(file) for own in rows for file in own) == total
    territories = [set().union(*own) for own in rows]
    assert sum(map(len, territories)) == len(set().union(*territories))


def test_the_contenders_differ_in_what_their_names_say(tmp_path):
    logs, truth = study.tables("homogeneous", None, tmp_path / "tables", num_users=300, num_titles=40)
    assert len(set(truth.cultures.values())) > 1
    tastes = pq.read_table(tmp_path / "tables/truth/territories.parquet")["taste"].to_pylist()
    assert all(taste == pytest.approx(tastes[0]) for taste in tastes)
    found = study.contenders((100, 250), truth.cultures, epochs=6)
    recipes = {name: contender.recipe for name, contender in found.items()}
    assert recipes["baseline, equal steps"].epochs * 100 == recipes["upsampling, equal steps"].epochs * 250
    assert len(recipes["one layer deeper"].units) == len(recipes["baseline"].units) + 1
    assert recipes["true groups"].groups == truth.cultures
    assert "true groups" not in study.contenders((1, 1), None)
    assert len({json.dumps(recipe.document()) for recipe in recipes.values()}) == len(recipes) - 1  # one a group apart
    schema = prepare(logs, tmp_path / "data", progress=False).schema
    recipes["mmoe, a tower a group"].adapt(schema)


def test_the_truth_ranks_better_than_every_model(computed, tmp_path):
    folder, cells, _ = computed
    truth = read_cells(folder / RESULTS)["simulator/truth"]
    for documents in (cells["multi-task"], cells["baseline"]):
        for window, slices in documents[0]["windows"].items():
            assert truth["windows"][window]["overall"]["pr_auc"] > slices["overall"]["pr_auc"]
            assert truth["windows"][window]["overall"]["rows"] == slices["overall"]["rows"]
        for window, cell in documents[0]["lists"]["exposure"].items():
            assert truth["lists"]["exposure"][window]["users"] == cell["users"]
    _, of_log = study.tables("simulator", None, tmp_path, **SIZE)
    data = Dataset(folder / "runs/simulator/data")
    (file,) = data.examples("test", windows=[2])
    rows = pq.ParquetFile(file).read()
    scores = of_log.propensity(rows["user"], rows["title"], 58, lookback=30)  # the last of 60 days but one
    assert truth["windows"]["2"]["overall"]["pr_auc"] == pytest.approx(
        average_precision_score(rows["event"].to_numpy() > 0, scores)
    )


def test_a_homogeneous_world_has_the_control_only_with_all_seeds(tmp_path, monkeypatch):
    asked = {}

    def compute_all(data, entrants, pairs, *_):
        asked.update({pair: {"validation_loss": 1.0} for pair in pairs})
        return asked

    monkeypatch.setattr(study, "compute_all", compute_all)
    monkeypatch.setattr(study, "title_document", lambda *_: {})
    monkeypatch.setattr(study, "step_document", lambda *_: {"milliseconds": {}})
    monkeypatch.setattr(study, "page", lambda *_: "")
    size = {"num_users": 600, "num_titles": 40, "num_territories": 5}
    study.main("homogeneous", seeds=3, runs=tmp_path / "runs", folder=tmp_path, size=size, **CHANGES)
    names = ("baseline + upsampling", "multi-task", "one group")
    assert set(asked) == {(model, seed) for model in names for seed in range(3)}


def test_titles_are_those_of_the_runs(computed):
    titles = read_cells(computed[0] / RESULTS)["simulator/titles"]
    assert titles["baselines"] == ["baseline", "baseline + upsampling"]
    assert {(of["baseline"], of["is_local"]) for of in titles["shifts"]} == {
        (other, is_local) for other in titles["baselines"] for is_local in (True, False)
    }
    for title in titles["titles"]:
        ours, theirs = title["pr_auc"]["multi-task"], title["pr_auc"]["baseline"]
        assert title["positives"] >= 30
        assert title["gain"]["baseline"] == pytest.approx(100 * (ours / theirs - 1))


def test_the_page_has_the_figures_of_the_cells(computed):
    data = Dataset(computed[0] / "runs/simulator/data")
    names = list(data.report["statistics"]["territories"])

    def cell(value):
        figures = {"pr_auc": value, "prevalence": 0.1, "rows": 900, "positives": 90, "calibration_error": value / 10}
        windows = {w: {name: {**figures, "pr_auc": value + i / 100} for i, name in enumerate(names)} for w in "12"}
        for slices in windows.values():
            slices["overall"] = figures
        facts = {"date": "2026-01-01", "versions": {"keras": "3"}, "epochs": [2], "seconds": 4.0, "parameters": 10}
        lists = {
            metric: {w: {key: value for _, key, _ in territory_page.BIAS} for w in "12"}
            for metric, *_ in territory_page.BIAS
        }
        classes = {w: {"local": {**figures, "pr_auc": value / 2}, "global": figures} for w in "12"}
        found = {"recall": {"1": 0.5}, "lists": lists, "title_classes": classes, "windows": windows}
        return {**facts, **found, "k": 10, "local_share": 0.3}

    def title(name, is_local, gain, shift):
        facts = {"id": name, "name": name, "is_local": is_local, "training_positives": 1234, "positives": 40}
        return {**facts, "pr_auc": {"multi-task": 0.1}, "gain": {"baseline": gain}, "shift": {"baseline": shift}}

    titles = {
        "baselines": ["baseline"],
        "shifts": [
            {"baseline": "baseline", "is_local": True, "shift": 0.125, "up": 9, "titles": 10},
            {"baseline": "baseline", "is_local": False, "shift": None, "up": 0, "titles": 0},
        ],
        "titles": [title("Heat", True, 12.0, 0.2), title("Ran", True, -2.0, 0.1), title("Up", False, 50.0, None)],
    }
    cells = {"baseline": [cell(0.2)], "baseline + upsampling": [cell(0.25), cell(0.35)], "multi-task": [cell(0.4)]}
    steps = {"baseline": 30.0, "baseline + upsampling": 20.0}
    page = territory_page.page("toy", cells, steps, titles, cell(0.8), data, "command")
    gain = np.mean([100 * (0.4 + i / 100) / (0.2 + i / 100) - 100 for i in range(len(names))])
    assert f"{gain:+.1f} %" in page
    assert f"{len(names)} of {len(names)}" in page
    assert "| baseline + upsampling | 2 | 0.3000 (0.0707) |" in page
    assert "| baseline | 0.2000 | 0.200 | 0.200 | 0.20 | 0 | +0.20 | 0.2000 | 0.2000 | +0.200 |" in page
    assert "| truth |  | 0.8000 |" in page
    assert "| 0.5000 | 10 | 1.50 |" in page  # recall, parameters and time of the baseline's row
    assert "| 0.5000 | 10 | n/a |" in page
    assert "| multi-task | 0.2000 | 0.0400 | 0.4000 | 0.0400 |" in page
    sign = 2 * (1 + 10) / 2**10  # nine or ten of ten, or none or one
    assert f"| local | baseline | +0.125 | 9 of 10 | {sign:.3f} | +5.0 % | 1 of 2 |" in page
    assert "| global | baseline | n/a | 0 of 0 | n/a | +50.0 % | 1 of 1 |" in page
    assert "the largest gain over baseline is +50 %, of a global title." in page
    assert "| Heat | local | 1,234 | 0.1000 | +12.0 % | +0.200 |" in page
    assert "| Up | global | 1,234 | 0.1000 | +50.0 % | n/a |" in page


def test_too_many_rows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "MAX_ROWS", 10)
    with pytest.raises(ValueError, match=r"a run must have at most 10 rows; make the data smaller\. Received: [\d,]+"):
        study.main("simulator", runs=tmp_path, folder=tmp_path, size=SIZE)


def test_without_differences_between_territories_branches_gain_nothing():
    ours, control = (
        [cell["windows"] for cell in read_cells(study.HERE / RESULTS, f"homogeneous/{name}-seed-").values()]
        for name in ("multi-task", "one-group")
    )
    assert len(ours) == len(control) == 5
    names = {name for cells in ours[0].values() for name in cells if name != "overall"}
    gain = mean_gain([only(names, of) for of in ours], [only(names, of) for of in control])
    assert gain["slices"] >= 16
    # An interval that contains 0 was expected; it is below 0, as each branch sees a quarter of the rows.
    assert gain["low"] < 0


def test_the_contenders_are_those_of_the_published_cells():
    """Their lists are their towers' own: a list model would order those of all contenders."""
    found, cells = study.contenders((1, 1), None, epochs=6, patience=1), read_cells(study.HERE / RESULTS)
    for name in ("baseline", "multi-task", "one group", "star", "snr, a tower a group"):
        cell = cells[f"xmarket/{study.stem(name, 0)}"]
        assert document_of(found[name].recipe) == cell["recipe"]

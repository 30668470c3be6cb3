import types

import numpy as np
import pytest

from studies.cells import RESULTS, read_cells
from studies.territories import scale
from studies.territories.study import FIGURES, stem
from tfmtr import training
from tfmtr.schema import Task


def result(values, positives):
    return {
        window: {
            name: {"pr_auc": value, "positives": positives[name]} for name, value in zip(positives, of, strict=True)
        }
        for window, of in enumerate(values)
    }


def test_gains_of_territories_lean_towards_their_mean_as_far_as_windows_disagree():
    positives = {"AT": 400, "CL": 400, "DE": 100}
    baseline = result([[0.2, 0.2, 0.2], [0.2, 0.2, 0.2]], positives)
    gains = np.array([[10.0, -2.0, 30.0], [14.0, -6.0, 18.0]])
    found = scale.pooled_gains([result(0.2 * (1 + gains / 100), positives)], [baseline])
    y, sizes = np.array([12.0, -4.0, 24.0]), np.array([800, 800, 200])
    v = (400 * 8 + 400 * 8 + 100 * 72) / 3 / sizes
    w = 1 / v
    fixed = np.dot(w, y) / w.sum()
    between = (np.dot(w, (y - fixed) ** 2) - 2) / (w.sum() - np.dot(w, w) / w.sum())
    mu = np.average(y, weights=1 / (between + v))
    for i, name in enumerate(positives):
        kept = between / (between + v[i])
        cell = found["territories"][name]
        assert cell["gain"] == pytest.approx(mu + kept * (y[i] - mu))
        deviation = np.sqrt(kept * v[i] + (1 - kept) ** 2 / (1 / (between + v)).sum())
        assert cell["gain"] - cell["low"] == pytest.approx(1.96 * deviation)
    assert found["mean"] == pytest.approx(mu)


def test_equal_gains_are_one_gain():
    positives = {"AT": 400, "CL": 100}
    baseline = result([[0.2, 0.2], [0.2, 0.2]], positives)
    better = result([[0.21, 0.23], [0.23, 0.21]], positives)
    found = scale.pooled_gains([better], [baseline])["territories"]
    assert found["AT"]["gain"] == pytest.approx(found["CL"]["gain"]) == pytest.approx(10.0)


def test_small_territories_are_one():
    positives = {"AT": 400, "CL": 60, "DE": 20, "overall": 480}
    (merged,) = scale.merge_small([result([[0.2, 0.4, 0.8, 0.3]], positives)], 300)
    assert merged[0].keys() == {"AT", "overall", "the small ones"}
    assert merged[0]["the small ones"] == {"pr_auc": pytest.approx(0.5), "positives": 80}


LOSSES = {"none": 0.4, "territory_branches": 0.3, "shrunken_branches": 0.2}


def test_validation_chooses_and_what_is_chosen_alone_reads_test_windows(tmp_path, monkeypatch):
    """Trained models and their figures are made up; `prior_rows=1000` of territories has the least loss."""
    trained = []

    def train(_, run, recipe, **__):
        trained.append(run)
        name, options = recipe.share if isinstance(recipe.share, tuple) else (recipe.share, {})
        better = 0.1 * (recipe.groups == "territories") + 0.01 * (options.get("prior_rows") == 1000.0)
        stages = {"1": {"history": [{"val_loss": 1.0}, {"val_loss": LOSSES[name] - better}]}}
        return types.SimpleNamespace(document={"stages": stages})

    def evaluate(*_, **__):
        cells = {
            name: dict.fromkeys(FIGURES, 400) | {"pr_auc": 0.2, "reason": None} for name in ("AT", "CL", "overall")
        }
        tasks = {"event": {"territory": {"1": cells, "2": cells}}}
        return types.SimpleNamespace(document={"tasks": tasks})

    statistics = {"territories": {name: {"positives": 800} for name in ("AT", "CL")}}
    report = {"fingerprint": "f", "statistics": statistics, "examples": [{"split": "train", "rows": 9}]}
    data = types.SimpleNamespace(report=report, path=tmp_path, schema=types.SimpleNamespace(tasks=[Task("event")]))
    monkeypatch.setattr(scale, "dataset", lambda *_: data)
    monkeypatch.setattr(scale, "evaluate", evaluate)
    monkeypatch.setattr(training, "train", train)
    options = {"seeds": 1, "runs": tmp_path / "runs", "folder": tmp_path}
    page = scale.main([900], [0.7], **options)
    cells = read_cells(tmp_path / RESULTS, "scale/world-0-900-users-heterogeneity-0.7/test/")
    chosen = "shrunken, territories, 1000"
    wanted = ("baseline + upsampling", "one group", "multi-task", chosen)
    assert set(cells) == {stem(name, 0) for name in wanted}
    assert f"| {chosen} (chosen) | 0.0900 | 0.2000 |" in page
    assert "| one group (comparator) | 0.3000 | 0.2000 |" in page
    assert "| shrunken, given, 300 | 0.2000 | n/a |" in page
    count = len(trained)
    assert scale.main([900], [0.7], **options) == page
    assert len(trained) == count  # no cell is computed again

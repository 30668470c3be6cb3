import numpy as np
import pytest
from helpers.untraced import untraced

from studies.cells import RESULTS, read_cells
from studies.territories import scale
from tfmtr import training


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
    (merged,) = scale.merge_small([result([[0.2, 0.4, 0.8, 0.3]], positives)])
    assert merged[0].keys() == {"AT", "overall", "the small ones"}
    assert merged[0]["the small ones"] == {"pr_auc": pytest.approx(0.5), "positives": 80}


def test_validation_chooses_and_what_is_chosen_alone_reads_test_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "RECIPE", {**scale.RECIPE, "units": (8,), "batch_size": 65_536, "epochs": 1})
    monkeypatch.setattr(scale, "PRIOR_ROWS", (1000.0,))
    options = {"seeds": 1, "territories": 4, "runs": tmp_path / "runs", "folder": tmp_path}
    with untraced():
        page = scale.main([1500], [0.7], **options)
    cells = read_cells(tmp_path / RESULTS, "scale/1500-users-heterogeneity-0.7/")
    trained = {name: cell["validation_loss"] for name, cell in cells.items() if name.startswith("train/shrunken")}
    assert len(trained) == 2
    chosen = min(trained, key=trained.__getitem__).replace("train/", "test/")
    assert {name for name in cells if name.startswith("test/shrunken")} == {chosen}
    assert page.count("(chosen)") == page.count("(comparator)") == 1
    monkeypatch.setattr(training, "train", None)  # would fail if a cell were computed again
    assert scale.main([1500], [0.7], **options) == page

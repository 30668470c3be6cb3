import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tfmtr.evaluation.metrics import evaluate_task, expected_calibration_error


def task(rows=400, seed=0):
    """Labels, scores with many ties, territories and users of a binary task."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.4).astype(np.float64)
    scores = np.round(np.clip(0.3 * labels + rng.random(rows) * 0.7, 0, 1), 1)
    return labels, scores, np.where(rng.random(rows) < 0.5, "DE", "PL"), rng.integers(0, 100, rows)


def average_precision(labels, scores):
    """The definition: precision at each distinct score, weighted with the recall gained there."""
    total = 0.0
    for threshold in np.unique(scores):
        taken = scores >= threshold
        gained = labels[scores == threshold].sum() / labels.sum()
        total += gained * labels[taken].mean()
    return total


def test_binary_metrics_per_slice_and_pooled_match_their_definitions():
    labels, scores, slices, users = task()
    cells = evaluate_task(labels, scores, slices, users)
    assert list(cells) == ["DE", "PL", "overall"]
    for name, rows in (("DE", slices == "DE"), ("PL", slices == "PL"), ("overall", slices != "")):
        y, p = labels[rows], np.clip(scores[rows], 1e-7, 1 - 1e-7)
        above = p[y == 1][:, None] - p[y == 0][None]
        expected = {
            "pr_auc": average_precision(y, scores[rows]),
            "roc_auc": ((above > 0) + 0.5 * (above == 0)).mean(),
            "log_loss": log_loss(y, p),
            "normalized_entropy": log_loss(y, p) / log_loss(y, np.full(len(y), y.mean())),
            "calibration_error": expected_calibration_error(y, scores[rows]),
            "prevalence": y.mean(),
            "rows": rows.sum(),
            "positives": y.sum(),
            "users": len(set(users[rows])),
        }
        cell = cells[name]
        assert cell.pop("reason") is None
        assert cell == pytest.approx(expected, abs=1e-12)


def test_log_loss_clips_certain_scores_at_1e_7():
    labels = np.tile([1.0, 0.0], 50)
    cell = evaluate_task(labels, 1 - labels, ["DE"] * 100, np.arange(100))["DE"]
    assert cell["log_loss"] == pytest.approx(-np.log(1e-7))


def test_equal_scores_give_the_prevalence_whatever_the_order_of_the_rows():
    labels = np.repeat([1.0, 0.0], [40, 60])
    cell = evaluate_task(labels, np.full(100, 0.3), ["DE"] * 100, np.arange(100))["DE"]
    assert cell["pr_auc"] == pytest.approx(0.4)
    assert cell["roc_auc"] == pytest.approx(0.5)


def test_calibration_error_by_title_class_sees_which_titles_are_overrated():
    rng = np.random.default_rng(0)
    local, truth = np.tile([True, False], 5000), rng.uniform(0.1, 0.5, 10_000)
    labels = rng.random(10_000) < truth
    scores = np.where(local, truth, truth + 0.2)  # a model that overrates global titles
    cells = evaluate_task(labels, scores, np.where(local, "local", "global"), np.arange(10_000) % 500)
    assert cells["local"]["calibration_error"] < 0.03
    assert cells["global"]["calibration_error"] == pytest.approx(0.2, abs=0.03)


def test_null_labels_are_left_out_of_metrics_and_counts():
    labels, scores, slices, users = task()
    unobserved = np.tile([False, True], 200)
    masked = np.where(unobserved, np.nan, labels)
    scores[unobserved & (slices == "DE")] = np.nan  # a score without a label is never looked at
    kept = ~unobserved
    assert evaluate_task(masked, scores, slices, users) == evaluate_task(
        labels[kept], scores[kept], slices[kept], users[kept]
    )


def test_none_is_a_null_label_and_a_slice_without_labels_is_not_available():
    labels = [1, 0] * 50 + [None] * 3
    cells = evaluate_task(labels, [0.5] * 103, ["DE"] * 100 + ["PL"] * 3, [f"u{i}" for i in range(103)])
    assert cells["DE"]["rows"] == cells["overall"]["rows"] == 100
    assert cells["PL"]["reason"] == "no labels"
    assert cells["PL"]["prevalence"] is None


def test_rows_without_a_slice_count_for_the_pooled_cell_only():
    labels, scores, slices, users = task()
    some = slices.astype(object)
    some[:100] = None
    cells = evaluate_task(labels, scores, some, users)
    assert cells["overall"] == evaluate_task(labels, scores, slices, users)["overall"]
    assert cells["DE"]["rows"] + cells["PL"]["rows"] == 300
    assert list(cells) == ["DE", "PL", "overall"]


@pytest.mark.parametrize(
    ("positives", "negatives", "users", "reason"),
    [
        (30, 10, 20, None),
        (29, 100, 40, "29 positives, 30 needed"),
        (40, 100, 19, "19 users, 20 needed"),
        (0, 100, 40, "no positives"),
        (100, 0, 40, "no negatives"),
    ],
)
def test_a_cell_with_too_little_evidence_is_not_available_and_keeps_its_counts(positives, negatives, users, reason):
    labels = np.repeat([1, 0], [positives, negatives])
    rows = len(labels)
    cell = evaluate_task(labels, np.linspace(0, 1, rows), ["DE"] * rows, np.arange(rows) % users)["DE"]
    assert cell["reason"] == reason
    assert (cell["rows"], cell["positives"], cell["users"]) == (rows, positives, users)
    assert cell["prevalence"] == positives / rows
    for metric in ("pr_auc", "roc_auc", "log_loss", "calibration_error"):
        assert (cell[metric] is None) == (reason is not None)


def test_regression_metrics_match_their_definitions():
    rng = np.random.default_rng(0)
    labels, scores = rng.normal(size=60), rng.normal(size=60)
    labels[:10] = np.nan
    slices = np.repeat(["few", "many"], [15, 45])
    cells = evaluate_task(labels, scores, slices, np.arange(60), kind="regression")
    errors = scores[15:] - labels[15:]
    expected = {"mse": np.mean(errors**2), "mae": np.mean(np.abs(errors)), "rows": 45, "users": 45, "reason": None}
    assert cells["many"] == pytest.approx(expected)
    assert cells["few"] == {"mse": None, "mae": None, "rows": 5, "users": 5, "reason": "5 users, 20 needed"}
    assert cells["overall"]["rows"] == 50


def test_results_are_json_without_nan_and_come_back_equal():
    labels, scores, slices, users = task()
    cells = evaluate_task(labels, scores, np.where(slices == "DE", 7, 49), users)
    assert json.loads(json.dumps(cells, allow_nan=False)) == cells
    assert list(cells) == ["49", "7", "overall"]
    assert cells["overall"]["roc_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_evaluation_imports_no_tensorflow():
    code = "import sys, tfmtr.evaluation.tables; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "binry"}, r"`kind` must be one of \['binary', 'regression'\]. Did you mean 'binary'\?"),
        ({"labels": [0, 2, 1]}, r"`labels` must be 0, 1 or NaN for a binary task. Received: 2.0 \(1 such rows\)"),
        ({"labels": [0, np.inf, 1], "kind": "regression"}, "`labels` must be finite numbers or NaN"),
        ({"scores": [0, 1.5, 1]}, r"`scores` must be probabilities in \[0, 1\] for a binary task. Received: 1.5"),
        ({"scores": [0, np.nan, 1]}, r"`scores` must be probabilities in \[0, 1\]"),
        ({"scores": [0, np.nan, 1], "kind": "regression"}, "`scores` must be finite numbers for a regression task"),
        ({"scores": [[0], [1], [1]]}, r"must each have one value a row.*'scores': \(3, 1\)"),
        ({"slices": ["DE"]}, r"must each have one value a row.*'slices': \(1,\)"),
        ({"slices": ["DE", "overall", "PL"]}, "`slices` must not have the value 'overall'"),
        ({"users": ["a", None, "c"]}, "`users` must name the user of every row.*Received: 1 null values"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    arguments = {"labels": [0, 1, 1], "scores": [0.1, 0.2, 0.3], "slices": ["DE"] * 3, "users": [1, 2, 3], **change}
    with pytest.raises(ValueError, match=message):
        evaluate_task(**arguments)


def test_an_empty_window_has_only_the_pooled_cell():
    cells = evaluate_task(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, int))
    assert list(cells) == ["overall"]
    assert cells["overall"]["reason"] == "no labels"


def test_calibration_error_is_the_gap_in_bins_of_equal_numbers():
    probabilities = np.asarray([0.1, 0.2, 0.3, 0.4, 0.9, 0.8])
    labels = np.asarray([0, 1, 0, 1, 1, 1])
    expected = (2 * abs(0.5 - 0.15) + 2 * abs(0.5 - 0.35) + 2 * abs(1 - 0.85)) / 6
    assert expected_calibration_error(labels, probabilities, num_bins=3) == pytest.approx(expected)
    assert expected_calibration_error(probabilities, probabilities, num_bins=4) == 0.0  # true probabilities
    with pytest.raises(ValueError, match="`probabilities` must be probabilities in"):
        expected_calibration_error(labels, probabilities + 1)
    with pytest.raises(ValueError, match="must each have one value a row"):
        expected_calibration_error(labels, probabilities[:3])

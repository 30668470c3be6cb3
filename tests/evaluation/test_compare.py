import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from tfmtr.evaluation.compare import (
    benjamini_hochberg,
    detectable_difference,
    holm,
    mean_and_deviation,
    paired_bootstrap,
    relative_gain,
    weighted_average_precision,
    weighted_roc_auc,
    welch,
)

# Gains on the three test sets and their printed average: Table 2 of Gampa et al. 2023, T1 to T16. Rounded gains
# explain a difference of 0.01; one average (T6 over upsampling, -1.58) is 0.013 from the mean of its printed gains.
OVER_BASELINE = """
    9.88 35.30 31.99 25.72 | 34.05 65.27 16.36 38.56 | -7.72 -21.18 11.39 -5.83 | 11.36 24.58 18.98 18.30
    15.04 24.73 9.49 16.42 | 27.12 23.22 20.69 23.67 | 10.10 0.73 33.67 14.83 | 21.36 -0.35 5.35 8.78
    5.21 -5.85 3.75 1.03 | 13.43 46.97 -2.92 19.16 | 7.68 12.88 38.39 19.65 | 54.75 21.64 45.69 40.69
    10.45 36.42 23.06 23.31 | 7.87 32.31 12.61 17.59 | 5.51 20.20 20.40 15.37 | 7.36 25.68 12.70 15.24
"""
OVER_UPSAMPLING = """
    7.27 9.80 18.31 11.79 | 23.46 20.36 8.17 17.33 | -30.16 -5.11 0.84 -11.48 | -3.98 7.59 6.89 3.49
    4.62 11.78 9.92 8.77 | -16.52 5.05 6.69 -1.58 | -0.65 2.95 13.17 5.15 | 6.30 3.79 -3.23 2.28
    3.91 9.47 -6.86 2.17 | 15.52 69.10 0.25 28.29 | 28.45 16.07 22.26 22.26 | 77.35 15.89 10.85 34.70
    3.38 10.28 13.68 9.11 | 2.39 18.59 6.79 9.25 | 2.41 3.86 20.35 8.88 | 0.48 0.13 13.43 4.68
"""


def cell(pr_auc, positives=90):
    return {"pr_auc": pr_auc, "rows": 900, "positives": positives}


@pytest.mark.parametrize("printed", [OVER_BASELINE, OVER_UPSAMPLING])
def test_average_gain_is_the_mean_of_the_windows_as_in_table_2_of_the_paper(printed):
    table = np.array(printed.replace("|", " ").split(), float).reshape(16, 4)
    base = np.random.default_rng(0).uniform(0.1, 0.5, (16, 3))
    model = base * (1 + table[:, :3] / 100)

    def result(values):
        return {f"Test-{w + 1}": {f"T{t + 1}": cell(values[t, w]) for t in range(16)} for w in range(3)}

    gains = relative_gain(result(model), result(base))
    assert list(gains) == ["Test-1", "Test-2", "Test-3", "average"]
    for t, row in enumerate(table):
        assert [gains[f"Test-{w + 1}"][f"T{t + 1}"] for w in range(3)] == pytest.approx(row[:3])
        assert gains["average"][f"T{t + 1}"] == pytest.approx(row[3], abs=0.015)


def test_a_gain_needs_both_cells_and_the_average_takes_the_windows_that_have_one():
    model = {1: {"a": cell(0.3), "b": cell(None)}, 2: {"a": cell(0.2), "b": cell(0.5)}, 3: {"a": cell(0.1)}}
    base = {1: {"a": cell(0.2), "b": cell(0.4)}, 2: {"a": cell(0.2), "b": cell(None)}, 3: {"a": cell(0.0)}}
    gains = relative_gain(model, base)
    assert gains[1] == {"a": pytest.approx(50.0), "b": None}
    assert gains[3] == {"a": None}
    assert gains["average"] == {"a": pytest.approx(25.0), "b": None}
    json.dumps(gains, allow_nan=False)


def test_gain_of_another_metric():
    model, base = ({1: {"a": {"mse": mse, "rows": 9}}} for mse in (1.0, 2.0))
    assert relative_gain(model, base, metric="mse")["average"] == {"a": -50.0}
    with pytest.raises(ValueError, match=r"`metric` must be one of .* Did you mean 'mse'\?"):
        relative_gain(model, base, metric="msee")


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({1: {"a": cell(0.1, positives=91)}}, "Received: 90 and 91 positives for slice 'a' in test window 1"),
        ({"1": {"a": cell(0.1)}}, "Received: 900 and None rows for slice 'a' in test window 1"),
        ({1: {"a": cell(0.1), "b": cell(0.1)}}, "Received: None and 900 rows for slice 'b' in test window 1"),
    ],
)
def test_results_on_different_rows_are_refused(base, message):
    with pytest.raises(ValueError, match=message):
        relative_gain({1: {"a": cell(0.1)}}, base)


def test_mean_and_sample_deviation_leave_out_none():
    assert mean_and_deviation([1.0, None, 2.0, 6.0]) == (3.0, pytest.approx(np.sqrt(14 / 2)))
    assert mean_and_deviation([4.0]) == (4.0, None)
    assert mean_and_deviation([None]) == (None, None)


@pytest.mark.filterwarnings("ignore:Precision loss")
def test_welch_matches_its_formula_and_is_none_where_undefined():
    a, b = np.array([0.2, 0.25, 0.24]), np.array([0.3, 0.31, 0.29, 0.5])
    variances = a.var(ddof=1) / 3, b.var(ddof=1) / 4
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 3)
    expected = 2 * stats.t.sf(abs(a.mean() - b.mean()) / np.sqrt(sum(variances)), freedom)
    assert welch([*a, None], b) == pytest.approx(expected)
    assert welch([0.2], b) is None
    assert welch([0.2, 0.2], [0.3, 0.3]) is None
    assert welch([2.0, 2.0], [3.0, 5.0]) == pytest.approx(2 * stats.t.sf(2.0, 1))


def bootstrap_task(users=120, rows=10):
    rng = np.random.default_rng(0)
    labels = (rng.random(users * rows) < 0.3).astype(float)
    weak = np.clip(0.1 * labels + rng.random(len(labels)) * 0.8, 0, 1)
    strong = np.clip(0.4 * labels + rng.random(len(labels)) * 0.6, 0, 1)
    return labels, strong, weak, np.repeat([f"u{i}" for i in range(users)], rows)


def test_weighted_average_precision_equals_repeated_rows_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, users = rng.integers(0, 2, 50), rng.integers(0, 8, 50)
        labels[users == 7] = 1  # at least one positive
        scores = np.round(rng.random(50), 1)
        weights = rng.integers(0, 3, 8) + (np.arange(8) == 7)
        repeats = weights[users]
        expected = average_precision_score(np.repeat(labels, repeats), np.repeat(scores, repeats))
        assert weighted_average_precision(labels, scores, users)(weights) == pytest.approx(expected)


def test_bootstrap_resamples_users_reproducibly():
    labels, strong, weak, users = bootstrap_task()
    result = paired_bootstrap(labels, strong, weak, users, num_samples=50, seed=3)
    rng = np.random.default_rng(3)
    rows = labels.reshape(120, 10), strong.reshape(120, 10), weak.reshape(120, 10)
    samples = []
    for _ in range(50):
        drawn = rng.integers(120, size=120)
        y, a, b = (column[drawn].ravel() for column in rows)
        samples.append(average_precision_score(y, a) - average_precision_score(y, b))
    assert [result["low"], result["high"]] == pytest.approx(np.quantile(samples, [0.025, 0.975]))
    assert result["difference"] == pytest.approx(
        average_precision_score(labels, strong) - average_precision_score(labels, weak)
    )
    assert result == paired_bootstrap(labels, strong, weak, users, num_samples=50, seed=3)
    json.dumps(result, allow_nan=False)


def test_bootstrap_finds_no_difference_between_identical_models_and_a_clear_one():
    labels, strong, weak, users = bootstrap_task()
    same = paired_bootstrap(labels, weak, weak, users, num_samples=100)
    assert (same["low"], same["high"], same["p_value"]) == (0.0, 0.0, 1.0)
    shuffled = np.random.default_rng(1).permutation(len(labels))
    noise = np.random.default_rng(2).random((2, len(labels)))
    equal = paired_bootstrap(labels[shuffled], *noise, users[shuffled], num_samples=200)
    assert equal["low"] < 0 < equal["high"]
    assert equal["p_value"] > 0.05
    clear = paired_bootstrap(labels, strong, weak, users, num_samples=200)
    assert clear["low"] > 0
    assert clear["p_value"] == pytest.approx(2 / 201)
    reverse = paired_bootstrap(labels, weak, strong, users, num_samples=200)
    assert (reverse["difference"], reverse["p_value"]) == (-clear["difference"], clear["p_value"])


def test_interval_is_wider_when_each_user_gives_many_equal_rows():
    labels, strong, weak, _ = bootstrap_task()
    independent = paired_bootstrap(labels, strong, weak, np.arange(1200), num_samples=200)
    columns = (np.tile(column[:120], 10) for column in (labels, strong, weak))
    clustered = paired_bootstrap(*columns, np.tile(np.arange(120), 10), num_samples=200)
    assert clustered["high"] - clustered["low"] > 2 * (independent["high"] - independent["low"])


def test_bootstrap_leaves_out_null_labels_and_is_not_available_like_a_cell():
    labels, strong, weak, users = bootstrap_task()
    masked = np.where(np.arange(1200) < 600, labels, np.nan)
    half = paired_bootstrap(labels[:600], strong[:600], weak[:600], users[:600], num_samples=20)
    assert paired_bootstrap(masked, strong, weak, users, num_samples=20) == half
    few = paired_bootstrap(labels, strong, weak, np.arange(1200) % 19)
    assert few == dict.fromkeys(("difference", "low", "high", "p_value")) | {"reason": "19 users, 20 needed"}


def test_samples_without_a_positive_are_left_out():
    users = np.arange(60)
    users[:31] = 0  # every positive belongs to one user, who is missing from a third of the samples
    labels = (np.arange(60) < 31).astype(float)
    result = paired_bootstrap(labels, labels, np.full(60, 0.5), users, num_samples=100)
    assert 0 < result["low"] <= result["difference"] <= result["high"] < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 3]}, "`labels` must be 0, 1 or NaN"),
        ({"scores": [0, np.nan]}, "`scores` must be probabilities"),
        ({"baseline_scores": [0, 2]}, "`baseline_scores` must be probabilities"),
        ({"baseline_scores": [0]}, r"`baseline_scores`, `users` must each have one value a row"),
        ({"users": [1, None]}, "`users` must name the user of every row"),
        ({"num_samples": 0}, "`num_samples` must be positive"),
    ],
)
def test_bootstrap_refuses_bad_input(change, message):
    arguments = {"labels": [0, 1], "scores": [0, 1], "baseline_scores": [0, 1], "users": [1, 2], **change}
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(**arguments)


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = np.round(rng.random(6) ** 3, 2)
        rejected = np.zeros(6, bool)
        for i, index in enumerate(np.argsort(p, kind="stable")):
            if p[index] > 0.05 / (6 - i):
                break
            rejected[index] = True
        np.testing.assert_array_equal(np.array(holm(p)) <= 0.05 + 1e-12, rejected)


def test_holm_keeps_the_order_of_the_claims_and_stays_within_one():
    assert holm([0.9, 0.01, 0.6]) == pytest.approx([1.0, 0.03, 1.0])
    assert holm([0.01, 0.02, 0.022]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([]) == []


def test_benjamini_hochberg_rejects_what_the_step_up_procedure_rejects():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = np.round(rng.random(6) ** 3, 2)
        below = [i for i in range(1, 7) if np.sort(p)[i - 1] <= 0.05 * i / 6]
        rejected = p <= np.sort(p)[max(below) - 1] if below else np.zeros(6, bool)
        np.testing.assert_array_equal(np.array(benjamini_hochberg(p)) <= 0.05 + 1e-12, rejected)
    assert benjamini_hochberg([]) == []


def test_benjamini_hochberg_finds_more_than_holm_where_there_are_many_true_claims():
    p = [*np.linspace(0.001, 0.02, 20), *np.linspace(0.1, 1, 20)]
    assert np.less(benjamini_hochberg(p), 0.05).sum() == 20 > np.less(holm(p), 0.05).sum()


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
@pytest.mark.parametrize("p_values", [[0.1, None], [1.1], [-0.1], [np.nan]])
def test_corrections_refuse_what_is_no_p_value(correct, p_values):
    with pytest.raises(ValueError, match=r"`p_values` must be numbers in \[0, 1\]; leave out"):
        correct(p_values)


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
def test_the_detectable_difference_is_found_in_four_of_five_simulated_studies(seeds):
    rng = np.random.default_rng(0)
    difference = detectable_difference(2.0, seeds)
    a, b = rng.normal(0, 2, (20_000, seeds)), rng.normal(difference, 2, (20_000, seeds))
    found = stats.ttest_ind(a, b, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_detectable_difference_without_a_deviation():
    assert detectable_difference(None, 1) is None
    assert detectable_difference(1.0, 1) is None
    assert detectable_difference(0.0, 3) == 0.0
    with pytest.raises(ValueError, match=r"`deviation` must be zero or positive. Received: deviation=-1.0"):
        detectable_difference(-1.0, 3)


def test_weighted_roc_auc_equals_repeated_rows_with_ties():
    rng = np.random.default_rng(0)
    labels, scores, users = rng.integers(0, 2, 60), rng.integers(0, 7, 60) / 7, rng.integers(0, 9, 60)
    for _ in range(5):
        weights = rng.integers(0, 4, 9)
        rows = np.repeat(np.arange(60), weights[users])
        difference = scores[rows][labels[rows] == 1][:, None] - scores[rows][labels[rows] == 0]
        expected = np.mean((difference > 0) + 0.5 * (difference == 0))
        assert weighted_roc_auc(labels, scores, users)(weights) == pytest.approx(expected)
    assert np.isnan(weighted_roc_auc(labels, scores, users)(np.zeros(9, int)))

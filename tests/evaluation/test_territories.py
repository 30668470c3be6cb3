import json

import numpy as np
import pytest
from scipy import stats

from tfmtr.evaluation.compare import benjamini_hochberg, holm, relative_gain
from tfmtr.evaluation.territories import mean_gain, slice_gains, won


def results(values):
    """Results over seeds from an array of shape (seeds, windows, slices); NaN is n/a."""
    return [
        {
            f"day {w}": {
                **{
                    f"T{t}": {"pr_auc": None if np.isnan(v) else v, "rows": 900, "positives": 90 + t}
                    for t, v in enumerate(row)
                },
                "overall": {"pr_auc": 0.9, "rows": 9000, "positives": 900},
            }
            for w, row in enumerate(windows)
        }
        for windows in np.asarray(values, float)
    ]


def two_models(seeds=(3, 2), windows=3, slices=6, gain=0.0, seed=0):
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.4, (1, windows, slices))
    ours, theirs = (level * rng.normal(1, 0.03, (n, windows, slices)) for n in seeds)
    return ours * (1 + gain), theirs


def test_the_gain_is_relative_gain_between_means_over_seeds_averaged_over_slices():
    ours, theirs = two_models(gain=0.1)
    ours[:, 0, 2] = theirs[:, 0, 2] = np.nan  # one window of T2
    ours[:, :, 4] = theirs[:, :, 4] = np.nan  # all of T4
    found = mean_gain(results(ours), results(theirs), num_samples=20)
    by_hand = relative_gain(*(results(values.mean(axis=0, keepdims=True))[0] for values in (ours, theirs)))["average"]
    gains = [by_hand[f"T{t}"] for t in (0, 1, 2, 3, 5)]
    assert found["gain"] == pytest.approx(np.mean(gains))
    statistic = np.mean(gains) / (np.std(gains, ddof=1) / np.sqrt(5))
    assert found["p_value"] == pytest.approx(2 * stats.t.sf(abs(statistic), 4))
    assert (found["slices"], found["positive"], found["reason"]) == (5, 5, None)
    cells = slice_gains(results(ours), results(theirs))
    assert [cells[f"T{t}"]["gain"] for t in (0, 1, 2, 3, 5)] == pytest.approx(gains)
    assert cells["T4"] == {"gain": None, "p_value": None, "adjusted": None}
    json.dumps([found, cells], allow_nan=False)


def test_windows_and_slices_may_come_in_another_order():
    ours, theirs = (results(values) for values in two_models())
    turned = [{w: dict(reversed(cells.items())) for w, cells in reversed(result.items())} for result in theirs]
    assert mean_gain(ours, turned, num_samples=20) == mean_gain(ours, theirs, num_samples=20)


def test_the_interval_draws_slices_and_the_seeds_of_each_model():
    ours, theirs = two_models()
    found = mean_gain(results(ours), results(theirs), num_samples=30, seed=5)
    rng, samples = np.random.default_rng(5), []
    for _ in range(30):
        a, b = (np.array([model[i] for i in rng.integers(len(model), size=len(model))]) for model in (ours, theirs))
        per_slice = [
            np.mean([100 * (a[:, w, t].mean() / b[:, w, t].mean() - 1) for w in range(3)])
            for t in rng.integers(6, size=6)
        ]
        samples.append(np.mean(per_slice))
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(samples, [0.025, 0.975]))


def test_a_true_gain_over_many_territories_is_found_and_none_is_not():
    gain = mean_gain(*(results(v) for v in two_models(slices=60, gain=0.05)), num_samples=200)
    assert gain["low"] > 2
    assert gain["p_value"] < 1e-6
    none = mean_gain(*(results(v) for v in two_models(slices=60)), num_samples=200)
    assert none["low"] < 0 < none["high"]
    assert none["p_value"] > 0.05


def test_a_gain_that_one_seed_alone_has_widens_the_interval_but_not_the_t_test():
    ours, theirs = two_models(seeds=(3, 3), slices=60)
    ours[0] *= 1.5
    found = mean_gain(results(ours), results(theirs), num_samples=300)
    assert found["p_value"] < 1e-6
    assert found["low"] < 1
    assert found["high"] > 20


def test_one_slice_has_no_interval_and_equal_gains_no_test():
    ours, theirs = two_models(slices=1)
    found = mean_gain(results(ours), results(theirs))
    assert (found["gain"], found["slices"], found["reason"]) == (None, 1, "1 slices, 2 needed")
    equal = mean_gain(results([[[0.5, 0.25]]]), results([[[0.25, 0.125]]]))
    assert (equal["gain"], equal["low"], equal["high"], equal["p_value"]) == (100, 100, 100, None)
    same = mean_gain(*[results(two_models()[1])] * 2)
    assert (same["gain"], same["positive"], same["p_value"]) == (0, 0, None)


def test_each_territory_is_tested_over_seeds_and_corrected_for_their_number():
    ours, theirs = two_models(seeds=(5, 5), slices=8)
    ours[:, :, :3] *= 1.1
    ours[:, :, 7] = theirs[:, :, 7] = np.nan
    cells = slice_gains(results(ours), results(theirs))
    expected = [
        stats.ttest_ind(ours[:, :, t].mean(axis=1), theirs[:, :, t].mean(axis=1), equal_var=False).pvalue
        for t in range(7)
    ]
    assert [cells[f"T{t}"]["p_value"] for t in range(7)] == pytest.approx(expected)
    assert [cells[f"T{t}"]["adjusted"] for t in range(7)] == pytest.approx(holm(expected))
    assert cells["T7"]["adjusted"] is None
    discovered = slice_gains(results(ours), results(theirs), correct=benjamini_hochberg)
    assert [discovered[f"T{t}"]["adjusted"] for t in range(7)] == pytest.approx(benjamini_hochberg(expected))


def test_won_counts_higher_means_over_windows_and_seeds():
    ours, theirs = np.full((2, 2, 4), 0.25), np.full((3, 2, 4), 0.25)
    ours[0, :, 0] = 0.3  # one seed of two
    ours[:, 0, 1], ours[:, 1, 1] = 0.3, 0.05  # a gain of percentages, but a lower mean
    theirs[:, 0, 1], theirs[:, 1, 1] = 0.1, 0.3
    ours[:, :, 3] = theirs[:, :, 3] = np.nan
    assert won(results(ours), results(theirs)) == (1, 3)
    assert mean_gain(results(ours), results(theirs))["positive"] == 2
    assert won(results(theirs), results(ours)) == (1, 3)


@pytest.mark.parametrize("function", [mean_gain, slice_gains, won])
def test_results_that_cannot_be_compared_are_refused(function):
    ours, theirs = (results(values) for values in two_models())
    with pytest.raises(ValueError, match=r"`model` must be a list with one result for each seed.*Received: dict"):
        function(ours[0], theirs)
    with pytest.raises(ValueError, match=r"`baseline` must be a list with one result for each seed.*of length 0"):
        function(ours, [])
    theirs[1]["day 2"]["T3"]["rows"] = 901
    with pytest.raises(ValueError, match="Received: 900 and 901 rows for slice 'T3' in test window 'day 2'"):
        function(ours, theirs)
    with pytest.raises(ValueError, match=r"`metric` must be one of .* Did you mean 'pr_auc'\?"):
        function(ours, theirs[:1], metric="pr_au")


def test_no_sample_is_refused():
    ours, theirs = (results(values) for values in two_models())
    with pytest.raises(ValueError, match="`num_samples` must be positive"):
        mean_gain(ours, theirs, num_samples=0)

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tfmtr.evaluation.gain_interval import bootstrap_pr_auc, gain_interval


def rows(num_users=40, windows=(1, 2), seed=0):
    rng = np.random.default_rng(seed)
    users, windows = np.tile(np.repeat(np.arange(num_users), 3), len(windows)), np.repeat(windows, 3 * num_users)
    labels = (rng.random(len(users)) < 0.5).astype(float)
    scores = 1 / (1 + np.exp(-(2 * labels + rng.normal(size=(2, len(users))))))
    return labels, scores, windows, users


def test_a_sample_is_the_pr_auc_of_the_drawn_users_in_every_window_and_run():
    labels, scores, windows, users = rows()
    samples = bootstrap_pr_auc(labels, scores, windows, users, num_samples=3, seed=5)
    assert samples.shape == (3, 2, 2)
    rng = np.random.default_rng(5)
    for sample in samples:
        weight = np.bincount(rng.integers(40, size=40), minlength=40)[users]  # the same users for all
        for place, window in enumerate((1, 2)):
            own = windows == window
            for run in (0, 1):
                expected = average_precision_score(labels[own], scores[run, own], sample_weight=weight[own])
                assert sample[place, run] == pytest.approx(expected)


def test_a_window_without_evidence_is_nan_and_counts_for_nobody():
    labels, scores, windows, users = rows()
    labels[windows == 2] = 0
    samples = bootstrap_pr_auc(labels, scores, windows, users, num_samples=20)
    assert np.isnan(samples[:, 1]).all()
    assert not np.isnan(samples[:, 0]).any()
    assert gain_interval(samples, [0], [1]) == gain_interval(samples[:, :1], [0], [1])
    labels[:] = np.nan
    assert gain_interval(bootstrap_pr_auc(labels, scores, windows, users, num_samples=5), [0], [1]) == (None, None)


def test_labels_that_were_not_observed_are_left_out():
    labels, scores, windows, users = rows()
    known = np.random.default_rng(1).random(len(labels)) < 0.9
    ours = bootstrap_pr_auc(np.where(known, labels, np.nan), scores, windows, users, num_samples=4)
    few = bootstrap_pr_auc(labels[known], scores[:, known], windows[known], users[known], num_samples=4)
    np.testing.assert_allclose(ours, few)


def test_the_interval_is_of_the_mean_over_windows_of_the_gains_between_means_over_seeds():
    samples = np.empty((1, 2, 3))
    samples[0] = [[0.3, 0.2, 0.25], [0.6, 0.4, 0.4]]
    low, high = gain_interval(samples, [0], [1])
    assert low == high == pytest.approx(50)
    samples = np.tile(samples, (4000, 1, 1))  # no noise of users is left, so the interval is that of the seeds
    low, high = gain_interval(samples, [0], [1, 2])
    assert low == pytest.approx((20 + 50) / 2)  # the second seed twice: 0.3 / 0.25 and 0.6 / 0.4
    assert high == pytest.approx(50)
    assert gain_interval(samples, [0], [1, 2], seed=3) == (low, high)


def test_wrong_arguments_are_refused():
    labels, scores, windows, users = rows()
    with pytest.raises(ValueError, match="`num_samples` must be positive"):
        bootstrap_pr_auc(labels, scores, windows, users, num_samples=0)
    with pytest.raises(ValueError, match="`labels`, `scores`, `windows`, `users` must each have one value a row"):
        bootstrap_pr_auc(labels[1:], scores, windows, users)

"""Intervals of relative gains in PR-AUC over test users and seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tfmtr.evaluation.compare import check_num_samples, percentile_interval, weighted_average_precision
from tfmtr.evaluation.metrics import check_columns, why_not_available


def bootstrap_pr_auc(
    labels: ArrayLike,
    scores: ArrayLike,
    windows: ArrayLike,
    users: ArrayLike,
    *,
    num_samples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """PR-AUC of several runs in every test window, for samples of test users drawn with replacement.

    All runs and windows of a sample have the same users, so that differences between runs are paired. As in
    `paired_bootstrap`, a drawn user is a weight on all their rows. Time grows with `rows * runs * num_samples`.

    Args:
        labels: Array of shape `(rows,)`: 0, 1 or NaN; rows with NaN are left out.
        scores: Array of shape `(runs, rows)`: probabilities.
        windows: Array of shape `(rows,)` with the test window.
        users: Array of shape `(rows,)` with the user of each row, of any type.
        num_samples: Number of samples.
        seed: Seed of the draws.

    Returns:
        Array of shape `(num_samples, windows, runs)`, windows in sorted order; NaN where a window has too little
        evidence (see `evaluate_task`), or the sample no positive of it.

    Raises:
        ValueError: If the arrays differ in shape, a user is null, or `num_samples` is not positive.

    Example:
    >>> users = np.repeat(np.arange(50), 2)
    >>> bootstrap_pr_auc(np.tile([1, 0], 50), [np.tile([1, 0], 50)], np.ones(100), users, num_samples=2).ravel()
    array([1., 1.])
    """
    check_num_samples(num_samples)
    labels, scores, windows = np.asarray(labels, np.float64), np.asarray(scores, np.float64), np.asarray(windows)
    users, distinct_users = pd.factorize(pd.Series(users))
    for run in scores:
        check_columns(labels=labels, scores=run, windows=windows, users=users)
    num_users, judged = len(distinct_users), []
    for place, window in enumerate(np.unique(windows)):
        rows = np.flatnonzero((windows == window) & ~np.isnan(labels))
        positive_users = users[rows][labels[rows] == 1]
        if why_not_available(len(rows), len(np.unique(users[rows])), len(positive_users)) is None:
            areas = [weighted_average_precision(labels[rows], run[rows], users[rows]) for run in scores]
            judged.append((place, positive_users, areas))
    samples = np.full((num_samples, len(np.unique(windows)), len(scores)), np.nan)
    rng = np.random.default_rng(seed)
    for sample in samples if judged else ():
        weights = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        for place, positive_users, areas in judged:
            if weights[positive_users].any():
                sample[place] = [area(weights) for area in areas]
    return samples


def gain_interval(
    samples: np.ndarray, model: Sequence[int] | np.ndarray, baseline: Sequence[int] | np.ndarray, *, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of a model's gain over a baseline in percent, as mean over windows, over users and seeds.

    To each sample of users belongs a draw of seeds with replacement, for each model on its own, as seeds are no pairs.
    With one seed a model the interval is over users only: what other seeds would have given is not in it. The gain is
    that of `mean_gain`: between means over seeds, then the mean over windows.

    Args:
        samples: What `bootstrap_pr_auc` returns.
        model: Runs of the model, one a seed: places on the last axis of `samples`.
        baseline: Those of the baseline.
        seed: Seed of the draws.

    Returns:
        `(low, high)` in percent, or `(None, None)` where no window has enough evidence.

    Example:
    >>> samples = np.stack([np.full((99, 1), 0.3), np.full((99, 1), 0.2)], axis=-1)
    >>> [round(bound) for bound in gain_interval(samples, [0], [1])]
    [50, 50]
    """
    rng = np.random.default_rng(seed)

    def mean_over_drawn(runs: Sequence[int] | np.ndarray) -> np.ndarray:
        drawn = np.asarray(runs)[rng.integers(len(runs), size=(len(samples), 1, len(runs)))]
        return np.take_along_axis(samples, drawn, axis=-1).mean(axis=-1)

    gains = 100 * (mean_over_drawn(model) / mean_over_drawn(baseline) - 1)
    is_measured = ~np.isnan(gains)
    means = (
        np.where(is_measured, gains, 0).sum(axis=1)[is_measured.any(axis=1)]
        / is_measured.sum(axis=1)[is_measured.any(axis=1)]
    )
    return percentile_interval(means) if len(means) else (None, None)

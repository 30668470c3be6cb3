"""Comparisons between models: relative gains, deviation over seeds, significance.

Runs of different models with the same seed are no pairs, so seeds are compared with `welch` and test
users, who are the same for both models, with `paired_bootstrap`; `holm` corrects the claims that were
stated before. n/a is `None`, and counts for nobody. Gains over many territories are in `territories.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, stats

from tfmtr.checks import check_choice
from tfmtr.evaluation.metrics import Windows, check_columns, check_labels, check_scores, why_not_available

LEVEL = 0.05
POWER = 0.8


def relative_gain(model: Windows, baseline: Windows, *, metric: str = "pr_auc") -> dict[Any, dict[str, float | None]]:
    """Gain of a model over a baseline in percent, `100 (model / baseline - 1)`, for each slice and window.

    The average over windows is the unweighted mean of their percentages; windows that are n/a are left out.

    Reference: Table 2 of Gampa et al., Multi-Task Learning For Reduced Popularity Bias In Multi-Territory
    Video Recommendations, 2023.

    Args:
        model: `{window: {slice: cell}}` with the cells of `evaluate_task`.
        baseline: The same for the baseline, on the same rows.
        metric: Key of the cells, for example `"pr_auc"` or `"roc_auc"`.

    Returns:
        `{window: {slice: percent}}` with one further key `"average"`, the mean over windows. A percentage is
        `None` where either cell is n/a or the baseline is 0; an average is `None` if no window has one.

    Raises:
        ValueError: If the two were not evaluated on the same rows, or `metric` is unknown.

    Example:
    >>> cells = [{"T1": {"pr_auc": pr_auc, "rows": 900, "positives": 90}} for pr_auc in (0.2, 0.25)]
    >>> relative_gain({1: cells[1]}, {1: cells[0]})
    {1: {'T1': 25.0}, 'average': {'T1': 25.0}}
    """
    check_same_rows(model, baseline)

    def gain(cell: Mapping[str, Any], reference: Mapping[str, Any]) -> float | None:
        check_choice("metric", metric, cell.keys())
        if cell[metric] is None or not reference[metric]:
            return None
        return 100 * (cell[metric] / reference[metric] - 1)

    gains = {
        window: {name: gain(cell, baseline[window][name]) for name, cell in cells.items()}
        for window, cells in model.items()
    }
    names = dict.fromkeys(name for window in gains.values() for name in window)
    average = {name: mean_and_deviation([window.get(name) for window in gains.values()])[0] for name in names}
    return {**gains, "average": average}


def check_same_rows(model: Windows, baseline: Windows) -> None:
    """Raises a `ValueError` unless two results have the same windows, slices, rows and positives."""
    counts, others = _counts(model), _counts(baseline)
    for key in {**counts, **others}:
        if counts.get(key) != others.get(key):
            window, name, count = key
            raise ValueError(
                "`model` and `baseline` must be evaluated on the same rows; evaluate both on one prepared directory. "
                f"Received: {counts.get(key)} and {others.get(key)} {count} "
                f"for slice {name!r} in test window {window!r}"
            )


def mean_and_deviation(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample deviation (divisor n - 1) of one figure over seeds; `None` values are left out.

    Args:
        values: Sequence of floats or `None`, one a seed.

    Returns:
        `(mean, deviation)`; the deviation of a single value is `None`, the mean of none is `None`.

    Example:
    >>> mean_and_deviation([1.0, 3.0, None]), mean_and_deviation([5.0])
    ((2.0, 1.4142135623730951), (5.0, None))
    """
    values = _present(values)
    mean = float(np.mean(values)) if values else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def welch(values: Iterable[float | None], others: Iterable[float | None]) -> float | None:
    """Two-sided p-value of Welch's t-test between the seeds of two models.

    Args:
        values: Sequence of floats or `None`, one for each seed of the first model.
        others: The same for the second model; the numbers of seeds may differ.

    Returns:
        Float in [0, 1], or `None` where it is not defined: fewer than two seeds, or no deviation in either.

    Example:
    >>> round(welch([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]), 4)
    0.2879
    """
    values, others = _present(values), _present(others)
    if min(len(values), len(others)) < 2 or np.ptp(values) == np.ptp(others) == 0:
        return None
    return float(stats.ttest_ind(values, others, equal_var=False).pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def paired_bootstrap(
    labels: ArrayLike,
    scores: ArrayLike,
    baseline_scores: ArrayLike,
    users: ArrayLike,
    *,
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Difference of two models' PR-AUC on the same rows, with an interval over test users.

    Users are drawn with replacement, not rows, because the rows of one user are not independent. A
    drawn user is a weight on all their rows, so each model is sorted once. Time grows with
    `rows * num_samples`.

    Args:
        labels: Array of shape `(rows,)`: 0, 1 or NaN; rows with NaN are left out.
        scores: Array of shape `(rows,)`, of the model.
        baseline_scores: Array of shape `(rows,)`, of the baseline.
        users: Array of shape `(rows,)` with the user of each row, of any type.
        num_samples: Number of bootstrap samples.
        seed: Seed of the draws.

    Returns:
        Dict with `difference` (model minus baseline), `low` and `high` (95 % percentile interval),
        `p_value` (two-sided, at least `2 / (num_samples + 1)`) and `reason`. Where `evaluate_task`
        says n/a, these are `None` and `reason` says why. Samples without a positive are left out.

    Raises:
        ValueError: If the arrays differ in shape, a label or score is outside its range, a user is null, or
            `num_samples` is not positive.

    Example:
    >>> users = np.repeat(np.arange(50), 2)
    >>> labels = np.tile([1, 0], 50)
    >>> result = paired_bootstrap(labels, labels, np.full(100, 0.5), users, num_samples=99)
    >>> result["difference"], result["low"], result["high"], result["p_value"]
    (0.5, 0.5, 0.5, 0.02)
    """
    check_num_samples(num_samples)
    labels = np.asarray(labels, np.float64)
    scores, baseline_scores = np.asarray(scores, np.float64), np.asarray(baseline_scores, np.float64)
    users, _ = pd.factorize(pd.Series(users))
    check_columns(labels=labels, scores=scores, baseline_scores=baseline_scores, users=users)
    observed = ~np.isnan(labels)
    labels, scores, baseline_scores = labels[observed], scores[observed], baseline_scores[observed]
    users, distinct_users = pd.factorize(users[observed])
    check_labels(labels, "binary")
    check_scores("scores", scores, "binary")
    check_scores("baseline_scores", baseline_scores, "binary")

    num_users = len(distinct_users)
    reason = why_not_available(len(labels), num_users, int(labels.sum()))
    if reason:
        return {"difference": None, "low": None, "high": None, "p_value": None, "reason": reason}
    precision = weighted_average_precision(labels, scores, users)
    baseline_precision = weighted_average_precision(labels, baseline_scores, users)
    once = np.ones(num_users, np.int64)
    difference = precision(once) - baseline_precision(once)
    rng = np.random.default_rng(seed)
    samples, positive_users = [], users[labels == 1]
    for _ in range(num_samples):
        weights = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        if weights[positive_users].any():
            samples.append(precision(weights) - baseline_precision(weights))
    low, high = percentile_interval(samples)
    tail = min(np.less_equal(samples, 0).sum(), np.greater_equal(samples, 0).sum())
    return {
        "difference": float(difference),
        "low": low,
        "high": high,
        "p_value": min(1.0, float(2 * (tail + 1) / (len(samples) + 1))),
        "reason": None,
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for the claims that were stated before.

    The i-th smallest of n p-values (from 0) is multiplied by n - i; the results may not decrease and are at most 1.

    Reference: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979, https://www.jstor.org/stable/4615733.

    Args:
        p_values: Sequence of floats in [0, 1], one a claim.

    Returns:
        List of adjusted p-values in the same order.

    Raises:
        ValueError: If a p-value is outside [0, 1], `None` or NaN.

    Example:
    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    p = _check_p_values(p_values)
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's correction for many claims, of which a small share may be false.

    Of the claims with an adjusted p-value up to q, at most the share q is false on average; `holm` makes any false
    one as rare, and so finds less. The i-th smallest of n p-values (from 1) is multiplied by n / i; the results may
    not decrease and are at most 1. For tests that are independent or depend positively.

    Reference: Benjamini and Hochberg, Controlling the False Discovery Rate, 1995, https://www.jstor.org/stable/2346101.

    Args:
        p_values: Sequence of floats in [0, 1], one a claim.

    Returns:
        List of adjusted p-values in the same order.

    Raises:
        ValueError: If a p-value is outside [0, 1], `None` or NaN.

    Example:
    >>> benjamini_hochberg([0.04, 0.01, 0.03])
    [0.04, 0.03, 0.04]
    """
    return stats.false_discovery_control(_check_p_values(p_values)).tolist()


def detectable_difference(deviation: float | None, seeds: int) -> float | None:
    """Smallest true difference between two models that a test over seeds finds with 80 % power at 5 %.

    Two-sided t-test, the same number of seeds and the same deviation for both models, solved exactly
    with the noncentral t distribution. Print it wherever few seeds found nothing.

    Args:
        deviation: Sample deviation of one model over seeds, or `None` if it has one seed.
        seeds: Number of seeds a model.

    Returns:
        Difference in the unit of `deviation`, or `None` with fewer than two seeds.

    Raises:
        ValueError: If `deviation` is negative.

    Example:
    >>> round(detectable_difference(0.01, 3), 4)
    0.0307
    """
    if deviation is None or seeds < 2:
        return None
    if not deviation >= 0:
        raise ValueError(f"`deviation` must be zero or positive. Received: deviation={deviation!r}")
    freedom = 2 * (seeds - 1)
    critical = stats.t.ppf(1 - LEVEL / 2, freedom)

    def missing_power(noncentrality: float) -> float:
        return float(POWER - stats.nct.sf(critical, freedom, noncentrality))

    return float(deviation * np.sqrt(2 / seeds) * optimize.brentq(missing_power, 0, 10 * critical))


def percentile_interval(samples: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap samples, `(low, high)`."""
    low, high = np.quantile(samples, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def check_num_samples(num_samples: int) -> None:
    """Raises a `ValueError` unless there is at least one bootstrap sample."""
    if num_samples < 1:
        raise ValueError(f"`num_samples` must be positive, for example 1000. Received: num_samples={num_samples!r}")


def _check_p_values(p_values: Sequence[float]) -> np.ndarray:
    p = np.asarray(p_values, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"`p_values` must be numbers in [0, 1]; leave out the claims that are n/a. Received: {list(p_values)}"
        )
    return p


def _counts(result: Windows) -> dict[tuple[Any, str, str], int | None]:
    return {
        (window, name, count): cell.get(count)
        for window, cells in result.items()
        for name, cell in cells.items()
        for count in ("rows", "positives")
    }


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def weighted_roc_auc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> Callable[[np.ndarray], float]:
    """Function of a user's weight, integers of shape `(users,)`, that returns the weighted ROC AUC.

    A pair of a positive and a negative row counts as often as the product of their users' weights; ties count half. As
    in `weighted_average_precision` rows are sorted once. The function returns NaN where a kind of rows has no weight.

    Args:
        labels: Array of shape `(rows,)`, 0 or 1.
        scores: Array of shape `(rows,)`.
        users: Array of shape `(rows,)`, the index of each row's user.

    Example:
    >>> auc = weighted_roc_auc(np.array([1, 0, 0]), np.array([0.5, 0.4, 0.5]), np.array([0, 1, 2]))
    >>> float(auc(np.array([1, 1, 1]))), float(auc(np.array([1, 3, 1])))
    (0.75, 0.875)
    """
    order = np.argsort(scores, kind="stable")
    labels, scores, users = labels[order], scores[order], users[order]
    starts = np.flatnonzero(np.diff(scores, prepend=-np.inf))

    def roc_auc(weights: np.ndarray) -> float:
        rows = weights[users]
        positives = np.add.reduceat(np.where(labels == 1, rows, 0), starts)
        negatives = np.add.reduceat(np.where(labels == 1, 0, rows), starts)
        below = np.cumsum(negatives) - negatives / 2
        pairs = positives.sum() * negatives.sum()
        return np.sum(positives * below) / pairs if pairs else np.nan

    return roc_auc


def weighted_average_precision(
    labels: np.ndarray, scores: np.ndarray, users: np.ndarray
) -> Callable[[np.ndarray], float]:
    """Function of a user's weight, integers of shape `(users,)`, that returns the weighted average precision.

    All that does not depend on the weights is done once: rows are sorted, and as precision counts only where
    recall grows, rows are summed from one group of equal scores with a positive to the next.
    """
    order = np.argsort(-scores, kind="stable")
    labels, scores, users = labels[order], scores[order], users[order]
    group = np.cumsum(np.diff(scores, prepend=scores[0]) != 0)
    positive_rows = np.flatnonzero(labels)
    groups, first_positive = np.unique(group[positive_rows], return_index=True)
    ends = np.searchsorted(group, groups, side="right")
    starts = np.append(0, ends[:-1])
    all_users, positive_users = users[: ends[-1]], users[positive_rows]

    def average_precision(weights: np.ndarray) -> float:
        rows = np.cumsum(np.add.reduceat(weights[all_users], starts))
        positives = np.add.reduceat(weights[positive_users], first_positive)
        recalled = np.cumsum(positives)
        return np.sum(positives * recalled / np.maximum(rows, 1)) / recalled[-1]

    return average_precision

"""The gain of a model over a baseline over many territories, or other slices, several seeds each.

Slices are pairs: both models are evaluated on the same rows. Seeds are not, see `tfmtr.evaluation.compare`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from tfmtr.checks import check_choice
from tfmtr.evaluation.compare import check_num_samples, check_same_rows, holm, percentile_interval, welch
from tfmtr.evaluation.metrics import OVERALL, Windows


def mean_gain(
    model: Sequence[Windows],
    baseline: Sequence[Windows],
    *,
    metric: str = "pr_auc",
    num_samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean over slices (territories) of a model's gain over a baseline, with an interval and a t-test.

    The gain of a slice is that of `relative_gain` between the models' means over seeds, as mean over windows. For
    the interval, slices and, for each model on its own, seeds are drawn with replacement: what other territories and
    other seeds would have given (of a single seed: other territories only). The t-test is over the slices' gains
    against 0, with the seeds as they are. Both weigh all slices equally and take them as independent.

    Args:
        model: List over seeds of `{window: {slice: cell}}`, with the cells of `evaluate_task`.
        baseline: The same for the baseline, on the same rows; the number of seeds may differ.
        metric: Key of the cells.
        num_samples: Number of bootstrap samples.
        seed: Seed of the draws.

    Returns:
        Dict with `gain` (percent), `low` and `high` (95 % percentile interval), `p_value` (two-sided t-test),
        `positive` and `slices` (numbers of slices with a positive gain, and with a gain) and `reason`: with fewer
        than two slices all but the numbers are `None`, and it says why. `p_value` alone is `None` if all gains are
        equal.

    Raises:
        ValueError: If the two were not evaluated on the same rows, `metric` is unknown, or `num_samples` is not
            positive.

    Example:
    >>> def result(*values):
    ...     return {1: {f"T{i}": {"pr_auc": value, "rows": 900, "positives": 90} for i, value in enumerate(values)}}
    >>> found = mean_gain([result(0.22, 0.26, 0.42)], [result(0.2, 0.2, 0.4)])
    >>> round(found["gain"], 4), round(found["p_value"], 4), found["positive"]
    (15.0, 0.1885, 3)
    """
    check_num_samples(num_samples)
    _, ours, theirs = _values(model, baseline, metric)
    gains = _gains(ours, theirs)
    is_measured = ~np.isnan(gains)
    ours, theirs, gains = ours[..., is_measured], theirs[..., is_measured], gains[is_measured]
    counts = {"positive": int((gains > 0).sum()), "slices": len(gains)}
    if len(gains) < 2:
        reason = f"{len(gains)} slices, 2 needed"
        return {**dict.fromkeys(("gain", "low", "high", "p_value")), **counts, "reason": reason}
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(num_samples):
        drawn = (values[rng.integers(len(values), size=len(values))] for values in (ours, theirs))
        samples.append(np.nanmean(_gains(*drawn)[rng.integers(len(gains), size=len(gains))]))
    low, high = percentile_interval(samples)
    p_value = float(stats.ttest_1samp(gains, 0.0).pvalue) if np.ptp(gains) else None  # pyright: ignore[reportAttributeAccessIssue]
    return {"gain": float(gains.mean()), "low": low, "high": high, "p_value": p_value, **counts, "reason": None}


def slice_gains(
    model: Sequence[Windows],
    baseline: Sequence[Windows],
    *,
    metric: str = "pr_auc",
    correct: Callable[[Sequence[float]], list[float]] = holm,
) -> dict[str, dict[str, float | None]]:
    """Gain of a model over a baseline in every slice (territory), with p-values corrected for their number.

    Args:
        model: List over seeds of `{window: {slice: cell}}`, with the cells of `evaluate_task`.
        baseline: The same for the baseline, on the same rows; the number of seeds may differ.
        metric: Key of the cells.
        correct: Function from a list of p-values to the adjusted ones: `holm`, so that any false claim
            is rare, or `benjamini_hochberg`, so that false ones are few among those made, which finds more where
            there are many territories.

    Returns:
        `{slice: {"gain": percent, "p_value": float, "adjusted": float}}` without the pooled cell: the gain as in
        `mean_gain`, `p_value` of `welch` over the seeds' means over windows. `None` where it is not defined; the
        correction is over the others.

    Raises:
        ValueError: If the two were not evaluated on the same rows, or `metric` is unknown.

    Example:
    >>> def result(*values):
    ...     return {1: {f"T{i}": {"pr_auc": value, "rows": 900, "positives": 90} for i, value in enumerate(values)}}
    >>> seeds = [result(0.3, 0.2), result(0.32, 0.3)], [result(0.2, 0.2), result(0.21, 0.3)]
    >>> {name: round(cell["adjusted"], 3) for name, cell in slice_gains(*seeds).items()}
    {'T0': 0.055, 'T1': 1.0}
    """
    names, ours, theirs = _values(model, baseline, metric)
    gains = _gains(ours, theirs)
    by_seed = [_mean_of_known(values, axis=1) for values in (ours, theirs)]
    p_values = [
        welch(*(values[:, i] for values in by_seed)) if gains[i] == gains[i] else None for i in range(len(names))
    ]
    computed = {i: p for i, p in enumerate(p_values) if p is not None}
    adjusted = dict(zip(computed, correct(list(computed.values())), strict=True))
    return {
        name: {
            "gain": None if np.isnan(gains[i]) else float(gains[i]),
            "p_value": p_values[i],
            "adjusted": adjusted.get(i),
        }
        for i, name in enumerate(names)
    }


def won(model: Sequence[Windows], baseline: Sequence[Windows], *, metric: str = "pr_auc") -> tuple[int, int]:
    """In how many slices (territories) a model's mean over windows and seeds is higher than the baseline's.

    `mean_gain` counts positive gains beside it (`positive`), as Table 2 of Gampa et al., 2023, does; the two differ
    where windows disagree, because a percentage weights a window by the baseline's value in it.

    Args:
        model: List over seeds of `{window: {slice: cell}}`, with the cells of `evaluate_task`.
        baseline: The same for the baseline, on the same rows; the number of seeds may differ.
        metric: Key of the cells.

    Returns:
        `(slices won, slices that are not n/a)`, without the pooled cell.

    Raises:
        ValueError: If the two were not evaluated on the same rows, or `metric` is unknown.

    Example:
    >>> cells = [[{1: {"T1": {"pr_auc": value}, "T2": {"pr_auc": 0.3}}}] for value in (0.25, 0.2)]
    >>> won(*cells)
    (1, 2)
    """
    _, ours, theirs = _values(model, baseline, metric)
    ours, theirs = (_mean_of_known(values, axis=(0, 1)) for values in (ours, theirs))
    return int((ours > theirs).sum()), int((~np.isnan(ours)).sum())


def _values(
    model: Sequence[Windows], baseline: Sequence[Windows], metric: str
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the slices, and a metric of both models with shape `(seeds, windows, slices)`, NaN where n/a."""
    for argument, results in (("model", model), ("baseline", baseline)):
        if not isinstance(results, (list, tuple)) or not results:
            raise ValueError(
                f"`{argument}` must be a list with one result for each seed, [result] for a single one. "
                f"Received: {type(results).__name__} of length {len(results)}"
            )
    for result in (*model[1:], *baseline):
        check_same_rows(model[0], result)
    names = list(dict.fromkeys(name for cells in model[0].values() for name in cells if name != OVERALL))

    def value(cell: Mapping[str, Any] | None) -> float | None:
        if cell is None:
            return None
        check_choice("metric", metric, cell.keys())
        return cell[metric]

    def array(results: Sequence[Windows]) -> np.ndarray:
        values = [[[value(result[window].get(name)) for name in names] for window in model[0]] for result in results]
        return np.array(values, np.float64)

    return names, array(model), array(baseline)


def _gains(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """`relative_gain` of means over seeds, as mean over windows, from the arrays of `_values`."""
    ours, theirs = ours.mean(axis=0), theirs.mean(axis=0)
    return _mean_of_known(100 * (ours / np.where(theirs == 0, np.nan, theirs) - 1), axis=0)


def _mean_of_known(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean along axes without NaN; NaN where there is nothing else."""
    is_known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(is_known, values, 0).sum(axis) / is_known.sum(axis)

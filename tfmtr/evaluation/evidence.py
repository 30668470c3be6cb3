"""How sure a ratio of two models' lists is: over users and seeds, and what could have been found."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from tfmtr.evaluation.compare import LEVEL, POWER, check_num_samples

BLOCK = 100  # samples drawn at once
LEAST_USERS = 20


def compare_lists(
    ours: pd.DataFrame, theirs: pd.DataFrame, *, num_samples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """The ratio of two means over the same user-windows, with its interval and what would have been detectable.

    Users are drawn with all their windows, and in each sample the seeds of a model are drawn, too: figures of a user
    are means over the drawn seeds first. Seeds add no users.

    With the standard error s of the logarithm of the ratio, a two-sided test at 5 % finds a ratio of

        detectable = exp((z_{0.975} + z_{0.8}) s)

    or more (or 1 / detectable and less) with a power of 80 %.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 (whole users) and 13
    (percentiles).

    Args:
        ours: Data frame of the first model with `user`, `window` and `value` (a metric, from 0 up), and `seed` where
            there are several; the same pairs of user and window in each seed.
        theirs: Likewise of the second model, with the same pairs.
        num_samples: Bootstrap samples.
        seed: Seed of the samples.

    Returns:
        `{"ours", "theirs", "ratio", "low", "high", "p_value", "detectable", "users", "user_windows", "reason"}`:
        means, their ratio, its 95 % interval (without an upper end where theirs may be 0), the two-sided p-value
        against 1, and the counts. `reason` says why figures are `None`: under 20 users, or a mean of 0 of theirs; where
        ours is 0, `detectable` is `None`.

    Raises:
        ValueError: If the pairs differ or come twice, a value is not a finite number from 0 up, or `num_samples` is not
            positive.

    Example:
    >>> users = pd.DataFrame({"user": range(40), "window": 1})
    >>> found = compare_lists(users.assign(value=[0.5, 1.0] * 20), users.assign(value=0.5), num_samples=200)
    >>> found["ratio"], found["low"] > 1, found["user_windows"]
    (1.5, True, 40)
    """
    check_num_samples(num_samples)
    first_values, pairs = _by_seed(ours)
    second_values, others = _by_seed(theirs)
    if not pairs.equals(others):
        raise ValueError(
            "`ours` and `theirs` must have the same pairs of a user and a window. Received: "
            f"{len(pairs)} and {len(others)}, of which {len(pairs.intersection(others))} are in both"
        )
    users, names = pd.factorize(pairs.get_level_values("user"))
    comparisons = {
        "ours": float(first_values.mean()) if len(pairs) else None,
        "theirs": float(second_values.mean()) if len(pairs) else None,
        **dict.fromkeys(("ratio", "low", "high", "p_value", "detectable")),
        "users": len(names),
        "user_windows": len(pairs),
        "reason": None,
    }
    if len(names) < LEAST_USERS:
        return {**comparisons, "reason": f"{len(names)} users, {LEAST_USERS} needed"}
    if not comparisons["theirs"]:
        return {**comparisons, "reason": "a mean of 0"}
    # Sums of each user over windows: a drawn user brings all of them.
    both = first_values, second_values
    sums = [np.stack([np.bincount(users, row, len(names)) for row in rows], axis=1) for rows in both]
    rng, samples = np.random.default_rng(seed), []
    for begin in range(0, num_samples, BLOCK):
        size = min(BLOCK, num_samples - begin)
        weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        means = []
        for of_seeds in sums:
            count = of_seeds.shape[1]
            drawn = rng.multinomial(count, np.full(count, 1 / count), size=size) / count
            means.append(np.sum((weights @ of_seeds) * drawn, axis=1))
        samples.append(means)
    first, second = np.concatenate(samples, axis=1)
    # A sample in which nobody has a hit of theirs is infinitely much better, unless there is none of ours either.
    ratios = np.divide(first, second, out=np.where(first > 0, np.inf, 1.0), where=second > 0)
    low, high = (
        float(value) for value in np.quantile(ratios, [LEVEL / 2, 1 - LEVEL / 2], method="closest_observation")
    )
    tail = min(np.less_equal(first, second).sum(), np.greater_equal(first, second).sum())
    detectable = None
    if comparisons["ours"]:
        error = np.std(first / first.mean() - second / second.mean(), ddof=1)  # of the ratio's logarithm
        factor = stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER)
        detectable = float(np.exp(factor * error))
    return {
        **comparisons,
        "ratio": comparisons["ours"] / comparisons["theirs"],
        "low": low,
        "high": high if np.isfinite(high) else None,
        "p_value": min(1.0, float(2 * (tail + 1) / (num_samples + 1))),
        "detectable": detectable,
    }


def interval_text(cell: Mapping[str, Any], digits: int = 3) -> str:
    """The interval of a result of `compare_lists` as text.

    >>> interval_text({"low": 0.8, "high": 1.25}, 2), interval_text({"low": 0.8, "high": None}, 2)
    ('0.80 to 1.25', '0.80 or more')
    """
    low = f"{cell['low']:.{digits}f}"
    return f"{low} or more" if cell["high"] is None else f"{low} to {cell['high']:.{digits}f}"


def short_interval(cell: Mapping[str, Any]) -> str:
    """The same for a table's cell, in one word.

    >>> short_interval({"low": 0.8, "high": 1.25}), short_interval({"low": 0.8, "high": None})
    ('0.800-1.250', '0.800-∞')
    """
    return f"{cell['low']:.3f}-" + ("∞" if cell["high"] is None else f"{cell['high']:.3f}")


def _by_seed(frame: pd.DataFrame) -> tuple[np.ndarray, pd.Index]:
    """Values of shape `(seeds, pairs)`, and the sorted pairs."""
    frame = frame if "seed" in frame else frame.assign(seed=0)
    if (number := int(frame.duplicated(["user", "window", "seed"]).sum())) > 0:
        raise ValueError(
            f"Each pair of a user and a window must come once in a seed. Received: {number} of {len(frame)} come again"
        )
    wrong = frame.value[~(np.isfinite(frame.value) & (frame.value >= 0))].dropna()
    if len(wrong):
        raise ValueError(
            f"`value` must be a finite number from 0 up. Received: {wrong.iloc[0]} ({len(wrong)} such values)"
        )
    table = frame.pivot(index=["user", "window"], columns="seed", values="value").sort_index()
    if table.isna().any(axis=None):
        raise ValueError(
            "`value` must be there for every pair of a user and a window in every seed. Received: "
            f"{int(table.isna().sum().sum())} of {table.size} are missing"
        )
    return table.to_numpy(np.float64).T, table.index

"""Single titles under two models: whether a title's scores went up or down.

PR-AUC per title is `evaluate_task` with the title as slice, its gain per title `relative_gain` of two such results
(Table 3 of Gampa et al., Multi-Task Learning For Reduced Popularity Bias In Multi-Territory Video Recommendations,
2023); `score_shift` is a number for their Figure 2.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tfmtr.evaluation.metrics import (
    OVERALL,
    Cells,
    check_columns,
    check_scores,
    encode_slices,
    rows_by_slice,
    why_not_available,
)


def score_shift(scores: ArrayLike, baseline_scores: ArrayLike, titles: ArrayLike, users: ArrayLike) -> Cells:
    """Signed shift of each title's score distribution from a baseline to a model.

    The probability that a score of the model, for a user drawn at random, is higher than one of the baseline, for
    another draw, minus one half:

        shift = P(S > S') + P(S = S') / 2 - 1 / 2    in [-1/2, 1/2].

    Above 0 the histogram of the title has moved to higher scores. The paper compares histograms by eye and gives no
    statistic. The signed Kolmogorov-Smirnov distance takes its sign where two distribution functions differ most,
    which turns around with one bin where they cross; this effect size compares all pairs. Both keep their value if
    the two models' scores go through the same increasing function. A shift of every title in one direction is a
    difference of calibration: compare local titles with global ones.

    Reference: Vargha and Delaney, A Critique and Improvement of the CL Common Language Effect Size Statistics of
    McGraw and Wong, 2000, https://doi.org/10.3102/10769986025002101. It is Mann and Whitney's U over the number of
    pairs; SciPy's `mannwhitneyu` has a p-value too, which is not for the same users in both samples.

    Args:
        scores: Array of shape `(rows,)`: the model's probabilities.
        baseline_scores: Array of shape `(rows,)`: the baseline's for the same pairs of a user and a title.
        titles: Array of shape `(rows,)` with the title of each row, of any type; rows with a null are left out.
        users: Array of shape `(rows,)` with the user of each row, of any type.

    Returns:
        `{title: cell}`: titles as text, in sorted order; cells with `shift`, `rows`, `users` and `reason`, which is
        `None` or says why the cell is n/a (under 20 users).

    Raises:
        ValueError: If the arrays differ in shape, a score is no probability, or a user is null.

    Example:
    >>> users = np.arange(20)
    >>> score_shift(users / 40 + 0.5, users / 40, np.full(20, "Heat"), users)
    {'Heat': {'shift': 0.5, 'rows': 20, 'users': 20, 'reason': None}}
    """
    scores, baseline_scores = np.asarray(scores, np.float64), np.asarray(baseline_scores, np.float64)
    titles, names = encode_slices(titles)
    users, _ = pd.factorize(pd.Series(users))
    check_columns(scores=scores, baseline_scores=baseline_scores, titles=titles, users=users)
    check_scores("scores", scores, "binary")
    check_scores("baseline_scores", baseline_scores, "binary")

    def cell(rows: np.ndarray | slice) -> dict[str, Any]:
        num_users, shift = len(pd.unique(users[rows])), None
        reason = why_not_available(len(users[rows]), num_users)
        if reason is None:
            ours, theirs = np.sort(scores[rows]), np.sort(baseline_scores[rows])
            lower = (np.searchsorted(theirs, ours, "left") + np.searchsorted(theirs, ours, "right")) / 2
            shift = float(lower.mean() / len(theirs) - 0.5)
        return {"shift": shift, "rows": len(users[rows]), "users": num_users, "reason": reason}

    return {name: cell(rows) for name, rows in rows_by_slice(titles, names).items() if name != OVERALL}

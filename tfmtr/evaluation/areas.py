"""Areas under the precision-recall and the ROC curve of many groups of rows at once, and the sort they rest on."""

import numpy as np


def areas(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and ROC AUC of every group, from one sort of all rows.

    With P positives i and N negatives j in a group, equal scores being one step of both curves,

        pr_auc = (1 / P) sum_i |positives with s >= s_i| / |rows with s >= s_i|
        roc_auc = (1 / (P N)) sum_ij [s_i > s_j] + [s_i = s_j] / 2.

    Args:
        labels: Boolean array of shape `(rows,)`.
        scores: Float array of shape `(rows,)` without NaN.
        groups: Integer array of shape `(rows,)` in `[0, num_groups)`, for example users.
        num_groups: Number of groups.

    Returns:
        `(pr_auc, roc_auc)`, float64 arrays of shape `(num_groups,)`; NaN where a group has no positive, and for
        the ROC where it has no negative.

    Example:
    >>> pr_auc, roc_auc = areas(np.array([True, False, True]), np.array([0.2, 0.5, 0.9]), np.zeros(3, int), 1)
    >>> pr_auc.round(4), roc_auc
    (array([0.8333]), array([0.5]))
    """
    order = np.argsort(scores, kind="stable")[::-1]  # of sorted scores, as `observed_rows` gives them, at once
    order = order[stable_order(groups[order])]
    labels, scores, groups = labels[order], scores[order], groups[order]
    starts = np.searchsorted(groups, np.arange(num_groups + 1))
    rows = np.diff(starts)
    last = np.ones(len(labels), bool)  # of the rows with the same score in a group
    last[:-1] = (groups[1:] != groups[:-1]) | (scores[1:] != scores[:-1])
    ends = np.append(0, np.flatnonzero(last) + 1)

    # From here on everything is per positive, of which there are few.
    at = np.flatnonzero(labels)
    group = groups[at]
    step = np.searchsorted(ends, at, side="right")
    first, end = ends[step - 1], ends[step]
    num_positives = np.searchsorted(at, end) - np.searchsorted(
        at, starts[group]
    )  # positives with this score or a higher one
    tied = np.searchsorted(at, end) - np.searchsorted(at, first)
    positives = np.bincount(group, minlength=num_groups)
    negatives = rows - positives
    above = end - starts[group] - num_positives  # negatives
    below = negatives[group] - above + (end - first - tied) / 2
    with np.errstate(invalid="ignore"):
        pr_auc = np.bincount(group, num_positives / (end - starts[group]), num_groups) / positives
        roc_auc = np.bincount(group, below, num_groups) / (positives * negatives)
    return pr_auc, roc_auc


def stable_order(codes: np.ndarray) -> np.ndarray:
    """Stable argsort of integers in `[0, 2**32)`, in linear time: NumPy has radix sort for 16 bits."""
    order = np.argsort(codes.astype(np.uint16), kind="stable")
    if codes.max(initial=0) < 2**16:
        return order
    return order[np.argsort((codes[order] >> 16).astype(np.uint16), kind="stable")]

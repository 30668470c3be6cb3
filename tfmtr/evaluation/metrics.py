"""Metrics of one task per slice.

A result is a plain dict that goes to JSON as it is. A cell with too little evidence is n/a: its
metrics are `None`, its counts stay and its `reason` says why. Several models are compared as
`{model: {window: {slice: cell}}}`, with one `evaluate_task` result for each model and test window.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tfmtr.checks import check_choice
from tfmtr.evaluation.areas import areas, stable_order
from tfmtr.evaluation.normalized_entropy import normalized_entropy
from tfmtr.schema import TASK_KINDS

OVERALL = "overall"
MIN_POSITIVES = 30
MIN_USERS = 20
CLIP = 1e-7

Cells = dict[str, dict[str, Any]]  # {slice: cell}
Windows = Mapping[Any, Mapping[str, Mapping[str, Any]]]  # {window: {slice: cell}}, by number or its text


def evaluate_task(
    labels: ArrayLike, scores: ArrayLike, slices: ArrayLike, users: ArrayLike, *, kind: str = "binary"
) -> Cells:
    """Metrics of one task on one test window, for every slice value and pooled.

    A cell of a binary task has `pr_auc` (average precision: the step-wise sum over the
    precision-recall curve, equal scores being one step), `roc_auc`, `log_loss` (natural logarithm,
    probabilities clipped to `[1e-7, 1 - 1e-7]`), `normalized_entropy` (that loss over the one of the prevalence alone),
    `calibration_error` (that of `expected_calibration_error`, large by chance in small cells) and `prevalence`;
    one of a regression task has `mse` and `mae`. Beside them stand the counts `rows`, `positives` (binary tasks) and
    `users`, and `reason`, which is `None` or says why the cell is n/a: under 30 positives, under 20 users, or one
    class only. Prevalence describes the data, not the model, so an n/a cell keeps it. Most of the time goes into
    sorting the rows by score: those of many million that are evaluated by several slices are best sorted before.

    Args:
        labels: Array of shape `(rows,)`: 0, 1 or NaN for a binary task, any finite number or NaN for
            a regression task. Rows with NaN (not observed) are left out.
        scores: Array of shape `(rows,)`: probabilities for a binary task, predictions otherwise.
        slices: Array of shape `(rows,)` with the slice value, for example the territory, the title, or whether
            the title is local or global. Rows with a null count for the pooled cell only.
        users: Array of shape `(rows,)` with the user of each row, of any type.
        kind: `"binary"` or `"regression"`.

    Returns:
        `{slice: cell}`: slice values as text, in sorted order, and last `"overall"`, pooled over all rows.

    Raises:
        ValueError: If the arrays differ in shape, a label or score is outside its range, a user is
            null, a slice is called `"overall"`, or `kind` is unknown.

    Example:
    >>> users = np.arange(100)
    >>> cells = evaluate_task(users < 50, 1 - users / 100, np.where(users < 90, "DE", "PL"), users)
    >>> cells["DE"]["pr_auc"], cells["PL"]["pr_auc"], cells["PL"]["reason"]
    (1.0, None, 'no positives')
    """
    check_choice("kind", kind, TASK_KINDS)
    labels, scores, slices, names, users = observed_rows(labels, scores, slices, users, kind)
    evaluate = _binary_cell if kind == "binary" else _regression_cell
    return {
        name: evaluate(labels[rows], scores[rows], len(pd.unique(users[rows])))
        for name, rows in rows_by_slice(slices, names).items()
    }


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, *, num_bins: int = 15) -> float:
    """Mean distance between predicted and observed rate over bins of equal numbers of rows.

        ECE = sum_b |rows of b| / |rows| |mean label of b - mean probability of b|

    Args:
        labels: Array of shape `(rows,)`: 0, 1, or true probabilities.
        probabilities: Array of shape `(rows,)` in [0, 1].
        num_bins: Number of bins; rows with equal probabilities may fall into different ones.

    Returns:
        Float in [0, 1].

    Raises:
        ValueError: If the arrays differ in shape or a value is outside its range.

    Reference: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015, with bins of
    equal numbers instead of equal widths, as rare events need.

    Example:
    >>> expected_calibration_error([0, 0, 1, 1], [0.25, 0.25, 0.75, 0.75], num_bins=2)
    0.25
    """
    labels, probabilities = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    check_columns(labels=labels, probabilities=probabilities)
    check_scores("labels", labels, "binary")
    check_scores("probabilities", probabilities, "binary")
    order = np.argsort(probabilities, kind="stable")
    bins = np.array_split(order, num_bins)
    gaps = [len(rows) * abs(labels[rows].mean() - probabilities[rows].mean()) for rows in bins if len(rows)]
    return float(sum(gaps) / len(labels))


def observed_rows(
    labels: ArrayLike, scores: ArrayLike, slices: ArrayLike, users: ArrayLike, kind: str, **columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str], np.ndarray, *tuple[np.ndarray, ...]]:
    """Checks the arguments of `evaluate_task` and returns the rows that have a label, sorted by score.

    Returns:
        `(labels, scores, slices, names, users, *columns)`: arrays of shape `(rows,)`, slices and users as integers,
        and the names of the slices as `encode_slices` gives them. Further columns come along.
    """
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    slices, names = encode_slices(slices)
    users, _ = pd.factorize(pd.Series(users))
    check_columns(labels=labels, scores=scores, slices=slices, users=users, **columns)
    order = np.flatnonzero(~np.isnan(labels))
    order = order[np.argsort(scores[order], kind="stable")]
    labels, scores = labels[order], scores[order]
    check_labels(labels, kind)
    check_scores("scores", scores, kind)
    return labels, scores, slices[order], names, users[order], *(column[order] for column in columns.values())


def encode_slices(slices: ArrayLike) -> tuple[np.ndarray, list[str]]:
    """Slice values as integers, -1 for null, and their names, which are text in sorted order."""
    codes, values = pd.factorize(pd.Series(slices))
    names = [str(value) for value in values]
    if OVERALL in names:
        raise ValueError(
            f"`slices` must not have the value {OVERALL!r}, which names the pooled cell; rename it. "
            f"Received: {sorted(names)}"
        )
    order = np.argsort(names)
    places = np.empty(len(names) + 1, np.int64)
    places[order], places[-1] = np.arange(len(names)), -1
    return places[codes], [names[i] for i in order]


def rows_by_slice(codes: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray | slice]:
    """`{slice: index of its rows}`, in the order of `names`, and last `"overall"`, the index of all rows."""
    order = stable_order(codes + 1)
    # Rows of slice i are order[bounds[i] : bounds[i + 1]]; those with a null slice (code -1) come first.
    bounds = np.cumsum(np.bincount(codes + 1, minlength=len(names) + 1))
    rows = {name: order[bounds[i] : bounds[i + 1]] for i, name in enumerate(names)}
    return {**rows, OVERALL: slice(None)}


def why_not_available(rows: int, users: int, positives: int | None = None) -> str | None:
    """Text that says why a cell is n/a, or `None` if its evidence is enough; `positives=None` for regression."""
    if rows == 0:
        return "no labels"
    if positives == 0:
        return "no positives"
    if positives == rows:
        return "no negatives"
    if positives is not None and positives < MIN_POSITIVES:
        return f"{positives} positives, {MIN_POSITIVES} needed"
    if users < MIN_USERS:
        return f"{users} users, {MIN_USERS} needed"
    return None


def _binary_cell(labels: np.ndarray, scores: np.ndarray, users: int) -> dict[str, Any]:
    positive = labels == 1
    rows, positives = len(labels), int(positive.sum())
    reason = why_not_available(rows, users, positives)
    pr_auc = roc_auc = log_loss = entropy = calibration_error = None
    if reason is None:
        (pr_auc,), (roc_auc,) = (area.tolist() for area in areas(positive, scores, np.zeros(rows, np.int8), 1))
        probabilities = np.clip(scores, CLIP, 1 - CLIP)
        log_loss = float(-np.log(np.where(positive, probabilities, 1 - probabilities)).mean())
        entropy = normalized_entropy(log_loss, positives / rows)
        calibration_error = expected_calibration_error(labels, scores)
    return {
        "pr_auc": pr_auc,
        "roc_auc": roc_auc,
        "log_loss": log_loss,
        "normalized_entropy": entropy,
        "calibration_error": calibration_error,
        "prevalence": positives / rows if rows else None,
        "rows": rows,
        "positives": positives,
        "users": users,
        "reason": reason,
    }


def _regression_cell(labels: np.ndarray, scores: np.ndarray, users: int) -> dict[str, Any]:
    reason = why_not_available(len(labels), users)
    errors = scores - labels
    return {
        "mse": float(np.square(errors).mean()) if reason is None else None,
        "mae": float(np.abs(errors).mean()) if reason is None else None,
        "rows": len(labels),
        "users": users,
        "reason": reason,
    }


def check_columns(**columns: np.ndarray) -> None:
    """Raises a `ValueError` unless all columns have the same shape `(rows,)` and `users` (codes) has no null."""
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) != 1:
        names = ", ".join(f"`{name}`" for name in columns)
        raise ValueError(f"{names} must each have one value a row, shape (rows,). Received: {shapes}")
    nulls = int((columns["users"] < 0).sum()) if "users" in columns else 0
    if nulls:
        raise ValueError(
            f"`users` must name the user of every row; drop the rows without one. Received: {nulls} null values"
        )


def check_labels(labels: np.ndarray, kind: str) -> None:
    """Raises a `ValueError` unless observed labels are 0 or 1 (binary tasks) or finite (regression tasks)."""
    if kind == "binary":
        _check_all("labels", labels, np.isin(labels, (0, 1)), "0, 1 or NaN for a binary task")
    else:
        _check_all("labels", labels, np.isfinite(labels), "finite numbers or NaN for a regression task")


def check_scores(name: str, scores: np.ndarray, kind: str) -> None:
    """Raises a `ValueError` unless scores are probabilities (binary tasks) or finite (regression tasks)."""
    if kind == "binary":
        _check_all(name, scores, (scores >= 0) & (scores <= 1), "probabilities in [0, 1] for a binary task")
    else:
        _check_all(name, scores, np.isfinite(scores), "finite numbers for a regression task")


def _check_all(name: str, values: np.ndarray, good: np.ndarray, expected: str) -> None:
    if not good.all():
        raise ValueError(f"`{name}` must be {expected}. Received: {values[~good][0]} ({(~good).sum()} such rows)")

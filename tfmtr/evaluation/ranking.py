"""Ranking metrics of each user's titles: AUC per user over scored pairs, and recall, NDCG, MRR and hit rate of lists.

Cells are those of `tfmtr.evaluation.metrics`: by slice and pooled, n/a under 30 positives or 20 users.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tfmtr import components
from tfmtr.evaluation.areas import areas
from tfmtr.evaluation.list_metrics.ndcg import ndcg
from tfmtr.evaluation.list_metrics.recall import recall
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.metrics import OVERALL, Cells, Windows, observed_rows, rows_by_slice, why_not_available

FOLDER = "evaluation.list_metrics"
Metric = Callable[[Lists], np.ndarray]

Metrics = Mapping[str, Metric] | Sequence[str | Metric]  # by import path, themselves, or what `functions` returned


def gauc(labels: ArrayLike, scores: ArrayLike, slices: ArrayLike, users: ArrayLike) -> Cells:
    """GAUC: the ROC AUC of each user's own rows, averaged over users with their numbers of rows as weights.

        GAUC = sum_u rows_u AUC_u / sum_u rows_u

    It ignores that some users like more than others, which a model cannot gain anything from in a user's list. Users
    with one class only have no AUC and are left out of the sums and of the cell's counts; `left_out` counts them.

    Reference: Zhou et al., Deep Interest Network for Click-Through Rate Prediction, KDD 2018,
    https://arxiv.org/abs/1706.06978 (user weighted AUC; rows are impressions).

    Args:
        labels: Array of shape `(rows,)`: 0, 1 or NaN; rows with NaN are left out.
        scores: Array of shape `(rows,)`: probabilities.
        slices: Array of shape `(rows,)` with the slice value; rows with a null count for the pooled cell only.
        users: Array of shape `(rows,)` with the user of each row, of any type.

    Returns:
        `{slice: cell}` as `evaluate_task` returns it, with `gauc` in [0, 1], `rows`, `positives`, `users`,
        `left_out` and `reason`.

    Raises:
        ValueError: As `evaluate_task`.

    Example:
    >>> labels, users = np.tile([1, 0, 0], 30), np.repeat(np.arange(30), 3)
    >>> gauc(labels, np.tile([0.5, 0.2, 0.7], 30), np.full(90, "DE"), users)["DE"]
    {'gauc': 0.5, 'rows': 90, 'positives': 30, 'users': 30, 'left_out': 0, 'reason': None}
    """
    labels, scores, slices, names, users = observed_rows(labels, scores, slices, users, "binary")

    def cell(index: np.ndarray | slice) -> dict[str, Any]:
        group, distinct = pd.factorize(users[index])
        positive = labels[index] == 1
        _, auc = areas(positive, scores[index], group, len(distinct))
        rows, positives = np.bincount(group), np.bincount(group, positive)
        has_auc = ~np.isnan(auc)
        auc, rows, positives = auc[has_auc], rows[has_auc], int(positives[has_auc].sum())
        reason = (
            why_not_available(int(rows.sum()), len(auc), positives) if has_auc.any() else "no user with both classes"
        )
        return {
            "gauc": float(np.average(auc, weights=rows)) if reason is None else None,
            "rows": int(rows.sum()),
            "positives": positives,
            "users": len(auc),
            "left_out": len(distinct) - len(auc),
            "reason": reason,
        }

    return {name: cell(index) for name, index in rows_by_slice(slices, names).items()}


def evaluate_lists(lists: Lists, metrics: Metrics = ()) -> Cells:
    """All metrics of `tfmtr/evaluation/list_metrics/`, as means over the users with a held-out positive.

    They are those at the lists' own length.

    Args:
        lists: `Lists`.
        metrics: Further ones: import paths or functions; or all, as `functions` returns them.

    Returns:
        `{slice: cell}` as `evaluate_task` returns it, with each metric by its name, `positives`, `users` (those with a
        positive) and `reason`.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> lists = Lists(np.tile([3, 7], (30, 1)), ["DE"] * 30, np.arange(30), np.full(30, 7), num_titles=9)
    >>> cell = evaluate_lists(lists)["DE"]
    >>> cell["recall"], round(cell["ndcg"], 4), cell["mrr"], cell["hit_rate"]
    (1.0, 0.6309, 0.5, 1.0)
    """
    user_values, num_positives = (
        {name: metric(lists) for name, metric in functions(metrics).items()},
        lists.num_positives,
    )
    has_positives = num_positives > 0

    def cell(users: np.ndarray | slice) -> dict[str, Any]:
        positives, num_users = int(num_positives[users].sum()), int(has_positives[users].sum())
        reason = why_not_available(lists.num_pairs, num_users, positives)
        means = {
            name: float(values[users][has_positives[users]].mean()) if reason is None else None
            for name, values in user_values.items()
        }
        return {**means, "positives": positives, "users": num_users, "reason": reason}

    return {name: cell(users) for name, (users, _, _) in lists.by_slice().items()}


def recall_at_k(lists: Lists) -> float | None:
    """Recall of `evaluate_lists` over all users together, however few: a float, or `None` without a positive.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> recall_at_k(Lists([[3, 7], [5, -1]], ["DE", "PL"], [0, 0, 1], [8, 7, 5], num_titles=9))
    0.75
    """
    values = recall(lists)[lists.num_positives > 0]
    return float(values.mean()) if values.size else None


def mean_over_lists(windows: Windows, metric: str) -> float | None:
    """A metric's mean over the lists of all windows together, however many a window has.

    Args:
        windows: `{window: {slice: cell}}` of `evaluate_lists`.
        metric: Its name.

    Returns:
        A float, or `None` where no window has a figure.

    Example:
    >>> cells = [{"overall": {"ndcg": 0.5, "users": 30}}, {"overall": {"ndcg": 0.2, "users": 60}}]
    >>> round(mean_over_lists({"1": cells[0], "2": cells[1], "3": {"overall": {"ndcg": None, "users": 3}}}, "ndcg"), 6)
    0.3
    """
    cells = [cells[OVERALL] for cells in windows.values() if cells.get(OVERALL, {}).get(metric) is not None]
    lists = sum(cell["users"] for cell in cells)
    return sum(cell[metric] * cell["users"] for cell in cells) / lists if lists else None


def metrics_of_users(lists: Lists, metrics: Metrics = ()) -> dict[str, np.ndarray]:
    """Each user's own metrics, in the order of the lists.

    Args:
        lists: `Lists`.
        metrics: As for `evaluate_lists`.

    Returns:
        `{metric: float array of shape (users,)}` of `evaluate_lists`, NaN for users without a held-out positive, and
        `"positives"`, their numbers.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> found = metrics_of_users(Lists([[3, 7], [5, -1]], ["DE", "PL"], [0, 1], [3, 8], num_titles=9))
    >>> found["ndcg"], found["positives"]
    (array([1., 0.]), array([1, 1]))
    """
    has_positives = lists.num_positives > 0
    user_values = {name: np.where(has_positives, metric(lists), np.nan) for name, metric in functions(metrics).items()}
    return {**user_values, "positives": lists.num_positives}


def ndcg_of_users(lists: Lists) -> np.ndarray:
    """NDCG of each user with a held-out positive, in the order of the lists: float array of shape `(users,)`.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> ndcg_of_users(Lists([[3, 7], [5, -1]], ["DE", "PL"], [0, 1], [3, 8], num_titles=9))
    array([1., 0.])
    """
    return ndcg(lists)[lists.num_positives > 0]


def functions(metrics: Metrics = ()) -> Mapping[str, Metric]:
    """`{name: function}` of all list metrics, looked up once by who has many lists.

    Args:
        metrics: Those beside the ones that are found by name: import paths or functions. Or what this function
            returned, which is returned as it is.

    Raises:
        ValueError: If one cannot be found, or two have one name.

    Example:
    >>> metrics = functions()
    >>> functions(metrics) is metrics
    True
    """
    if isinstance(metrics, Mapping):
        return metrics
    if isinstance(metrics, str | bytes | os.PathLike) or not isinstance(metrics, Iterable):
        raise ValueError(f"`metrics` must be a list of import paths. Received: metrics={metrics!r}")
    by_name = {name: components.find(FOLDER, name) for name in components.names(FOLDER)}
    for metric in metrics:
        function = components.find(FOLDER, metric)
        if by_name.setdefault(function.__name__, function) is not function:
            raise ValueError(f"`metrics` must have names of their own. Received: {function.__name__!r} twice")
    return by_name

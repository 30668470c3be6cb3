"""A user's past as a vector over titles: the newest different titles, each the less the older it is."""

import numpy as np
from scipy import sparse

from tfmtr.evaluation.past import Past

MOST = 100  # titles of a past, offline and served


def fold(ages: np.ndarray, half_life: float | None) -> np.ndarray:
    """Weights of the titles of one past, or of several in rows.

        w_e = d_e / sqrt(max(1, sum_f d_f))    with    d_e = 0.5^(age_e / half_life)

    so that long pasts say more than short ones, and less than in proportion.

    Args:
        ages: Days before the moment, floats of shape `(..., titles)`; NaN where there is no title.
        half_life: Days after which a title counts half; `None` for no decay.

    Returns:
        float32 of the same shape; 0 where there is no title.

    Example:
    >>> [round(float(weight), 3) for weight in fold(np.array([0.0, 7.0, np.nan]), 7.0)]
    [0.816, 0.408, 0.0]
    """
    there = ~np.isnan(ages)
    decayed = there.astype(float) if half_life is None else np.where(there, 0.5 ** (ages / half_life), 0.0)
    total = np.maximum(decayed.sum(axis=-1, keepdims=True), 1.0)
    return (decayed / np.sqrt(total)).astype("float32")


def past_titles(past: Past, users: np.ndarray, window: int, half_life: float | None) -> sparse.csr_matrix:
    """Pasts of users before a window, folded.

    Args:
        past: A `Past`.
        users: Numbers of users, integers of shape `(users,)`, each once; -1 for one without a past.
        window: Number of the window.
        half_life: As for `fold`.

    Returns:
        Sparse float32 matrix of shape `(users, titles)` with at most `MOST` titles in a row.
    """
    place = np.full(len(past.users) + 1, -1)  # the last one is of users who are in no table
    place[users] = np.arange(len(users))
    place[-1] = -1
    known = np.flatnonzero(past.is_history & (past.window < window) & (place[past.user] >= 0))
    row, title, age = place[past.user[known]], past.title[known].astype(np.int64), past.ages(known, window)
    order = np.lexsort((age, title, row))
    row, title, age = row[order], title[order], age[order]
    is_newest = np.ones(len(row), bool)  # of the events of one user and title
    is_newest[1:] = (row[1:] != row[:-1]) | (title[1:] != title[:-1])
    row, title, age = row[is_newest], title[is_newest], age[is_newest]
    order = np.lexsort((title, age, row))
    row, title, age = row[order], title[order], age[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < MOST
    row, title, rank, age = row[kept], title[kept], rank[kept], age[kept]
    ages = np.full((len(users), MOST), np.nan)
    ages[row, rank] = age
    weights = fold(ages, half_life)[row, rank]
    return sparse.csr_matrix((weights, (row, title)), (len(users), past.num_titles))

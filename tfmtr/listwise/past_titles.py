"""A user's past as a vector over titles: the newest different titles, each the less the older it is."""

import numpy as np
from scipy import sparse

from tfmtr.evaluation.past import Past

MOST = 100  # titles of a past, offline and served


def fold(rows: np.ndarray, ages: np.ndarray, half_life: float | None, num_rows: int) -> np.ndarray:
    """Weights of the titles of pasts.

        w_e = d_e / sqrt(max(1, sum_f d_f))    with    d_e = 0.5^(age_e / half_life)

    so that long pasts say more than short ones, and less than in proportion.

    Args:
        rows: Number of each title's past, integers of shape `(titles,)`.
        ages: Days before the moment, floats of the same shape.
        half_life: Days after which a title counts half; `None` for no decay.
        num_rows: Number of pasts.

    Returns:
        float32 of shape `(titles,)`.

    Example:
    >>> [round(float(weight), 3) for weight in fold(np.array([0, 0, 1]), np.array([0.0, 7.0, 7.0]), 7.0, 2)]
    [0.816, 0.408, 0.5]
    """
    decayed = np.ones(len(ages)) if half_life is None else 0.5 ** (ages / half_life)
    total = np.maximum(np.bincount(rows, decayed, minlength=num_rows), 1.0)
    return (decayed / np.sqrt(total[rows])).astype("float32")


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
    user, title = past.user[known], past.title[known]
    is_newest = np.ones(len(known), bool)  # of the events of one user and title, which stand together, oldest first
    is_newest[:-1] = (user[1:] != user[:-1]) | (title[1:] != title[:-1])
    known = known[is_newest]
    row, title, age = place[past.user[known]], past.title[known], past.ages(known, window)
    long = np.flatnonzero(np.bincount(row, minlength=len(users))[row] > MOST)
    order = long[np.lexsort((title[long], age[long], row[long]))]
    rank = np.arange(len(order)) - np.searchsorted(row[order], row[order])
    kept = np.ones(len(row), bool)
    kept[order[rank >= MOST]] = False
    row, title, age = row[kept], title[kept], age[kept]
    weights = fold(row, age, half_life, len(users))
    return sparse.csr_matrix((weights, (row, title)), (len(users), past.num_titles))

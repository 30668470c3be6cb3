"""EASE: a linear autoencoder of titles with a closed form."""

import numpy as np
from scipy.linalg import lapack

from tfmtr.evaluation.baselines.history import History, Score

LIMIT = 3_000_000_000  # bytes, for 13,693 titles with events
MANY_TITLES = 2_000  # above, an inverse takes seconds
BLOCK = 512


def ease(history: History, *, l2: float = 500.0, gram: np.ndarray | None = None) -> Score:
    """Scores titles by a linear model of each title on all others.

    With `X` the matrix of users and titles, `P = (X'X + l2 I)^-1` and `B_ij = -P_ij / P_jj` off the diagonal, 0 on it;
    scores are `X B`. Titles without fitted events have score 0. Needs memory and time for a dense matrix of the others;
    `why_too_large` says whether there is.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, https://arxiv.org/abs/1905.03375, equations 4
    to 8.

    Args:
        history: A `History`.
        l2: Strength of the ridge, positive.
        gram: What `gram_of` returned for the same history, if there is more than one call; it is not changed.

    Returns:
        Function of user numbers of shape `(users,)` that returns scores, float64 of shape `(users, titles)`.

    Raises:
        ValueError: If `l2` is not positive, or so small that there is no inverse.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> history = History([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], [1.0] * 5, [0, 0, 0], num_titles=2)
    >>> ease(history, l2=1.0)([2]).round(3).tolist()
    [[0.0, 0.5]]
    """
    if not l2 > 0:
        raise ValueError(f"`l2` must be positive, such as 500. Received: l2={l2}")
    titles = fitted_titles(history)
    # Half the time, for an error far below what titles' scores differ by: l2 keeps the matrix from being singular.
    dtype = np.float64 if len(titles) <= MANY_TITLES else np.float32
    weights = np.array(gram_of(history) if gram is None else gram, dtype)
    if len(titles):
        weights[np.diag_indices_from(weights)] += dtype(l2)
        if not invert(weights):
            raise ValueError(f"`l2` must be larger, as there is no inverse in {dtype.__name__}. Received: l2={l2}")
        weights /= -np.diag(weights).copy()
        np.fill_diagonal(weights, 0.0)
    known = history.matrix[:, titles]

    def score(users: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(users), history.num_titles))
        scores[:, titles] = known[np.asarray(users, int)] @ weights
        return scores

    return score


def why_too_large(history: History, limit: int = LIMIT) -> str | None:
    """Says why EASE is left out where its matrices do not fit into memory.

    Args:
        history: A `History`.
        limit: Bytes that there are for two matrices of titles with fitted events.

    Returns:
        Text, or None where they fit.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> why_too_large(History([0, 0], [0, 1], [1.0, 1.0], [0], num_titles=9), limit=50)
    'ease is left out: 2 titles with events need 64 bytes, and there are 50'
    """
    size = len(fitted_titles(history))
    needed = 2 * 8 * size**2
    if needed <= limit:
        return None
    return f"ease is left out: {size:,} titles with events need {needed:,} bytes, and there are {limit:,}"


def gram_of(history: History) -> np.ndarray:
    """How many users had both of two titles that have fitted events: float64 of shape `(such titles, such titles)`."""
    matrix = history.fitted_matrix[:, fitted_titles(history)]
    return (matrix.T @ matrix).toarray(order="C")


def fitted_titles(history: History) -> np.ndarray:
    """Numbers of the titles that have fitted events, in their order."""
    return np.unique(history.titles[history.fitted])


def invert(matrix: np.ndarray) -> bool:
    """Inverts a symmetric positive definite matrix of float32 or float64 in C order in place; returns whether it could.

    By Cholesky's factors, LAPACK's `potrf` and `potri`, in half the operations of `numpy.linalg.inv`.
    """
    view = matrix.T  # as Fortran has it, so that nothing is copied; the lower triangle of one is the other's upper one
    factor, finish = lapack.get_lapack_funcs(("potrf", "potri"), (view,))
    _, info = factor(view, lower=1, clean=0, overwrite_a=1)
    if info == 0:
        _, info = finish(view, lower=1, overwrite_c=1)
    for begin in range(0, len(matrix), BLOCK):
        rows = slice(begin, begin + BLOCK)
        corner = np.triu(matrix[rows, rows])
        matrix[rows, rows] = corner + np.triu(corner, 1).T
        matrix[begin + BLOCK :, rows] = matrix[rows, begin + BLOCK :].T
    return info == 0

"""Implicit-feedback matrix factorisation by alternating least squares."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from tfmtr.evaluation.baselines.ease import fitted_titles
from tfmtr.evaluation.baselines.history import History, Score

MANY = 1_000_000  # events; with fewer, threads wait for each other longer than they work


def als(
    history: History, *, factors: int = 64, alpha: float = 10.0, l2: float = 1.0, iterations: int = 15, seed: int = 0
) -> Score:
    """Scores titles by the product of a user's and a title's factors.

    Factors `x_u` and `y_i` minimise, by turns, the squared errors of all pairs, of which those that a user had are
    wanted to be 1 and count `1 + alpha`, the others 0 and count 1:

        sum_ui c_ui (p_ui - x_u' y_i)^2 + l2 (sum_u |x_u|^2 + sum_i |y_i|^2)

    Titles' factors are fitted on the fitted events by `implicit`, by conjugate gradients. A user's are then solved for
    exactly from the user's own events, whether they were fitted on or not:

        x_u = (Y'Y + alpha Y_u'Y_u + l2 I)^-1 (1 + alpha) Y_u' 1    with `Y_u` the rows of the user's titles

    Titles without fitted events have score 0.

    Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008,
    https://doi.org/10.1109/ICDM.2008.22, equations 3 to 5, with `r` 1 for what a user had, however often.

    Args:
        history: A `History`.
        factors: Width.
        alpha: How much more an event counts than none, positive.
        l2: Strength of the regularisation, positive.
        iterations: Number of turns.
        seed: Of the first factors.

    Returns:
        Function of user numbers of shape `(users,)` that returns scores, float64 of shape `(users, titles)`.

    Raises:
        ImportError: If `implicit` is not installed.
        ValueError: If an argument is out of its range.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> history = History([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], [1.0] * 5, [0, 0, 0], num_titles=3)
    >>> als(history, factors=2)([2]).round(1).tolist()
    [[0.9, 0.4, 0.0]]
    """
    for name, value, least in (("factors", factors, 1), ("iterations", iterations, 1)):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}")
    for name, value in (("alpha", alpha), ("l2", l2)):
        if not value > 0:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
    titles = fitted_titles(history)
    of_titles = title_factors(history.fitted_matrix[:, titles], factors, alpha, l2, iterations, seed)
    confidence = history.matrix[:, titles] * (1.0 + alpha)

    def score(users: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(users), history.num_titles))
        with one_solver(factors, regularization=l2, num_threads=1, dtype=np.float64) as solver:
            solver.item_factors = of_titles
            user_factors = solver.recalculate_user(users, confidence[np.asarray(users, int)])  # by Cholesky's factors
            scores[:, titles] = user_factors @ of_titles.T
        return scores

    return score


def title_factors(
    matrix: sparse.csr_matrix, factors: int, alpha: float, l2: float, iterations: int, seed: int
) -> np.ndarray:
    """Titles' factors, float64 of shape `(titles, factors)`, of a sparse matrix of users and titles."""
    matrix = matrix[np.diff(matrix.indptr) > 0]  # users without an event have factors of 0
    threads = 0 if matrix.nnz >= MANY else 1  # 0: one for each core
    options = {"regularization": l2, "iterations": iterations, "num_threads": threads, "random_state": seed}
    with one_solver(factors, **options) as solver:
        if not matrix.nnz:
            return np.zeros((matrix.shape[1], factors))
        solver.fit(matrix * (1.0 + alpha), show_progress=False)  # it takes an event's whole weight
    return solver.item_factors.astype(float)


@contextlib.contextmanager
def one_solver(*arguments: Any, **options: Any) -> Iterator[Any]:
    """Holds BLAS to one thread, as `implicit` has its own, and gives its class's object.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError("als needs pip install 'tfmtr[baselines]'") from error
    with threadpool_limits(1, "blas"):
        yield AlternatingLeastSquares(*arguments, **options)

"""Titles that those had who had the same: nearest neighbours of titles."""

from typing import Any

import numpy as np
from scipy import sparse

from tfmtr.checks import check_choice
from tfmtr.evaluation.baselines.history import History, Score

BLOCK = 1000  # titles whose neighbours are chosen at once


def neighbours(history: History, **options: Any) -> Score:
    """Scores titles by their similarity to those that a user had.

    After Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, WWW 2001,
    https://doi.org/10.1145/371920.372071.

    Args:
        history: A `History`.
        **options: Of `similarities`.

    Returns:
        Function of user numbers of shape `(users,)` that returns scores, float64 of shape `(users, titles)`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> history = History([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], [1.0] * 5, [0, 0, 0], num_titles=3)
    >>> neighbours(history, weighting="cosine")([2]).round(3).tolist()
    [[0.0, 0.816, 0.0]]
    """
    known, to_others = history.matrix, similarities(history, **options).T.tocsr()

    def score(users: np.ndarray) -> np.ndarray:
        return (known[np.asarray(users, int)] @ to_others).toarray()

    return score


def similarities(
    history: History,
    *,
    weighting: str = "bm25",
    number: int = 100,
    shrink: float = 0.0,
    k1: float = 1.2,
    b: float = 0.75,
    products: sparse.csr_matrix | None = None,
) -> sparse.csr_matrix:
    """How similar titles are by who had them, of each title to its most similar ones.

    With users' columns `x_i` of the titles, weighted, the similarity is `<x_i, x_j> / (|x_i| |x_j| + shrink)` for
    `cosine` and `<x_i, x_j>` for `bm25`, and 0 of a title with itself. BM25 weighs an event by
    `log(num_titles / (1 + titles of the user))` and `(k1 + 1) / (k1 (1 - b + b l) + 1)`, where `l` is the title's
    events over their mean: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009,
    https://doi.org/10.1561/1500000019, with users for words and titles for documents.

    Args:
        history: A `History`.
        weighting: `"cosine"` or `"bm25"`.
        number: Neighbours that a title keeps.
        shrink: Added to the product of lengths of `cosine`; it holds back similarities of few events.
        k1: How much more events count that come after the title's first, positive.
        b: How much the events of a much-used title count less, in [0, 1].
        products: What `products_of` returned for the same history and weighting, if there is more than one call.

    Returns:
        Sparse float64 of shape `(titles, titles)`: in row `i` those of title `i`'s neighbours.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> history = History([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], [1.0] * 5, [0, 0, 0], num_titles=3)
    >>> similarities(history, weighting="cosine", shrink=1.0).toarray().round(3).tolist()
    [[0.0, 0.58, 0.0], [0.58, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    check_choice("weighting", weighting, ("cosine", "bm25"))
    if number < 1 or shrink < 0 or not k1 > 0 or not 0 <= b <= 1:
        raise ValueError(
            "`number` must be at least 1, `shrink` not negative, `k1` positive and `b` in [0, 1]. "
            f"Received: number={number}, shrink={shrink}, k1={k1}, b={b}"
        )
    products = products_of(history, weighting) if products is None else products
    events = np.asarray(history.fitted_matrix.sum(axis=0)).ravel()
    lengths, of_title = np.sqrt(events), title_weights(events, k1, b)
    kept = []
    for begin in range(0, max(1, history.num_titles), BLOCK):  # so that memory is that of the products
        block = products[begin : begin + BLOCK].tocoo()
        row, column, values = block.row + begin, block.col, block.data
        if weighting == "bm25":
            values = values * of_title[row] * of_title[column]
        else:
            values = values / (lengths[row] * lengths[column] + shrink)
        other = row != column
        shape = block.shape
        kept.append(keep_largest(sparse.csr_matrix((values[other], (block.row[other], column[other])), shape), number))
    return sparse.vstack(kept, format="csr")  # pyright: ignore[reportReturnType]


def products_of(history: History, weighting: str) -> sparse.csr_matrix:
    """What similarities of a weighting are made of, whatever the other options.

    Args:
        history: A `History`.
        weighting: `"cosine"` or `"bm25"`.

    Returns:
        Sparse float64 of shape `(titles, titles)`: over the fitted events, how many users had both titles; for `bm25`
        each user counts with the square of the user's weight.
    """
    matrix = history.fitted_matrix
    weighted = sparse.diags(user_weights(matrix)) @ matrix if weighting == "bm25" else matrix
    return (weighted.T @ weighted).tocsr()  # pyright: ignore[reportAttributeAccessIssue]


def user_weights(matrix: sparse.csr_matrix) -> np.ndarray:
    """BM25's weights of users, float64 of shape `(users,)`: of a user with fewer titles each says more."""
    return np.log(matrix.shape[1] / (1.0 + np.asarray(matrix.sum(axis=1)).ravel()))


def title_weights(events: np.ndarray, k1: float, b: float) -> np.ndarray:
    """BM25's weights of titles, float64 of shape `(titles,)`, from their events."""
    relative = events / max(events.mean(), 1e-12)
    return (k1 + 1.0) / (k1 * (1.0 - b + b * relative) + 1.0)


def keep_largest(matrix: sparse.csr_matrix, number: int) -> sparse.csr_matrix:
    """A sparse matrix with the `number` largest values of each row."""
    kept, begins = np.ones(matrix.nnz, bool), matrix.indptr
    for row in np.flatnonzero(np.diff(begins) > number):
        values = matrix.data[begins[row] : begins[row + 1]]
        kept[begins[row] + np.argpartition(values, len(values) - number)[:-number]] = False
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(begins))
    return sparse.csr_matrix((matrix.data[kept], (rows[kept], matrix.indices[kept])), matrix.shape)

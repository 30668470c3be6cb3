"""Titles that those had who had the same: nearest neighbours of titles."""

import numpy as np
from scipy import sparse

from tfmtr.schema import check_choice

K1, B = 1.2, 0.75


def neighbours(history, *, weighting="bm25", number=100, shrink=0.0):
    """Scores titles by their similarity to those that a user had.

    With users' columns `x_i` of the titles, weighted, the similarity is `<x_i, x_j> / (|x_i| |x_j| + shrink)` for
    `cosine` and `<x_i, x_j>` for `bm25`, and 0 of a title with itself. Each title keeps its `number` most similar ones.
    BM25 weighs an event by `log(num_titles / (1 + titles of the user))` and `(K1 + 1) / (K1 (1 - B + B l) + 1)`, where
    `l` is the title's events over their mean.

    After Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, WWW 2001, and Robertson and
    Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009, with users for words and titles for
    documents.

    Args:
        history: A `History`.
        weighting: `"cosine"` or `"bm25"`.
        number: Neighbours that a title keeps.
        shrink: Added to the product of lengths; it holds back similarities of few events.

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
    check_choice("weighting", weighting, ("cosine", "bm25"))
    if number < 1 or shrink < 0:
        raise ValueError(
            f"`number` must be at least 1 and `shrink` not negative. Received: number={number}, shrink={shrink}"
        )
    matrix = history.fitted_matrix
    weighted = bm25(matrix) if weighting == "bm25" else matrix
    products = (weighted.T @ weighted).tocsr()
    products.setdiag(0)
    products.eliminate_zeros()
    if weighting == "cosine":
        lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=0)).ravel())
        rows = np.repeat(np.arange(products.shape[0]), np.diff(products.indptr))
        products.data /= lengths[rows] * lengths[products.indices] + shrink
    similar = keep_largest(products, number)
    known = history.matrix

    def score(users):
        return (known[np.asarray(users)] @ similar.T).toarray()

    return score


def bm25(matrix):
    """The events' weights of BM25, users for words and titles for documents: sparse, of the shape of `matrix`."""
    num_titles = matrix.shape[1]
    of_user = np.log(num_titles / (1.0 + np.asarray(matrix.sum(axis=1)).ravel()))
    lengths = np.asarray(matrix.sum(axis=0)).ravel()
    relative = lengths / max(lengths.mean(), 1e-12)
    of_title = (K1 + 1.0) / (K1 * (1.0 - B + B * relative) + 1.0)
    return sparse.csr_matrix(sparse.diags(of_user) @ matrix @ sparse.diags(of_title))


def keep_largest(matrix, number):
    """A sparse matrix with the `number` largest values of each row."""
    matrix = sparse.csr_matrix(matrix)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(order)) - matrix.indptr[rows[order]]
    kept = order[place < number]
    return sparse.csr_matrix((matrix.data[kept], (rows[kept], matrix.indices[kept])), matrix.shape)

"""What titles' vectors, of texts by default, say of what is taken next: also of titles that nobody took yet."""

import numpy as np
from scipy import sparse

from tfmtr.listwise.collaborative import by_root

RIDGE = 10.0


def unit(vectors: np.ndarray) -> np.ndarray:
    """Titles' vectors, less their mean, of length 1; 0 for a title without one.

    Args:
        vectors: Floats of shape `(titles, width)`.

    Returns:
        float32 of the same shape.

    Example:
    >>> unit(np.array([[0.0, 0.0], [1.0, 3.0], [1.0, 1.0]])).tolist()
    [[0.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    """
    vectors = np.asarray(vectors, "float32")
    there = np.any(vectors != 0, axis=1)
    found = np.where(there[:, None], vectors - vectors[there].mean(axis=0) if there.any() else vectors, np.float32(0))
    return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)).astype("float32")


def next_vectors(
    pasts: sparse.csr_matrix, wanted: sparse.csr_matrix, weights: np.ndarray, vectors: np.ndarray, l2: float = RIDGE
) -> np.ndarray:
    """Which vectors follow which: a ridge regression of what was taken beyond what is popular, between vectors.

        M = (sum_r a_r x_r x_r' + l2 I)^-1 (sum_r a_r x_r (y_r - |y_r| p)' V) (V'V + l2 I)^-1,    x_r = V' h_r

    over rows r of users and windows, with the folded past `h_r`, the weight `a_r`, the new titles `y_r`, 1 over the
    root of their number each, titles' shares `p` of all that was taken, and titles' vectors `V`: `h_r' V M V'` are
    scores.

    Args:
        pasts: Sparse of shape `(rows, titles)`.
        wanted: Sparse of the same shape, 1 where a title was taken that the user did not have.
        weights: Weights of the rows, shape `(rows,)`.
        vectors: What `unit` returns, of shape `(titles, width)`.
        l2: Strength of both ridges, positive.

    Returns:
        float32 of shape `(width, width)`.
    """
    ridge = l2 * np.eye(vectors.shape[1])
    target = by_root(wanted)
    shares = np.asarray(target.sum(axis=0)).ravel()
    shares = shares / max(shares.sum(), 1e-12)
    known = (pasts @ vectors).astype(np.float64)
    beyond = target @ vectors - np.asarray(target.sum(axis=1)) * (shares @ vectors)
    weighted = known * weights[:, None]
    inner = np.linalg.solve(weighted.T @ known + ridge, weighted.T @ beyond)
    outer = (vectors.T @ vectors).astype(np.float64) + ridge
    return np.linalg.solve(outer, inner.T).T.astype("float32")

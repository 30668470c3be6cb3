"""What goes with what: linear models from a past to the titles that come next, in closed form."""

import numpy as np
from scipy import linalg, sparse

from tfmtr.evaluation.baselines.ease import invert
from tfmtr.evaluation.baselines.history import History

MOST_TITLES = 4_000  # that have weights: those which most users had
RIDGE_OF_EASE = 200.0
RIDGE_OF_NEXT = 10.0


def frequent_titles(history: History, most: int = MOST_TITLES) -> np.ndarray:
    """Titles which most users had among the fitted events, sorted: integers of shape `(at most most,)`."""
    users = np.asarray(history.fitted_matrix.sum(axis=0)).ravel()
    order = np.argsort(-users, kind="stable")[:most]
    return np.sort(order[users[order] > 0])


def together(history: History, titles: np.ndarray, l2: float = RIDGE_OF_EASE) -> np.ndarray:
    """What users have together: EASE's weights of some titles on each other.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, https://arxiv.org/abs/1905.03375; see
    `tfmtr.evaluation.baselines.ease`.

    Args:
        history: A `History`.
        titles: Numbers of the titles.
        l2: Strength of the ridge, positive.

    Returns:
        float32 of shape `(titles, titles)`: a past's row times it are scores.

    Raises:
        ValueError: If there is no inverse.
    """
    matrix = history.fitted_matrix[:, titles]
    weights = (matrix.T @ matrix).toarray(order="C").astype("float32")
    weights[np.diag_indices_from(weights)] += np.float32(l2)
    if len(titles):
        if not invert(weights):
            raise ValueError(f"`l2` must be larger, as there is no inverse in float32. Received: l2={l2}")
        weights /= -np.diag(weights).copy()
        np.fill_diagonal(weights, 0.0)
    return weights


def next_titles(
    pasts: sparse.csr_matrix,
    wanted: sparse.csr_matrix,
    weights: np.ndarray,
    titles: np.ndarray,
    l2: float = RIDGE_OF_NEXT,
) -> np.ndarray:
    """What users take next: the ridge regression of what they took in a window on their past before it.

        W = (sum_r a_r h_r h_r' + l2 I)^-1 sum_r a_r h_r y_r'

    over rows r of users and windows, with the folded past `h_r`, the weight `a_r` and the new titles `y_r`, 1 over
    the root of their number each. Unlike `together` it knows the direction, and what is new now.

    Args:
        pasts: Sparse of shape `(rows, all titles)`.
        wanted: Sparse of the same shape, 1 where a title was taken that the user did not have.
        weights: Weights of the rows, shape `(rows,)`.
        titles: Numbers of the titles.
        l2: Strength of the ridge, positive.

    Returns:
        float32 of shape `(titles, titles)`: a folded past's row times it are scores.
    """
    root = sparse.diags(np.sqrt(weights))
    known, target = root @ pasts[:, titles], root @ by_root(wanted)[:, titles]
    gram = (known.T @ known).toarray().astype("float32")
    gram[np.diag_indices_from(gram)] += np.float32(l2)
    right = (known.T @ target).toarray().astype("float32")
    if not len(titles):
        return right
    factor = linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    return linalg.cho_solve(factor, right, overwrite_b=True, check_finite=False)


def by_root(wanted: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each row over the root of its sum: who took many titles counts more than who took one, less than in proportion.

    >>> by_root(sparse.csr_matrix([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]])).toarray().tolist()
    [[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 0.0]]
    """
    roots = np.sqrt(np.maximum(np.asarray(wanted.sum(axis=1)).ravel(), 1.0))
    return sparse.csr_matrix(sparse.diags(1.0 / roots) @ wanted)


def factorise(weights: np.ndarray, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The best product of two matrices of a width, by a truncated singular value decomposition.

    Args:
        weights: Matrix of shape `(rows, columns)`.
        width: Of the factors; what a smaller matrix lacks is 0.
        seed: Of the randomised decomposition.

    Returns:
        `(inputs, outputs)`, float32 of the shapes `(rows, width)` and `(columns, width)`: `weights` is about
        `inputs @ outputs.T`.

    Example:
    >>> inputs, outputs = factorise(np.array([[0.0, 2.0], [1.0, 0.0]], "float32"), 2)
    >>> bool(np.allclose(inputs @ outputs.T, [[0.0, 2.0], [1.0, 0.0]], atol=1e-6))
    True
    """
    from sklearn.utils.extmath import randomized_svd

    inputs, outputs = (np.zeros((size, width), "float32") for size in weights.shape)
    rank = min(width, *weights.shape)
    if rank:
        left, sizes, right = randomized_svd(weights, rank, n_iter=4, random_state=seed)  # pyright: ignore[reportArgumentType]
        inputs[:, :rank], outputs[:, :rank] = left * np.sqrt(sizes), right.T * np.sqrt(sizes)
    return inputs, outputs

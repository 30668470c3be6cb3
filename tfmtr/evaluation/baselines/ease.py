"""EASE: a linear autoencoder of titles with a closed form."""

import numpy as np


def ease(history, *, l2=500.0):
    """Scores titles by a linear model of each title on all others.

    With `X` the matrix of users and titles, `P = (X'X + l2 I)^-1` and `B_ij = -P_ij / P_jj` off the diagonal, 0 on it;
    scores are `X B`.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, https://arxiv.org/abs/1905.03375, equations 4
    to 8. Needs memory and time for a dense matrix of titles by titles.

    Args:
        history: A `History`.
        l2: Strength of the ridge, positive.

    Returns:
        Function of user numbers of shape `(users,)` that returns scores, float64 of shape `(users, titles)`.

    Raises:
        ValueError: If `l2` is not positive.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> history = History([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], [1.0] * 5, [0, 0, 0], num_titles=2)
    >>> ease(history, l2=1.0)([2]).round(3).tolist()
    [[0.0, 0.5]]
    """
    if not l2 > 0:
        raise ValueError(f"`l2` must be positive, such as 500. Received: l2={l2}")
    gram = (history.fitted_matrix.T @ history.fitted_matrix).toarray()
    gram[np.diag_indices_from(gram)] += l2
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    known = history.matrix

    def score(users):
        return known[np.asarray(users)] @ weights

    return score

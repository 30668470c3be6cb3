"""Normalised discounted cumulated gain, with binary gains."""

import numpy as np

from tfmtr.evaluation.lists import Lists


def ndcg(lists: Lists) -> np.ndarray:
    """NDCG of each user.

        ndcg = sum over the ranks r of hits of 1 / log2(1 + r), over sum_{i=1}^{min(n, k)} 1 / log2(1 + i)

    Reference: Järvelin and Kekäläinen, Cumulated Gain-Based Evaluation of IR Techniques, TOIS 2002,
    https://doi.org/10.1145/582415.582418; here with binary gains and the discount log2(1 + r), which counts from the
    first rank.

    Args:
        lists: `Lists`.

    Returns:
        Float array of shape `(users,)` in [0, 1].

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> ndcg(Lists([[3, 7], [5, -1]], ["DE", "PL"], [0, 1], [3, 8], num_titles=9))
    array([1., 0.])
    """
    num_users, k = lists.ranked_titles.shape
    ideal = np.append(1, np.cumsum(1 / np.log2(1 + np.arange(1, k + 1))))[np.minimum(lists.num_positives, k)]
    return np.bincount(lists.positive_users, 1 / np.log2(1 + lists.positive_ranks), num_users) / ideal

"""Whether a list has any positive."""

import numpy as np

from tfmtr.evaluation.lists import Lists


def hit_rate(lists: Lists) -> np.ndarray:
    """1 for each user whose list has a positive, else 0.

    Reference: Deshpande and Karypis, Item-Based Top-N Recommendation Algorithms, TOIS 2004,
    https://doi.org/10.1145/963770.963776.

    Args:
        lists: `Lists`.

    Returns:
        Float array of shape `(users,)`.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> hit_rate(Lists([[3, 7], [5, -1]], ["DE", "PL"], [0, 1], [7, 8], num_titles=9))
    array([1., 0.])
    """
    return (lists.num_hits > 0).astype(float)

"""Mean reciprocal rank of the first positive."""

import numpy as np

from tfmtr.evaluation.lists import Lists


def mrr(lists: Lists) -> np.ndarray:
    """Reciprocal rank of each user's first positive in the list, 0 without one.

    Reference: Voorhees, The TREC-8 Question Answering Track Report, 1999.

    Args:
        lists: `Lists`.

    Returns:
        Float array of shape `(users,)` in [0, 1].

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> mrr(Lists([[3, 7], [5, -1]], ["DE", "PL"], [0, 1], [7, 8], num_titles=9))
    array([0.5, 0. ])
    """
    reciprocal = np.zeros(len(lists.ranked_titles))
    np.maximum.at(reciprocal, lists.positive_users, 1 / lists.positive_ranks)
    return reciprocal

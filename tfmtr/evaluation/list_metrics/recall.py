"""Share of a user's positives that the list has."""

import numpy as np

from tfmtr.evaluation.lists import Lists


def recall(lists: Lists) -> np.ndarray:
    """Recall of each user.

        recall = |ranks| / n

    with the ranks of those of a user's n positives that the list of k titles has. A user with more positives than k
    cannot reach 1; see `capped_recall`.

    Args:
        lists: `Lists`.

    Returns:
        Float array of shape `(users,)` in [0, 1].

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> recall(Lists([[3, 7], [5, -1]], ["DE", "PL"], [0, 0, 1], [8, 7, 5], num_titles=9))
    array([0.5, 1. ])
    """
    return lists.num_hits / np.maximum(lists.num_positives, 1)

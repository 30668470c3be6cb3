"""Recall over as many positives as a list can hold."""

import numpy as np

from tfmtr.evaluation.lists import Lists


def capped_recall(lists: Lists) -> np.ndarray:
    """Recall of each user over min(n, k), which a list of k titles can reach whatever the number n of positives.

        capped_recall = |ranks| / min(n, k)

    Args:
        lists: `Lists`.

    Returns:
        Float array of shape `(users,)` in [0, 1].

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> capped_recall(Lists([[3, 7]], ["DE"], [0, 0, 0], [3, 7, 5], num_titles=9))
    array([1.])
    """
    return lists.num_hits / np.clip(lists.num_positives, 1, lists.ranked_titles.shape[1])

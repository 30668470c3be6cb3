"""What settles ties: a score that counts only where another one does not decide."""

import numpy as np

from tfmtr.evaluation.baselines.history import Score

TIE = 1e-9  # of a row's largest score: what differs by less counts as a tie


def settle(scores: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Adds to scores what settles their ties and nothing else: a billionth of a row's largest one at most.

    Args:
        scores: Float array of shape `(rows, titles)`; it is changed.
        order: Float array that broadcasts to it, in [0, 1]: among titles that tie, the one with more comes first.

    Returns:
        `scores`.

    Example:
    >>> np.argsort(-settle(np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), np.array([0.1, 0.0, 0.9]))).tolist()
    [[1, 2, 0], [2, 0, 1]]
    """
    scale = np.maximum(scores.max(axis=1, initial=0.0), -scores.min(axis=1, initial=0.0))[:, None]
    scores += order * (TIE * np.where(scale > 0, scale, 1.0))
    return scores


def settled(score: Score, order: Score) -> Score:
    """A function like `score` whose ties are settled by another such function, such as popularity's.

    Args:
        score: Function of user numbers of shape `(users,)` that returns scores of shape `(users, titles)`.
        order: Such a function, whose scores are not negative; what it returns is changed.

    Returns:
        Such a function.
    """

    def both(users: np.ndarray) -> np.ndarray:
        first, second = score(users), order(users)
        second /= np.maximum(second.max(axis=1, initial=0.0, keepdims=True), 1e-300)
        return settle(first, second)

    return both

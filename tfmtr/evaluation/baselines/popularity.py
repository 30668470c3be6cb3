"""What is popular, in a territory or everywhere, of all time or lately."""

import numpy as np
from scipy import sparse

from tfmtr.evaluation.baselines.history import History, Score
from tfmtr.evaluation.baselines.ties import settle


def popularity(
    history: History, *, days: float | None = None, half_life: float | None = None, by_territory: bool = True
) -> Score:
    """Scores titles by their events; ties within a territory have the order of all territories together.

    Args:
        history: A `History`.
        days: Only events of the last so many days; all by default.
        half_life: Days after which an event counts half; all events count alike by default.
        by_territory: Whether each territory has its own order.

    Returns:
        Function of user numbers of shape `(users,)` that returns scores, float64 of shape `(users, titles)`.

    Raises:
        ValueError: If `days` or `half_life` is not positive.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> history = History([0, 1, 1, 2], [0, 1, 2, 2], [9.0, 1.0, 1.0, 1.0], [0, 1, 1], num_titles=3)
    >>> np.argsort(-popularity(history)([0, 1])).tolist()
    [[0, 2, 1], [2, 1, 0]]
    """
    for name, value in (("days", days), ("half_life", half_life)):
        if value is not None and not value > 0:
            raise ValueError(f"`{name}` must be positive, such as 14 days. Received: {name}={value}")
    is_recent = history.fitted & (history.age <= (np.inf if days is None else days))
    weights = np.ones(is_recent.sum()) if half_life is None else 0.5 ** (history.age[is_recent] / half_life)
    homes = history.homes if by_territory else np.zeros_like(history.homes)
    shape = (int(homes.max(initial=0)) + 1, history.num_titles)
    counts = sparse.csr_matrix((weights, (homes[history.users[is_recent]], history.titles[is_recent])), shape)
    places = np.unique(np.asarray(counts.sum(axis=0)).ravel(), return_inverse=True)[1] / max(1, history.num_titles)

    def score(users: np.ndarray) -> np.ndarray:
        needed, rows = np.unique(homes[np.asarray(users, int)], return_inverse=True)
        return settle(counts[needed].toarray(), places)[rows]

    return score

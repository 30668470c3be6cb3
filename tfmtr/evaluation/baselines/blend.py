"""What is like the user's own past, the latest most, and what is popular lately, added up."""

import numpy as np
from scipy import sparse

from tfmtr.evaluation.baselines.history import History, Score
from tfmtr.evaluation.baselines.neighbours import similarities
from tfmtr.evaluation.baselines.popularity import popularity


def blend(
    history: History,
    *,
    half_life: float,
    popular_half_life: float,
    weight: float = 1.0,
    number: int = 100,
    shrink: float = 10.0,
    products: sparse.csr_matrix | None = None,
) -> Score:
    """Scores titles by their similarity to the user's own past and by their popularity, both of them decayed.

        score_i = s_i / max_j s_j + weight p_i / max_j p_j
        s_i     = sum_e 0.5^(age_e / half_life) sim(i, title_e)

    over the user's own events `e`; `sim` is the cosine of `similarities`, which keeps its scale where titles have few
    events, and `p` the decayed popularity in the user's territory. Without a past `s` is 0, and popularity decides.

    Args:
        history: A `History`.
        half_life: Days after which an event of the user counts half.
        popular_half_life: Days after which an event of anybody counts half in the popularity.
        weight: Of the popularity, not negative.
        number: Neighbours that a title keeps.
        shrink: Added to the product of lengths of the cosine, as in `similarities`.
        products: What `products_of` returned for the same history and `cosine`, if there is more than one call.

    Returns:
        Function of user numbers of shape `(users,)` that returns scores, float64 of shape `(users, titles)`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> history = History([0, 0, 1, 1, 2], [0, 1, 0, 1, 0], [7.0] * 5, [0, 0, 0], num_titles=3)
    >>> blend(history, half_life=7, popular_half_life=7)([2]).round(3).tolist()
    [[1.0, 1.667, 0.0]]
    """
    if not half_life > 0 or not weight >= 0:
        raise ValueError(
            "`half_life` must be positive, such as 14 days, and `weight` not negative. "
            f"Received: half_life={half_life}, weight={weight}"
        )
    to_others = similarities(history, weighting="cosine", number=number, shrink=shrink, products=products).T.tocsr()
    shape = (len(history.homes), history.num_titles)
    past = sparse.csr_matrix((0.5 ** (history.age / half_life), (history.users, history.titles)), shape)
    popular = popularity(history, half_life=popular_half_life)

    def score(users: np.ndarray) -> np.ndarray:
        alike, liked = (past[np.asarray(users, int)] @ to_others).toarray(), popular(users)
        return _to_one(alike) + weight * _to_one(liked)

    return score


def _to_one(scores: np.ndarray) -> np.ndarray:
    largest = scores.max(axis=1, initial=0.0, keepdims=True)
    return scores / np.where(largest > 0, largest, 1.0)

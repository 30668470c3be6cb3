"""Recommendation lists beside what their users liked: what ranking and popularity metrics are computed from."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tfmtr.evaluation.areas import stable_order
from tfmtr.evaluation.metrics import check_columns, encode_slices, observed_rows, rows_by_slice, why_not_available


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
    """The recommendation lists of one model for one test window, and the users' held-out positives.

    A user is a row of `ranked_titles`, a title a row of the title store. Positives are kept once each, sorted by
    user and title.

    Args:
        ranked_titles: Integer array of shape `(users, k)`: best first; -1 pads a user with fewer than k titles.
        slices: Array of shape `(users,)` with the slice value of each user, for example the territory; users with a
            null count for the pooled cell only.
        positive_users: Integer array of shape `(positives,)` in `[0, users)`.
        positive_titles: Integer array of shape `(positives,)` in `[0, num_titles)`.
        num_titles: Number of titles in the store.

    Raises:
        ValueError: If `ranked_titles` is no integer matrix, the shapes do not fit, or a user or title is out of range.

    Example:
    >>> lists = Lists([[3, 7], [5, -1]], ["DE", "PL"], [0, 0, 1], [8, 7, 5], num_titles=9)
    >>> lists.positive_titles, lists.positive_ranks
    (array([7, 8, 5]), array([ 2., inf,  1.]))
    """

    ranked_titles: np.ndarray
    slices: np.ndarray
    positive_users: np.ndarray
    positive_titles: np.ndarray
    num_titles: int

    def __post_init__(self) -> None:
        ranked_titles = np.asarray(self.ranked_titles)
        if ranked_titles.ndim != 2 or ranked_titles.dtype.kind not in "iu":
            raise ValueError(
                "`ranked_titles` must be an integer array of shape (users, k), padded with -1. "
                f"Received: shape={ranked_titles.shape}, dtype={ranked_titles.dtype}"
            )
        if len(self.slices) != len(ranked_titles):
            raise ValueError(
                "`slices` must have one value for each row of `ranked_titles`. "
                f"Received: {len(self.slices)} values for {len(ranked_titles)} users"
            )
        users, titles = np.asarray(self.positive_users, np.int64), np.asarray(self.positive_titles, np.int64)
        check_columns(positive_users=users, positive_titles=titles)
        check_range("ranked_titles", ranked_titles, -1, self.num_titles)
        check_range("positive_users", users, 0, len(ranked_titles))
        check_range("positive_titles", titles, 0, self.num_titles)
        users, titles = np.divmod(np.unique(users * self.num_titles + titles), self.num_titles)
        object.__setattr__(self, "ranked_titles", ranked_titles)
        object.__setattr__(self, "positive_users", users)
        object.__setattr__(self, "positive_titles", titles)

    @property
    def num_pairs(self) -> int:
        """Number of pairs of a user and a title, of which the positives are some."""
        return len(self.ranked_titles) * self.num_titles

    @functools.cached_property
    def recommended(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(users, titles, ranks)`: the lists without their padding, integer arrays; ranks are from 1."""
        users, places = np.nonzero(self.ranked_titles >= 0)
        return users, self.ranked_titles[users, places], places + 1

    @functools.cached_property
    def positive_ranks(self) -> np.ndarray:
        """Rank of each positive in its user's list, shape `(positives,)`; `inf` where the list does not have it.

        A title that a list names twice has the better of its ranks.
        """
        positives = self.positive_users * self.num_titles + self.positive_titles
        users, titles, ranks = self.recommended
        recommended = users * self.num_titles + titles
        at = np.searchsorted(positives, recommended)
        is_positive = np.append(positives, -1)[at] == recommended
        best = np.full(len(positives), np.inf)
        np.minimum.at(best, at[is_positive], ranks[is_positive])
        return best

    @functools.cached_property
    def num_positives(self) -> np.ndarray:
        """Number of each user's positives, integers of shape `(users,)`."""
        return np.bincount(self.positive_users, minlength=len(self.ranked_titles))

    @functools.cached_property
    def num_hits(self) -> np.ndarray:
        """Number of each user's positives that the list has, floats of shape `(users,)`."""
        return np.bincount(self.positive_users, np.isfinite(self.positive_ranks), len(self.ranked_titles))

    def by_slice(self) -> dict[str, tuple[np.ndarray | slice, np.ndarray | slice, np.ndarray | slice]]:
        """Indices of the users, the recommendations (of `recommended`) and the positives of every slice.

        Returns:
            `{slice: (users, recommendations, positives)}`: slices as text in sorted order, and last `"overall"`.
        """
        codes, names = encode_slices(self.slices)
        columns = codes, codes[self.recommended[0]], codes[self.positive_users]
        users, recommendations, positives = (rows_by_slice(column, names) for column in columns)
        return {name: (users[name], recommendations[name], positives[name]) for name in users}

    def hit_rate(self, positives: np.ndarray | slice) -> dict[str, Any]:
        """Cell of some positives: the share that is in their users' lists, `positives`, `users` and `reason`."""
        hits = np.isfinite(self.positive_ranks[positives])
        num_users = len(np.unique(self.positive_users[positives]))
        reason = why_not_available(self.num_pairs, num_users, len(hits))
        rate = float(hits.mean()) if reason is None else None
        return {"hit_rate": rate, "positives": len(hits), "users": num_users, "reason": reason}

    def check_titles(
        self, name: str, values: ArrayLike, good: Callable[[np.ndarray], bool | np.ndarray], expected: str
    ) -> np.ndarray:
        """Returns an array with one value a title, or raises a `ValueError` that says what is `expected` of it."""
        values = np.asarray(values)
        if values.shape != (self.num_titles,) or not np.all(good(values)):
            raise ValueError(
                f"`{name}` must have {expected} for each of the {self.num_titles} titles. "
                f"Received: shape={values.shape}, dtype={values.dtype}, {values[:5]}"
            )
        return values


def rank_pairs(
    users: ArrayLike,
    titles: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike,
    slices: ArrayLike,
    *,
    num_titles: int,
    k: int = 10,
    seed: int = 0,
) -> Lists:
    """The lists that a model's scores make: each user's k best titles among those they have a label for.

    Equal scores are ordered at random, so that no order of the rows, such as positives first, helps a model.

    Args:
        users: Array of shape `(rows,)` with the user of each row, of any type.
        titles: Integer array of shape `(rows,)`: rows of the title store.
        labels: Array of shape `(rows,)`: 0, 1 or NaN; rows with NaN are left out.
        scores: Array of shape `(rows,)`: probabilities.
        slices: Array of shape `(rows,)` with the slice value, the same in all rows of a user.
        num_titles: Number of titles in the store.
        k: Most titles of a list.
        seed: Seed of the order of equal scores.

    Returns:
        `Lists` with one row for each user who has a label, in the order in which users first appear.

    Raises:
        ValueError: If the arrays differ in shape, a label, score or title is outside its range, a user is null or has
            two slice values, a slice is called `"overall"`, or `k` is not positive.

    Example:
    >>> lists = rank_pairs([1, 1, 2], [0, 4, 4], [0, 1, 1], [0.1, 0.2, 0.3], ["DE", "DE", "PL"], num_titles=5, k=2)
    >>> lists.ranked_titles.tolist(), lists.positive_ranks.tolist()
    ([[4, 0], [4, -1]], [1.0, 1.0])
    """
    if k < 1:
        raise ValueError(f"`k` must be positive, for example 10. Received: k={k!r}")
    titles = np.asarray(titles)
    check_range("titles", titles, 0, num_titles)
    labels, scores, slices, names, users, titles = observed_rows(labels, scores, slices, users, "binary", titles=titles)
    users, distinct_users = pd.factorize(users, sort=True)
    num_users = len(distinct_users)
    slice_of = np.empty(num_users, np.int64)
    slice_of[users] = slices
    if (slice_of[users] != slices).any():
        raise ValueError(
            "`slices` must be the same in all rows of a user, who has one list; rank each slice's rows on their own. "
            f"Received: {len(np.unique(users[slice_of[users] != slices]))} users with two values"
        )
    order = np.arange(len(users))[::-1]
    order = order[stable_order(users[order])]
    _shuffle_ties(order, users, scores, seed)
    rows = np.bincount(users, minlength=num_users)
    place = np.arange(len(order)) - np.repeat(np.cumsum(rows) - rows, rows)
    best, place = order[place < k], place[place < k]
    ranked_titles = np.full((num_users, k), -1)
    ranked_titles[users[best], place] = titles[best]
    slices, positive = np.array([*names, None], object)[slice_of], labels == 1
    return Lists(ranked_titles, slices, users[positive], titles[positive], num_titles=num_titles)


def _shuffle_ties(order: np.ndarray, users: np.ndarray, scores: np.ndarray, seed: int) -> None:
    """Shuffles, in place, the rows of a user with equal scores, which are neighbors in `order`."""
    users, scores = users[order], scores[order]
    as_before = np.zeros(len(order) + 1, bool)
    as_before[1:-1] = (users[1:] == users[:-1]) & (scores[1:] == scores[:-1])
    tied = as_before[:-1] | as_before[1:]
    ties = np.cumsum(~as_before[:-1])[tied]
    order[tied] = order[tied][np.lexsort((np.random.default_rng(seed).random(len(ties)), ties))]


def check_range(name: str, values: np.ndarray, low: int, end: int) -> None:
    """Raises a `ValueError` unless all values are in `[low, end)`."""
    outside = values[(values < low) | (values >= end)]
    if outside.size:
        raise ValueError(f"`{name}` must be in [{low}, {end}). Received: {outside[0]} ({outside.size} such values)")

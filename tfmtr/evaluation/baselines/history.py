"""Who had what, and how long ago: what baselines are fitted on."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Self

import numpy as np
from scipy import sparse

Score = Callable[[np.ndarray], np.ndarray]  # of users' numbers, shape (users,), to scores of shape (users, titles)


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """Events before a moment.

    Args:
        users: Integer array of shape `(events,)` in `[0, num_users)`.
        titles: Integer array of shape `(events,)` in `[0, num_titles)`.
        age: Float array of shape `(events,)`: days before the moment, positive.
        homes: Integer array of shape `(num_users,)`: the user's territory, from 0.
        num_titles: Number of titles.
        fitted: Boolean array of shape `(events,)`: events that a baseline may be fitted on; the others are known for
            their own users' lists only. All by default.

    Raises:
        ValueError: If shapes do not fit, a user or title is out of range, or an event is not before the moment.

    Example:
    >>> history = History([0, 0, 1], [1, 1, 0], [2.0, 1.0, 5.0], [0, 0], num_titles=2)
    >>> history.matrix.toarray().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    >>> History([0, 1], [1, 0], [1.0, 1.0], [0, 0], num_titles=2, fitted=[True, False]).fitted_matrix.toarray().tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """

    users: np.ndarray
    titles: np.ndarray
    age: np.ndarray
    homes: np.ndarray
    num_titles: int
    fitted: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("users", np.int64), ("titles", np.int64), ("age", np.float64), ("homes", np.int64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        fitted = np.ones(self.users.shape, bool) if self.fitted is None else np.asarray(self.fitted, bool)
        object.__setattr__(self, "fitted", fitted)
        shapes = {name: getattr(self, name).shape for name in ("users", "titles", "age", "fitted")}
        if len(set(shapes.values())) > 1:
            raise ValueError(
                f"`users`, `titles`, `age` and `fitted` must have one value for each event. Received: {shapes}"
            )
        for name, size in (("users", len(self.homes)), ("titles", self.num_titles)):
            values = getattr(self, name)
            if len(values) and not (values.min() >= 0 and values.max() < size):
                raise ValueError(f"`{name}` must be in [0, {size}). Received: {values.min()} to {values.max()}")
        if len(self.age) and not self.age.min() > 0:
            raise ValueError(
                f"`age` must be positive: no event of the moment or after it is known. Received: {self.age.min()} days"
            )

    def thinned(self, most: int) -> Self:
        """A history of which at most about `most` events are fitted: all those of some users, drawn with a fixed seed.

        What the others had stays known for their own lists. The history itself, if it has no more.

        Example:
        >>> history = History(range(1000), [0] * 1000, [1.0] * 1000, [0] * 1000, num_titles=1)
        >>> 50 < int(history.thinned(100).fitted.sum()) < 150
        True
        """
        share = most / max(1, int(self.fitted.sum()))
        if share >= 1:
            return self
        is_drawn = np.random.default_rng(0).random(len(self.homes)) < share
        return dataclasses.replace(self, fitted=self.fitted & is_drawn[self.users])

    @functools.cached_property
    def matrix(self) -> sparse.csr_matrix:
        """Which user had which title, 1 or 0: sparse float64 of shape `(users, titles)`."""
        return self._matrix(slice(None))

    @functools.cached_property
    def fitted_matrix(self) -> sparse.csr_matrix:
        """The same of the events that may be fitted on."""
        return self.matrix if self.fitted.all() else self._matrix(np.asarray(self.fitted))

    def _matrix(self, events: np.ndarray | slice) -> sparse.csr_matrix:
        shape = (len(self.homes), self.num_titles)
        users = self.users[events]
        matrix = sparse.csr_matrix((np.ones(len(users)), (users, self.titles[events])), shape)
        matrix.data[:] = 1.0  # of titles that a user had several times too
        return matrix

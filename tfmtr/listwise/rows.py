"""Lists to learn from: what training users took in a window that they did not have, and their pasts before it."""

import dataclasses

import numpy as np
from scipy import sparse

from tfmtr.evaluation.past import Past
from tfmtr.listwise.past_titles import past_titles


@dataclasses.dataclass(frozen=True, eq=False)
class ListRows:
    """A row for each user who took a new title in a window.

    Attributes:
        window: Number of the window.
        homes: Numbers of the users' territories, integers of shape `(rows,)`.
        pasts: Folded pasts before the window, sparse float32 of shape `(rows, titles)`.
        had: What the users had before the window, sparse booleans of the same shape.
        wanted: What they took in it and did not have, sparse float32 of the same shape, 1 each.
    """

    window: int
    homes: np.ndarray
    pasts: sparse.csr_matrix
    had: sparse.csr_matrix
    wanted: sparse.csr_matrix

    def __len__(self) -> int:
        return len(self.homes)

    def take(self, rows: np.ndarray) -> "ListRows":
        """Some of the rows."""
        matrices = (matrix[rows] for matrix in (self.pasts, self.had, self.wanted))
        return ListRows(self.window, self.homes[rows], *matrices)

    def some(self, most: int, seed: int) -> "ListRows":
        """At most so many of the rows, drawn."""
        if len(self) <= most:
            return self
        return self.take(np.sort(np.random.default_rng([seed, len(self)]).choice(len(self), most, replace=False)))


def list_rows(past: Past, window: int, half_life: float | None) -> ListRows:
    """The rows of training users in a window, in the order of users.

    Args:
        past: A `Past`.
        window: Number of the window.
        half_life: Days after which a title of the past counts half; `None` for no decay.
    """
    there = past.is_history & past.is_fitted & (past.window == window)
    pairs = np.unique(past.user[there].astype(np.int64) * past.num_titles + past.title[there])
    users, titles = np.divmod(pairs, past.num_titles)
    everyone, row = np.unique(users, return_inverse=True)
    had = past.had(everyone, window)
    is_new = ~np.asarray(had[row, titles]).ravel().astype(bool) if len(row) else np.zeros(0, bool)
    kept, row = np.unique(row[is_new], return_inverse=True)
    users = everyone[kept]
    shape = (len(users), past.num_titles)
    wanted = sparse.csr_matrix((np.ones(len(row), "float32"), (row, titles[is_new])), shape)
    return ListRows(window, past.homes[users], past_titles(past, users, window, half_life), had[kept], wanted)


def first_windows(past: Past) -> np.ndarray:
    """The window in which each title was first had, integers of shape `(titles,)`; the largest where it never was."""
    first = np.full(past.num_titles, np.iinfo(np.int32).max)
    np.minimum.at(first, past.title, past.window)
    return first

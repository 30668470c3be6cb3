"""What is popular, at several speeds: log shares of decayed events, of all territories and of each."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfmtr.evaluation.baselines.history import History

SPEEDS = (0.25, 1.0, 4.0, 16.0, None)  # half-lives in windows; None: all events count alike
SMALLEST = 0.1  # events that a title without any is given
SHRINK = 20.0  # events that a territory is given in the proportions of all


@dataclasses.dataclass(frozen=True, eq=False)
class LocalShares:
    """What territories' log shares differ from those of all territories by.

    All titles without an event in a territory differ by one number, so memory goes with the pairs of a title and a
    territory that have events.

    Attributes:
        rest: What a title without an event differs by, float32 of shape `(speeds, territories)`.
        begin: Where a territory's pairs begin, integers of shape `(territories + 1,)`.
        titles: Numbers of the pairs' titles, integers of shape `(pairs,)`.
        counted: What the pairs differ by, float32 of shape `(speeds, pairs)`.
        num_titles: How many titles there are.
    """

    rest: np.ndarray
    begin: np.ndarray
    titles: np.ndarray
    counted: np.ndarray
    num_titles: int

    def __len__(self) -> int:
        return self.rest.shape[1]

    @property
    def territories(self) -> np.ndarray:
        """Numbers of the pairs' territories, integers of shape `(pairs,)`."""
        return np.repeat(np.arange(len(self)), np.diff(self.begin))

    def __getitem__(self, territory: int) -> np.ndarray:
        """Those of one territory, float32 of shape `(speeds, titles)`."""
        found = np.repeat(self.rest[:, [territory]], self.num_titles, axis=1)
        own = slice(self.begin[territory], self.begin[territory + 1])
        found[:, self.titles[own]] = self.counted[:, own]
        return found

    def of(self, territories: np.ndarray, titles: np.ndarray) -> np.ndarray:
        """Those of some titles in some territories.

        Args:
            territories: Numbers, integers of shape `(rows,)`.
            titles: Numbers, integers of shape `(rows, n)`.

        Returns:
            float32 of shape `(speeds, rows, n)`.
        """
        found = np.empty((len(self.rest), *titles.shape), "float32")
        for territory in np.unique(territories):
            is_own = territories == territory
            found[:, is_own] = self[territory][:, titles[is_own]]
        return found


def log_shares(history: History, half_lives: Sequence[float | None]) -> tuple[np.ndarray, LocalShares]:
    """Log of each title's share of the fitted events, decayed; of all territories, and of each.

        c_i  = sum_e 0.5^(age_e / half_life),    p_i = (c_i + 0.1) / sum_j (c_j + 0.1)
        p_ti = (c_ti + 20 p_i) / sum_j (c_tj + 20 p_j)

    so that a territory with few events has the shares of all of them.

    Args:
        history: A `History`.
        half_lives: Days, or `None` for no decay; one for each speed.

    Returns:
        `log p`, float32 of shape `(speeds, titles)`, and `log p_t - log p`.

    Example:
    >>> history = History([0, 1, 1], [0, 1, 1], [1.0, 1.0, 2.0], [0, 1], num_titles=2)
    >>> everywhere, there = log_shares(history, [None])
    >>> [round(float(share), 3) for share in np.exp(everywhere[0])]
    [0.344, 0.656]
    >>> there[0][0, 0] > 0 > there[1][0, 0]
    np.True_
    """
    titles, age = history.titles[history.fitted].astype(np.int64), history.age[history.fitted]
    homes = history.homes[history.users[history.fitted]]
    pairs, place = np.unique(homes * history.num_titles + titles, return_inverse=True)
    home, title = np.divmod(pairs, history.num_titles)
    num_homes = int(history.homes.max(initial=0)) + 1
    everywhere, rest, counted = [], [], []
    for half_life in half_lives:
        weights = None if half_life is None else 0.5 ** (age / half_life)
        counts = np.bincount(place, weights, minlength=len(pairs)).astype(float)
        shares = np.bincount(title, counts, minlength=history.num_titles) + SMALLEST
        shares /= shares.sum()
        totals = np.log(np.bincount(home, counts, minlength=num_homes) + SHRINK)
        everywhere.append(np.log(shares))
        rest.append(np.log(SHRINK) - totals)
        counted.append(np.log(counts / shares[title] + SHRINK) - totals[home])
    begin = np.searchsorted(home, np.arange(num_homes + 1))
    local = LocalShares(_floats(rest), begin, title, _floats(counted), history.num_titles)
    return _floats(everywhere), local


def _floats(values: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(values).astype("float32")

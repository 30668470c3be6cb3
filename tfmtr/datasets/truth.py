"""The truth of a simulated log: what every user would stream, was shown, and why."""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.datasets.world import attraction, relevance

BLOCK = 65_536  # pairs at once


class Truth:
    """Reads the folder `truth/` that `tfmtr.datasets.simulator.simulator` wrote.

    What is asked of pairs is computed from the parameters of the world, see `tfmtr.datasets.world`; parameters of users
    are memory-mapped. Day 0 is the first of the log; the test window `w` is the day `days - 3 + w - 1`.

    Args:
        out: The folder that was given to `simulator`.

    Attributes:
        users: Array of `tfmtr.datasets.audience.USER`, one row a user, memory-mapped.
        titles: Table `title`, `culture` (-1 for a global title), `quality`, `latent`.
        territories: Table `territory`, `continent`, `culture`, `share`, `longitude`, `latitude`, `taste`, `emphasis`.
        days: Number of days of the log.

    Raises:
        ValueError: If the folder holds no truth.

    Example:
    >>> import tempfile
    >>> from tfmtr.datasets.simulator import simulator
    >>> out = tempfile.mkdtemp()
    >>> logs = simulator(out, num_users=100, num_titles=20, num_territories=4, days=20)
    >>> truth = Truth(out)
    >>> truth.cultures["am-00"]
    'culture-3'
    >>> truth.propensity(["u00000007", "u00000007"], ["t00000000", "t00000001"], day=19).shape
    (2,)
    """

    def __init__(self, out: str | os.PathLike) -> None:
        folder = Path(out, "truth")
        if not folder.is_dir():
            raise ValueError(f"`out` must be a folder that `simulator` wrote. Received: {out} without truth/")
        self.users = np.load(folder / "users.npy", mmap_mode="r")
        self.titles = pq.read_table(folder / "titles.parquet")
        self.territories = pq.read_table(folder / "territories.parquet")
        self._latents = np.stack(self.titles["latent"].to_numpy())
        self._qualities = self.titles["quality"].to_numpy()
        exposure = np.load(folder / "exposure.npy")
        self.days = exposure.shape[1]
        # (num_territories, days + 1, num_titles): the weights before each day
        self._before = np.pad(exposure.cumsum(axis=1, dtype=np.float64), ((0, 0), (1, 0), (0, 0)))

    @property
    def continents(self) -> dict[str, str]:
        """`{territory: continent}`: four groups by geography, as `Logs.groups` takes them."""
        return dict(zip(*(self.territories[name].to_pylist() for name in ("territory", "continent")), strict=True))

    @property
    def cultures(self) -> dict[str, str]:
        """`{territory: culture}`: the four groups that have tastes in common, as `Logs.groups` takes them."""
        names = (f"culture-{culture}" for culture in self.territories["culture"].to_pylist())
        return dict(zip(self.territories["territory"].to_pylist(), names, strict=True))

    def relevance(self, users: Sequence[str] | pa.ChunkedArray, titles: Sequence[str] | pa.ChunkedArray) -> np.ndarray:
        """Probabilities that users stream titles when they are shown them.

        Args:
            users: Ids, shape `(pairs,)`.
            titles: Ids, shape `(pairs,)`.

        Returns:
            Float64 array of shape `(pairs,)`.

        Raises:
            ValueError: If an id is unknown.
        """
        return self._compute(lambda user, title, _: relevance(*self._affinity(user, title)), users, titles, 0)

    def exposure(
        self, users: Sequence[str] | pa.ChunkedArray, titles: Sequence[str] | pa.ChunkedArray, day: int | np.ndarray
    ) -> np.ndarray:
        """How many times users are expected to be shown titles on a day; 0 where a title is not offered.

        Args:
            users: Ids, shape `(pairs,)`.
            titles: Ids, shape `(pairs,)`.
            day: Integer, or integers of shape `(pairs,)`.

        Returns:
            Float64 array of shape `(pairs,)`.

        Raises:
            ValueError: If an id is unknown, or a day is not of the log.
        """
        return self._compute(lambda user, title, day: self._shown(user, title, day, day + 1), users, titles, day)

    def propensity(
        self,
        users: Sequence[str] | pa.ChunkedArray,
        titles: Sequence[str] | pa.ChunkedArray,
        day: int | np.ndarray,
        *,
        lookback: int = 0,
    ) -> np.ndarray:
        """Probabilities that users stream titles on a day, at least once.

        With `lookback` it is the probability of a discovery: a stream on the day, none in so many days before. No model
        that does not know the user's own log can rank pairs better.

        Args:
            users: Ids, shape `(pairs,)`.
            titles: Ids, shape `(pairs,)`.
            day: Integer, or integers of shape `(pairs,)`.
            lookback: Days without a stream before the day.

        Returns:
            Float64 array of shape `(pairs,)`.

        Raises:
            ValueError: If an id is unknown, or a day is not of the log.
        """

        def compute(user: np.ndarray, title: np.ndarray, day: np.ndarray) -> np.ndarray:
            likely = relevance(*self._affinity(user, title))
            earlier = self._shown(user, title, np.maximum(day - lookback, 0), day)
            return -np.exp(-likely * earlier) * np.expm1(-likely * self._shown(user, title, day, day + 1))

        return self._compute(compute, users, titles, day)

    def _affinity(self, user: np.ndarray, title: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`<taste, latent>` and the quality of pairs of rows."""
        return np.einsum("pl,pl->p", self.users["taste"][user], self._latents[title]), self._qualities[title]

    def _shown(self, user: np.ndarray, title: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Expected showings in the days `[start, stop)` on which the user is there."""
        who = self.users[user]
        start, stop = (np.clip(day, who["joined"], who["left"]) for day in (start, stop))
        weight = self._before[who["territory"], stop, title] - self._before[who["territory"], start, title]
        return who["rate"] * weight * attraction(self._affinity(user, title)[0])

    def _compute(
        self,
        function: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
        users: Sequence[str] | pa.ChunkedArray,
        titles: Sequence[str] | pa.ChunkedArray,
        day: int | np.ndarray,
    ) -> np.ndarray:
        """The function of rows of users, rows of titles and days, block by block."""
        user, title = _rows(users, "u", len(self.users), "users"), _rows(titles, "t", len(self.titles), "titles")
        rows = np.broadcast_arrays(user, title, day)
        outside = rows[2][(rows[2] < 0) | (rows[2] >= self.days)]
        if len(outside):
            raise ValueError(f"`day` must be from 0 to {self.days - 1}. Received: {outside[0]}")
        blocks = [function(*(part[i : i + BLOCK] for part in rows)) for i in range(0, len(rows[0]), BLOCK)]
        return np.concatenate([np.empty(0), *blocks])


def _rows(ids: Sequence[str] | pa.ChunkedArray, prefix: str, size: int, argument: str) -> np.ndarray:
    """Row numbers of ids such as `u00000012`."""
    column = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([pa.array(ids, pa.string())])
    is_id = pc.fill_null(pc.match_substring_regex(column, rf"^{prefix}\d{{8}}$"), False)
    rows = pc.utf8_slice_codeunits(pc.if_else(is_id, column, f"{prefix}-1"), 1).cast(pa.int64()).to_numpy()
    unknown = (rows < 0) | (rows >= size)
    if unknown.any():
        first = column.filter(pa.array(unknown)).slice(0, 3).to_pylist()
        raise ValueError(f"`{argument}` must be ids of the log. Received: {unknown.sum()} others, first {first}")
    return rows

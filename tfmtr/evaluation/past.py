"""What users had before a window: what their lists leave out, and what baselines are fitted on."""

import datetime
from collections.abc import Sequence

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.engines.duckdb import read_files
from tfmtr.evaluation.baselines.history import History

EVENTS = "events.parquet"
SECONDS_A_DAY = 86_400.0


class Past:
    """The events of a prepared directory, as of any of its windows.

    Models and baselines know the same of the past: events from the calendar's start on, of training users to be fitted
    on and of the others for their own lists only.

    Args:
        data: A `Dataset` directory with `events.parquet`.

    Attributes:
        users: Ids of all users, Arrow text of shape `(users,)`; a user's number is the place here.
        titles: Ids of all titles, in the order of the store.
        num_titles: How many there are.

    Raises:
        ValueError: If the directory has no `events.parquet`.
    """

    def __init__(self, data: Dataset) -> None:
        if not has_events(data):
            raise ValueError(
                f"`data` must have {EVENTS}, which tells what users had; prepare the data again. Received: {data.path}"
            )
        table = pq.read_table(data.path / "users.parquet", columns=["user", "territory"])
        self.users = table["user"].combine_chunks().cast(pa.string())
        homes = table["territory"].combine_chunks().cast(pa.string()).dictionary_encode()
        self.homes = pc.fill_null(homes.indices, 0).to_numpy().astype(np.int64)
        self.territories = homes.dictionary.to_pylist()
        titles = pq.read_table(data.path / "titles.parquet", columns=["title"])["title"].combine_chunks()
        self.titles, self.num_titles = titles.cast(pa.string()).to_pylist(), len(titles)
        self.starts = {row["window"]: row["start"] for row in data.report["windows"]}
        self.starts[data.next_window] = data.report["windows"][-1].get("end")
        con = ibis.duckdb.connect()
        places = {
            name: ibis.memtable(pa.table({name: ids, f"{name}_place": np.arange(len(ids))}))
            for name, ids in (("user", self.users), ("title", titles.cast(pa.string())))
        }
        events = read_files(con, [data.path / EVENTS])
        events = events.inner_join(places["user"], "user")
        events = events.inner_join(places["title"], "title")
        events = events.select(
            user=events.user_place.cast("int32"),
            title=events.title_place.cast("int32"),
            second=events.time.epoch_seconds().cast("float64"),  # not whole where a log has milliseconds  # pyright: ignore[reportAttributeAccessIssue]
            window=events.window.cast("int32"),
            is_fitted=(events.split == "train").fill_null(False),  # pyright: ignore[reportAttributeAccessIssue]
            is_history=events.is_history,
        ).order_by("user", "title", "second")
        found = con.to_pyarrow(events)
        con.disconnect()
        self.user, self.title, self.window = (found[name].to_numpy() for name in ("user", "title", "window"))
        self.second = found["second"].to_numpy(zero_copy_only=False).astype(np.float64)  # NaN where there is no time
        self.is_fitted, self.is_history = (
            found[name].to_numpy(zero_copy_only=False).astype(bool) for name in ("is_fitted", "is_history")
        )

    def numbers(self, users: Sequence[str] | np.ndarray | pa.ChunkedArray) -> np.ndarray:
        """Numbers of users, int64 of shape `(users,)`, from their ids; -1 for one that is not in the table."""
        found = pc.index_in(pa.array(users, pa.string()), value_set=self.users)  # pyright: ignore[reportAttributeAccessIssue]
        return pc.fill_null(found, -1).to_numpy().astype(np.int64)

    def had(self, users: np.ndarray, window: int, *, chosen: bool = False) -> sparse.csr_matrix:
        """What lists of a window leave out: all that users had before it.

        Args:
            users: Numbers of users, integers of shape `(users,)`, each once.
            window: Number of the window.
            chosen: Whether to leave out what is no event: what the user rated low, for example.

        Returns:
            Sparse boolean matrix of shape `(users, titles)`.
        """
        place = np.full(len(self.users) + 1, -1)
        place[users] = np.arange(len(users))
        rows = place[self.user]
        is_before = (rows >= 0) & (self.window < window)
        if chosen:
            is_before &= self.is_history
        shape = (len(users), self.num_titles)
        return sparse.csr_matrix((np.ones(is_before.sum(), bool), (rows[is_before], self.title[is_before])), shape)

    def popularity(self, window: int) -> dict[str, np.ndarray]:
        """How many users had each title before a window: `{territory: float32 of shape (titles,)}`."""
        is_before = self.is_history & (self.window < window)
        pairs = np.unique(self.user[is_before].astype(np.int64) * self.num_titles + self.title[is_before])
        users, titles = np.divmod(pairs, self.num_titles)
        counts = {}
        for place, territory in enumerate(self.territories):
            local_titles = titles[self.homes[users] == place]
            counts[territory] = np.bincount(local_titles, minlength=self.num_titles).astype("float32")
        return counts

    def ages(self, events: np.ndarray, window: int) -> np.ndarray:
        """Days from some events to a window's start, positive floats; 1 where the data have no times."""
        if self.starts[window] is None:
            return np.ones(len(self.second[events]))
        start = datetime.datetime.fromisoformat(self.starts[window]).replace(tzinfo=datetime.UTC).timestamp()
        # An event just before the start, by less than a second or by a whole one, is a second old.
        age = np.maximum(start - self.second[events], 1.0) / SECONDS_A_DAY
        return np.where(np.isnan(age), 1.0, age)

    def history(self, window: int) -> History:
        """The `History` that baselines of a window are fitted on: all that the model may know then."""
        is_before = self.is_history & (self.window < window)
        age = self.ages(is_before, window)
        return History(
            self.user[is_before],
            self.title[is_before],
            age,
            self.homes,
            num_titles=self.num_titles,
            fitted=self.is_fitted[is_before],
        )


def has_events(data: Dataset) -> bool:
    """Whether a prepared directory tells what users had; what public converters with given examples write does not."""
    return (data.path / EVENTS).is_file()

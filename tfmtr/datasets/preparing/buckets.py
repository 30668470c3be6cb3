"""Cuts events and users once into buckets by a hash of the user: what a pass takes at once."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import dataclasses
from collections.abc import Sequence

import ibis
import numpy as np

from tfmtr.datasets import discovery, holdout, stores
from tfmtr.datasets.history import history_states
from tfmtr.datasets.preparing.checked_log import CheckedLog
from tfmtr.datasets.preparing.work import Work
from tfmtr.datasets.sampling import digest, draw

BUCKET_EVENTS = 250_000
UNKNOWN_TERRITORY = "unknown"


@dataclasses.dataclass(frozen=True)
class Buckets:
    """A log in buckets of users.

    Args:
        work: A `Work`, in whose folder they are.
        windows: List of `Window`.
        passes: Ranges of buckets, as many in each as the engine takes at once.
        upstream: The matrix of an upstream store of users, memory-mapped, or `None`.
    """

    work: Work
    windows: Sequence[discovery.Window]
    passes: Sequence[range]
    upstream: np.ndarray | None
    _opened: dict[tuple[str, range], ibis.Table] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @property
    def num_buckets(self) -> int:
        """Number of buckets of all passes."""
        return self.passes[-1].stop

    @property
    def everything(self) -> range:
        """All buckets."""
        return range(self.num_buckets)

    @property
    def has_history(self) -> bool:
        """Whether user vectors come from history."""
        return self.upstream is None and self.work.logs.user_history

    def part(self, name: str, buckets: range) -> ibis.Table:
        """Some buckets of `"events"`, `"users"` or `"store"`, the ids of `upstream`."""
        key = (name, buckets)
        if key not in self._opened:
            self._opened[key] = self.work.engine.read_buckets(self.work.folder / name, buckets)
        return self._opened[key]

    def usable_events(self, buckets: range) -> ibis.Table:
        """Events from the calendar's start to the end of the last window."""
        events = self.part("events", buckets)
        events = events.filter(events.window <= self.windows[-1].number)
        start = self.work.logs.calendar.start
        return events.filter(events.time >= discovery.as_utc(start)) if start else events

    def history_events(self, buckets: range) -> ibis.Table:
        """What counts as a user's history, activity and discoveries: usable events, no impressions."""
        return self.usable_events(buckets).filter(lambda t: t.is_event)

    def states(self, buckets: range) -> ibis.Table:
        """Rows of the user store of some buckets: `user`, `bucket`, `window`, `next_window`, `row` in the bucket."""
        users = self.part("users", buckets)
        if self.has_history:
            return history_states(users, self.history_events(buckets), self.windows)
        return users.select(
            "user",
            "bucket",
            window=ibis.literal(self.windows[0].number, "int64"),
            next_window=ibis.null("int64"),
            row=ibis.row_number().over(group_by="bucket", order_by="user"),
        )


def plan_passes(work: Work, num_events: int) -> list[range]:
    """The ranges of buckets that are taken at once."""
    num_buckets, size = max(1, -(-num_events // BUCKET_EVENTS)), work.engine.pass_buckets
    return [range(begin, min(begin + size, num_buckets)) for begin in range(0, num_buckets, size)]


def cut_buckets(work: Work, log: CheckedLog, windows: Sequence[discovery.Window], passes: Sequence[range]) -> Buckets:
    """Writes events and users once, in buckets by a hash of the user."""
    seed, num_buckets = work.options["seed"], passes[-1].stop

    def write(table: ibis.Table, name: str) -> None:
        bucket = ibis.literal(0, "int64")
        if num_buckets > 1:
            bucket = draw(digest(seed, "bucket", table.user), num_buckets).cast("int64")
        work.engine.partition(table.mutate(bucket=bucket), work.folder / name, num_buckets)

    events = log.tables.events
    events = events.filter(events.user.notnull(), events.time.notnull()).semi_join(log.titles, "title")
    events = events.mutate(
        window=discovery.number_window(events.time, windows), is_event=discovery.is_event(events, log.label)
    )
    if work.is_given:
        events = without_validation_pairs(work, events)
    write(events, "events")
    users = named_users(work, log.tables.users)
    users = discovery.assign_users(users, seed=seed, **work.fractions)
    if work.is_given:
        users = holdout.splits_of_users(users, events)
    write(users, "users")
    upstream = None
    if work.logs.user_vectors is not None:
        upstream, ids = stores.open_store(work.engine, work.logs.user_vectors, "user_vectors", "user")
        write(ids, "store")
    return Buckets(work, windows, passes, upstream)


def named_users(work: Work, users: ibis.Table) -> ibis.Table:
    """Users who have an id, all of them with a territory."""
    is_homeless = users.territory.isnull() | (users.territory == "")
    counts = users.aggregate(nameless=users.user.isnull().sum(), homeless=is_homeless.sum())
    counts = work.engine.rows(counts)[0]
    work.warn(counts["nameless"], "users without id were dropped")
    work.warn(
        counts["homeless"],
        f"users have no territory; theirs is {UNKNOWN_TERRITORY!r}, served by the default branch",
    )
    territory = users.territory.nullif("").fill_null(UNKNOWN_TERRITORY)
    return users.filter(users.user.notnull()).mutate(territory=territory)


def without_validation_pairs(work: Work, events: ibis.Table) -> ibis.Table:
    """Events of a given split; a training row of a pair that is for validation, too, is no event."""
    overlaps = holdout.count_overlaps(work.engine, events.filter(events.is_event))
    work.warn(overlaps["validation"], "validation pairs are training pairs, too, and were left out of training")
    what = "test pairs are training or validation pairs, too; users had them, so they are not tested"
    work.warn(overlaps["test"], what)
    pairs = events.filter(events.is_event, events.row_split == "validation").select("user", "title").distinct()
    pairs = work.engine.store(pairs.mutate(is_validation=True), work.folder / "validation.parquet")
    events = events.left_join(pairs, ("user", "title")).drop("user_right", "title_right")
    is_left_out = events.is_validation.notnull() & (events.row_split == "train")
    return events.mutate(is_event=events.is_event & ~is_left_out).drop("is_validation")

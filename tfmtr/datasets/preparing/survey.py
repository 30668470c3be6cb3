"""One look at each bucket: doubles, unknown users, first events, volumes, territories and sizes."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ibis
import numpy as np

from tfmtr.datasets import stores
from tfmtr.datasets.groups import territory_groups
from tfmtr.datasets.ids import refuse_mismatch
from tfmtr.datasets.log_tables import check_unique
from tfmtr.datasets.preparing.buckets import UNKNOWN_TERRITORY, Buckets
from tfmtr.datasets.preparing.checked_log import CheckedLog, is_early
from tfmtr.datasets.preparing.work import Work


@dataclasses.dataclass(frozen=True)
class Survey:
    """What is known of all buckets before examples are made.

    Args:
        num_states: Number of rows of the user store of each bucket.
        states: Table of each pass, see `Buckets.states`.
        first_events: Table `title`, `territory`, `time` of the first event, and `events`, `volume`, `last`: how many
            there are, before the tests of users who are in none, and in the last window.
        territories: `{territory: {"group", "users", "events", "last_window"}}`.
        groups: `{territory: group}`.
    """

    num_states: np.ndarray
    states: Sequence[ibis.Table]
    first_events: ibis.Table
    territories: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, str]

    def numbered_states(self, number: int, buckets: range) -> ibis.Table:
        """The states of a pass with `row` in the whole user store, instead of in the bucket."""
        offsets = [(bucket, int(self.num_states[:bucket].sum())) for bucket in buckets]
        states = self.states[number]
        # Cast at once: Spark's sum is of 32 bits, and Ibis, which says otherwise, would leave out a later cast.
        return states.mutate(row=states.row.cast("int64") + states.bucket.cases(*offsets, else_=None))


@dataclasses.dataclass(frozen=True)
class PassSurvey:
    """What one pass adds to a `Survey`.

    Args:
        states: See `Buckets.states`.
        first_events: As in a `Survey`.
        num_states: `{bucket: rows of states}`.
        users: `{territory: users}`.
        without_vector: How many users have no vector upstream, and the first three of them.
    """

    states: ibis.Table
    first_events: ibis.Table
    num_states: Mapping[int, int]
    users: Mapping[str, int]
    without_vector: tuple[int, Sequence[str]]


def survey_buckets(work: Work, log: CheckedLog, buckets: Buckets) -> Survey:
    """One look at each bucket."""
    surveys, hint = [], None
    for number, some in enumerate(buckets.passes):
        surveys.append(survey_pass(work, log, buckets, number))
        if work.funnel.total("unknown_user") and hint is None:  # the strangers of one pass tell enough
            strangers = buckets.part("events", some).anti_join(buckets.part("users", some), "user")
            hint = work.hint(strangers, log.tables.users, "user")
        work.advance("Surveying buckets")
    warn_of_users(work, log, [survey.without_vector for survey in surveys], hint or "")
    beyond = work.funnel.of(buckets.windows[-1].number + 1)
    beyond = beyond["rows"] - sum(beyond[name] for name in ("incomplete", "unknown_title", "unknown_user"))
    work.warn(beyond, "events after the last window are used for nothing but the seen titles")
    first_events = surveys[0].first_events
    if len(surveys) > 1:
        rows = ibis.union(*(survey.first_events for survey in surveys))
        first_events = work.engine.store(rows, work.folder / "first.parquet")
    num_states, users = np.zeros(buckets.num_buckets, "int64"), collections.Counter()
    for survey in surveys:
        users.update(survey.users)
        for bucket, count in survey.num_states.items():
            num_states[bucket] = count
    territories, groups = group_territories(work, first_events, users)
    return Survey(num_states, [survey.states for survey in surveys], first_events, territories, groups)


def survey_pass(work: Work, log: CheckedLog, buckets: Buckets, number: int) -> PassSurvey:
    """One look at the buckets of a pass."""
    engine, some, last = work.engine, buckets.passes[number], buckets.windows[-1].number
    events, users = buckets.part("events", some), buckets.part("users", some)
    check_unique(engine, users, "user", "users")
    homes = users.select("user", "territory", "split")
    count_fates(work, log, buckets, events.left_join(homes, "user"))
    if work.like is not None:
        count_doubles(work, events, last)
    seen = events.filter(events.window <= last).inner_join(homes, "user")
    first_events = seen.group_by("title", "territory").aggregate(
        time=seen.time.min(),
        events=seen.is_event.sum(),
        volume=(seen.is_event & (seen.window <= 0) & (seen.split != "test")).sum(),
        last=(seen.is_event & (seen.window == last)).sum(),
    )
    first_events = engine.store(first_events, work.folder / f"first/{number}.parquet")
    users_of = engine.rows(users.group_by("territory").aggregate(users=users.count()))
    states = engine.store(buckets.states(some), work.folder / f"states/{number}.parquet")
    sizes = engine.rows(states.group_by("bucket").aggregate(rows=states.count()))
    return PassSurvey(
        states,
        first_events,
        num_states={row["bucket"]: row["rows"] for row in sizes},
        users={row["territory"]: row["users"] for row in users_of},
        without_vector=(0, []) if buckets.upstream is None else users_without_vector(work, buckets, some),
    )


def count_fates(work: Work, log: CheckedLog, buckets: Buckets, events: ibis.Table) -> None:
    """Counts what the rows of some buckets are, window by window; their users' split is null if there is none."""
    label, is_known = events[log.label], events.split.notnull()
    is_left_out = label.notnull() & (label != 0.0) & ~events.is_event  # of a given split
    early = is_early(work, events.time)
    counts = events.group_by("window").aggregate(
        unknown_user=(~is_known).sum(),
        other_split=(is_known & is_left_out).sum(),
        unlabelled=(is_known & label.isnull()).sum(),
        **{"low_rated" if log.tables.has_ratings else "impressions": (is_known & (label == 0.0)).sum()},
        too_early=(is_known & events.is_event & early).sum(),
        events=(is_known & events.is_event & ~early).sum(),
    )
    for row in work.engine.rows(counts):
        number, left = row.pop("window"), row.pop("events")
        is_before, is_after = number < buckets.windows[0].number, number > buckets.windows[-1].number
        fate = "history" if is_before else "later" if is_after else "repeats"  # until discoveries are found
        work.funnel.add(number, **row)
        work.funnel.add(number, **{fate: left})


def count_doubles(work: Work, events: ibis.Table, last: int) -> None:
    """Counts rows of the last window that another row of some buckets repeats, in user, title and time."""
    events = events.filter(events.window == last)
    rows = events.group_by("user", "title", "time").aggregate(rows=events.count())
    work.funnel.add(last, doubles=work.engine.rows(rows.aggregate(doubles=(rows.rows - 1).sum()))[0]["doubles"])


def users_without_vector(work: Work, buckets: Buckets, some: range) -> tuple[int, list[str]]:
    """Users of some buckets without an upstream vector: how many, and the first three."""
    ids = buckets.part("store", some)
    check_unique(work.engine, ids, "user", "user_vectors")
    lacking = buckets.part("users", some).anti_join(ids, "user")
    first = work.engine.rows(lacking.select("user").order_by("user").limit(3))
    return work.engine.execute(lacking.count()), [row["user"] for row in first]


def warn_of_users(work: Work, log: CheckedLog, lacking: Sequence[tuple[int, Sequence[str]]], hint: str) -> None:
    """Warns of users without a vector and of events without a user, or refuses them.

    Args:
        work: A `Work`.
        log: A `CheckedLog`.
        lacking: Of each pass how many users have no vector, and the first of them.
        hint: The end of the warning about events of unknown users.
    """
    unknown = work.funnel.total("unknown_user")
    usable = work.funnel.total("rows") - work.funnel.total("incomplete") - work.funnel.total("unknown_title")
    if unknown == usable and work.logs.users is not None:
        tables = {"events": log.tables.events, "users": log.tables.users}
        refuse_mismatch(work.engine, tables, "user", log.tables.id_types["user"])
    count, first = sum(number for number, _ in lacking), sorted(user for _, users in lacking for user in users)
    stores.check_vectors_found(count, first[:3], "user", work.options["missing_vectors"])
    work.warn(count, "users have no vector and got the zero vector")
    work.warn(unknown, f"events of users that are not in the users table were dropped{hint}")


def group_territories(
    work: Work, first_events: ibis.Table, users: Mapping[str, int]
) -> tuple[dict[str, dict[str, Any]], Mapping[str, str]]:
    """Gives every territory its group: the caller's, or balanced over neighbours by training volume.

    Returns:
        `(territories, groups)`, see `Survey`.
    """
    blank = {"group": None, "users": 0, "events": 0, "last_window": 0}
    territories = {territory: {**blank, "users": count} for territory, count in users.items()}
    volumes = dict.fromkeys(territories, 0)
    sums = {name: first_events[name].sum() for name in ("events", "volume", "last")}
    for row in work.engine.rows(first_events.group_by("territory").aggregate(**sums)):
        territories[row["territory"]].update(events=int(row["events"]), last_window=int(row["last"]))
        volumes[row["territory"]] = int(row["volume"])
    groups = work.logs.groups
    if groups is None:
        volumes.pop(UNKNOWN_TERRITORY, None)
        groups = territory_groups(volumes, work.logs.neighbours, work.options["num_groups"]) if volumes else {}
    for territory, statistics in territories.items():
        statistics["group"] = groups.get(territory)
    unlisted = sorted(t for t in territories if t not in groups and t != UNKNOWN_TERRITORY)
    residents = sum(territories[territory]["users"] for territory in unlisted)
    work.warn(residents, f"users live in territories of no group, served by the default branch: {unlisted[:10]}")
    for name in ("groups", "neighbours", "time_zones"):
        absent = sorted(set(getattr(work.logs, name) or ()) - set(territories))
        work.warn(len(absent), f"territories of {name!r} have no users and are not used: {absent[:10]}")
    return territories, groups

"""Writes the examples, the user store, and the users and events tables, pass after pass."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import collections
import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import ibis

from tfmtr.datasets.dataset import EXAMPLES, IMPRESSIONS
from tfmtr.datasets.features import as_feature
from tfmtr.datasets.names import REQUEST_COLUMN, inside
from tfmtr.datasets.preparing.buckets import Buckets
from tfmtr.datasets.preparing.checked_log import CheckedLog, is_early
from tfmtr.datasets.preparing.counted_past import CountedPast
from tfmtr.datasets.preparing.drawn_examples import draw_examples
from tfmtr.datasets.preparing.planned_features import FeaturePlan
from tfmtr.datasets.preparing.survey import Survey
from tfmtr.datasets.preparing.work import Work
from tfmtr.datasets.preparing.written_users import UserStore
from tfmtr.datasets.report import PARTITIONS, sum_counts


@dataclasses.dataclass(frozen=True)
class WrittenExamples:
    """What was written of users and their examples.

    Args:
        counts: See `tfmtr.datasets.report.sum_counts`.
        impressions: The same of impressions; empty unless they are asked for.
        positives: `{territory: positives}`.
        newcomers: Number of positives of users who had no event before the window.
        user_width: Of a user vector; 0 where users have none.
    """

    counts: Sequence[Mapping[str, Any]]
    impressions: Sequence[Mapping[str, Any]]
    positives: Mapping[str, int]
    newcomers: int
    user_width: int


def write_examples(
    work: Work,
    log: CheckedLog,
    buckets: Buckets,
    survey: Survey,
    *,
    catalogue: ibis.Table,
    plan: FeaturePlan,
    past: CountedPast,
    user_store: UserStore,
) -> WrittenExamples:
    """Writes the examples, the user store and the parts of the users and events tables, pass after pass."""
    counts, shown, positives, newcomers = [], [], collections.Counter(), 0
    for number, some in enumerate(buckets.passes):
        users, states = buckets.part("users", some), survey.numbered_states(number, some)
        user_store.append(some, states)
        examples = draw_examples(work, log, buckets, catalogue, number)
        positives.update(examples.positives)
        newcomers += examples.newcomers
        states = states.mutate(user_row=states.row if user_store.width else ibis.literal(-1, "int64"))
        known: dict[str, Any] = {"users": users, "states": states, "number": number}
        rows = with_features(log, plan, past, examples.rows, kind=EXAMPLES, **known)
        counts += write_parts(work, log, examples.rows, rows)
        if examples.impressions is not None:
            rows = with_features(log, plan, past, examples.impressions, kind=IMPRESSIONS, **known)
            shown += write_parts(work, log, examples.impressions, rows, IMPRESSIONS)
        newest = states.filter(states.next_window.isnull()).select("user", "user_row")
        rows = past.with_newest(users.select("user", *plan.columns(users, "user")), number)
        rows = rows.rename(past.named("user")).inner_join(newest, "user")
        work.engine.save(rows, work.folder / f"users_out/{number}.parquet")
        work.engine.save(seen_events(work, log, buckets, some), work.folder / f"events_out/{number}.parquet")
        shutil.rmtree(work.folder / f"pass-{number}")
        work.advance("Making examples")
    user_store.close()
    return WrittenExamples(sum_counts(counts), sum_counts(shown), positives, newcomers, user_store.width)


def with_features(
    log: CheckedLog,
    plan: FeaturePlan,
    past: CountedPast,
    examples: ibis.Table,
    *,
    kind: str,
    users: ibis.Table,
    states: ibis.Table,
    number: int,
) -> ibis.Table:
    """The examples with all that their files have, in the order of the files, and the keys of the files.

    Impressions, of which a user may have several of a title, have a `time` and are in its order, those of one request
    side by side.
    """
    columns = [column.name(inside(column.get_name())) for column in plan.columns(users, "user")]
    columns = [column for column in columns if column.get_name() != "territory"]
    rows = examples.inner_join(users.select("user", *columns), "user")
    columns = [column.name(inside(column.get_name())) for column in plan.columns(log.titles, "title")]
    rows = rows.inner_join(log.titles.select("title", "title_row", *columns), "title")
    spans = states.select("next_window", "user_row", state_user="user", state_window="window")
    rows = rows.inner_join(
        spans,
        [
            rows.user == spans.state_user,
            spans.state_window <= rows.window,
            spans.next_window.isnull() | (rows.window < spans.next_window),
        ],
    )
    rows = past.with_counters(rows, examples, number, kind)
    features = [rows[inside(f.name)].name(f.name) for role in ("user", "title") for f in plan.features[role]]
    labels = [rows[inside(task)].cast("float32").name(task) for task in log.tasks]
    of_events = [as_feature(rows, feature) for role in ("training", "context") for feature in plan.features[role]]
    brought = map(inside, (*log.tasks, *log.tables.training, *log.tables.context))
    ties = [ibis.asc(name, nulls_first=True) for name in ("time", *brought)] if "time" in rows.columns else []
    request = [REQUEST_COLUMN] if REQUEST_COLUMN in rows.columns else []
    rows = rows.order_by(
        "bucket", *PARTITIONS, "user", *(ibis.asc(name, nulls_first=True) for name in request), "title", *ties
    )
    return rows.select(
        "user",
        "title",
        *features,
        *of_events,
        *(rows[inside(name)].name(name) for name in log.counting.names),
        *labels,
        user_row=rows.user_row,
        title_row=rows.title_row.cast("int64"),
        **{name: rows[name] for name in request},
    )


def write_parts(
    work: Work, log: CheckedLog, examples: ibis.Table, rows: ibis.Table, kind: str = EXAMPLES
) -> list[dict[str, Any]]:
    """Writes a file for each bucket, split, sampling and window; returns the counts of each.

    Args:
        work: A `Work`.
        log: A `CheckedLog`.
        examples: Of a pass, see `DrawnExamples`.
        rows: The same with features.
        kind: The folder that they are written into.
    """
    counts = examples.group_by("bucket", *PARTITIONS).aggregate(
        rows=examples.count(),
        positives=examples.is_positive.sum(),
        users=examples.user.nunique(),
        **{f"sum_{task}": examples[inside(task)].sum() for task in log.tasks},
        **{f"known_{task}": examples[inside(task)].notnull().sum() for task in log.tasks},
    )
    counts = work.engine.rows(counts.order_by("bucket", *PARTITIONS))
    for row in counts:
        row["wanted"] = math.floor(row["positives"] * work.options["alpha"] + 0.5)
    names = ["/".join(f"{key}={row[key]}" for key in PARTITIONS) + f"/part-{row['bucket']:05d}" for row in counts]
    paths = [work.out / kind / f"{name}.parquet" for name in names]
    work.engine.write_parts(rows, [row["rows"] for row in counts], paths)
    return [{name: value for name, value in row.items() if name != "bucket"} for row in counts]


def seen_events(work: Work, log: CheckedLog, buckets: Buckets, some: range) -> ibis.Table:
    """What lists leave out, with all that a mask or a baseline may know of it: rows of `events.parquet`."""
    events, users = buckets.part("events", some), buckets.part("users", some)
    if work.is_given:  # a training row that a validation pair left is no trace of the pair
        events = events.filter(events.is_event | events[log.label].isnull() | (events[log.label] == 0.0))
    if work.options["seen"] == "events" or (work.options["seen"] == "rated" and not log.tables.has_ratings):
        events = events.filter(events.is_event)
    elif work.options["seen"] == "rated":
        events = events.filter(events[log.label].notnull())
    events = events.left_join(users.select("user", "split"), "user")
    early, windows = is_early(work, events.time), buckets.windows
    events = events.select(
        "user",
        "title",
        # Before the calendar's start it may be known that something was, but neither when nor in which order.
        time=early.ifelse(ibis.null("timestamp(6)"), events.told if work.is_drawn else events.time),
        window=early.ifelse(windows[0].number - 1, events.window).cast("int64"),
        split=events.row_split if work.is_given else events.split,
        is_event=events.is_event,
        is_history=events.is_event & events.split.notnull() & ~early & (events.window <= windows[-1].number),
    )
    return events.distinct()


def write_sorted_tables(work: Work) -> None:
    """Writes the users and events tables, sorted by user; sorts spill early, to stay below the buckets' memory."""
    engine = work.engine
    engine.sort_early()
    users = engine.read_parquet(sorted(work.folder.glob("users_out/*.parquet")))
    engine.write(users.order_by("user"), work.out / "users.parquet")
    work.advance("Writing events")
    events = engine.read_parquet(sorted(work.folder.glob("events_out/*.parquet")))
    order = ("user", ibis.asc("time", nulls_first=True), "title", "window", "split", "is_event")
    engine.write(events.order_by(*order), work.out / "events.parquet")

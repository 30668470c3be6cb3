"""The first step of `prepare`: opens the tables of a log and checks what needs one look at all events."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import ibis
import ibis.expr.types as ir

from tfmtr.checks import check_choice
from tfmtr.datasets import counters, discovery, holdout
from tfmtr.datasets.features import check_drift, column_kinds
from tfmtr.datasets.id_features import parse_id_feature
from tfmtr.datasets.ids import refuse_mismatch
from tfmtr.datasets.labels import check_same_tasks
from tfmtr.datasets.log_tables import Tables, check_labels, check_unique, count_contradictions, read_tables
from tfmtr.datasets.logs import Logs
from tfmtr.datasets.names import REQUEST_COLUMN, check_names, inside
from tfmtr.datasets.preparing.work import Work


@dataclasses.dataclass(frozen=True)
class CheckedLog:
    """A log that has been looked at once.

    Args:
        tables: A `Tables`.
        titles: `tables.titles` without null, with the number of each, `title_row`, in their order.
        joined: Events with the `title_row` of their title, null for a title that is in no table.
        kinds: `{"users" or "titles": {column: kind, or None for what becomes no feature}}`.
        counts: Of all events, by name: see `count_events`.
        counting: What is counted as of windows, a `Counting`.
    """

    tables: Tables
    titles: ibis.Table
    joined: ibis.Table
    kinds: Mapping[str, Mapping[str, str | None]]
    counts: Mapping[str, Any]
    counting: counters.Counting

    @property
    def tasks(self) -> Mapping[str, str]:
        """`{task: kind}`, the first task first."""
        return self.tables.tasks

    @property
    def label(self) -> str:
        """The column of the first task."""
        return inside(next(iter(self.tasks)))

    @property
    def first(self) -> datetime.datetime:
        """The time of the first event."""
        return self.counts["first"]

    @property
    def last(self) -> datetime.datetime:
        """The time of the last event."""
        return self.counts["last"]

    @property
    def num_events(self) -> int:
        """Number of rows of the events, usable or not."""
        return self.counts["events"]

    @property
    def has_zeros(self) -> bool:
        """Whether the first task has rows of 0: impressions, or low ratings."""
        return bool(self.counts["zeros"])

    @property
    def has_territories(self) -> bool:
        """Whether users' territory is a feature."""
        return "territory" in self.kinds["users"]

    @property
    def columns(self) -> dict[str, dict[str, str]]:
        """`{argument: {column: kind}}` of the columns that become something."""
        return {
            argument: {name: kind for name, kind in kinds.items() if kind is not None}
            for argument, kinds in self.kinds.items()
        }


def is_early(work: Work, time: ir.Value) -> ir.Value:
    """Whether a time is before the calendar's start."""
    start = work.logs.calendar.start
    return time < discovery.as_utc(start) if start else ibis.literal(False)


def check_log(work: Work) -> CheckedLog:
    """Opens the tables and checks what needs one look at all events."""
    engine, log = work.engine, open_log(work, work.logs)
    if work.like is not None:
        check_like(work, log)
    log = number_titles(work, log)
    tables = log.tables
    check_tasks(work, tables)
    tables = dataclasses.replace(tables, events=split_events(work, tables.events))
    joined = engine.view(tables.events.left_join(log.titles.select("title", "title_row"), "title"))
    log = dataclasses.replace(log, tables=tables, joined=joined)
    log = dataclasses.replace(log, counts=count_events(work, log))
    check_counts(work, log)
    return log


def open_log(work: Work, logs: Logs) -> CheckedLog:
    """Opens the tables of a `Logs` and checks the names and types of their columns; titles have no numbers yet."""
    for owner, text in logs.id_features.items():
        parse_id_feature(owner, text)
    tables = read_tables(work.engine, logs, work.warnings)
    kinds = {
        "users": column_kinds(tables.users, ("user", "territory")),
        "titles": column_kinds(tables.titles, ("title", "name")),
    }
    counting = plan_counting(work, tables, kinds["titles"])
    has_requests = REQUEST_COLUMN in tables.events.columns
    brought = {"context": tables.context, "counters": counting.names, "has_requests": has_requests}
    check_names(tables.tasks, tables.training, **kinds, **brought)
    check_scenario(logs.scenario, tables, kinds["users"])
    kinds["users"] = {"territory": "id", **kinds["users"]}
    titles = tables.titles.filter(tables.titles.title.notnull())
    return CheckedLog(tables, titles, tables.events, kinds, {}, counting)


def number_titles(work: Work, log: CheckedLog) -> CheckedLog:
    """The log with the number of each title, after a check that each has one row."""
    check_unique(work.engine, log.titles, "title", "titles")
    titles = log.titles.mutate(title_row=ibis.row_number().over(order_by="title"))
    return dataclasses.replace(log, titles=work.engine.store(titles, work.folder / "titles.parquet"))


def plan_counting(work: Work, tables: Tables, titles: Mapping[str, str | None]) -> counters.Counting:
    """What is counted; warns of tasks that are not."""
    options = work.options
    found = counters.parse_counters(options["counters"])
    if not found:
        return counters.Counting()
    counters.check_columns_of(found, tables.context, titles)
    binary = tuple(task for task, kind in tables.tasks.items() if kind == "binary")
    others = sorted(set(tables.tasks) - set(binary))
    work.warn(len(others), f"regressions have no counters: {others}")
    return counters.Counting(
        found, tuple(options["counter_days"]), options["counter_prior"], binary, has_zeros=bool(work.logs.tasks)
    )


def check_scenario(scenario: Sequence[str], tables: Tables, users: Mapping[str, str | None]) -> None:
    """Raises a `ValueError` unless every column of the scenario is a category that a request has."""
    categories = [name for name, kind in (*users.items(), *tables.context.items()) if kind == "id"]
    for name in scenario:
        check_choice("scenario", name, ["territory", *categories])


def check_like(work: Work, log: CheckedLog) -> None:
    """Raises a `ValueError` unless the tables are of the same kind as those that these data continue."""
    before = work.like.report
    times, then = work.logs.has_times, before.get("times", True)
    if times != then:
        has, lacks = "have times", "have none (`--no-times`)"
        raise ValueError(
            "`like` must be data with times if these have times, and without if they have none. Received: "
            f"those of {work.like.path} {has if then else lacks}, these {has if times else lacks}"
        )
    check_same_tasks(work.logs.tasks, before["logs"]["tasks"])
    check_same_counters(work.options, before["options"])
    if "columns" in before:  # not in what older versions prepared
        check_drift(log.columns, before["columns"])


def check_same_counters(options: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Raises a `ValueError` unless counters are those of the data that are continued."""
    if not options["counters"] and not before.get("counters"):
        return
    for name in ("counters", "counter_days", "counter_prior"):
        value, then = options[name], before.get(name, [])
        if value != then:
            raise ValueError(
                f"`{name}` must be what they are in the data that these continue: {then}. Received: {name}={value}"
            )


def check_tasks(work: Work, tables: Tables) -> None:
    """Raises a `ValueError` unless labels are what their tasks may have; counts contradictions that are kept."""
    engine, events = work.engine, tables.events
    labels = events.select("user", "title", *(events[inside(task)].name(task) for task in tables.tasks))
    check_labels(engine, labels, tables.tasks)
    if work.options["low_ratings"] == "negatives" and not tables.has_ratings:
        raise ValueError(
            '`low_ratings="negatives"` must be left out unless the first task has a threshold, such as '
            f"'column>=4' in `tasks`. Received: {dict(work.logs.tasks)}"
        )
    refuse = work.options["contradictions"] == "refuse"
    for task, count in count_contradictions(engine, labels, tables.after, refuse=refuse).items():
        before = tables.after[task]
        work.warn(count, f"events of {task!r} have no {before!r}; heads for cascades train them as 0")


def split_events(work: Work, events: ibis.Table) -> ibis.Table:
    """The events on the clock that nobody sees, where the split is given or there are no times."""
    engine, seed = work.engine, work.options["seed"]
    if work.is_given:
        rows_of_split = holdout.check_splits(engine, events, work.logs.split_column)
        if "validation" not in rows_of_split:
            events = holdout.draw_validation(events, seed)
            drawn = engine.execute((events.row_split == "validation").sum())
            work.warn(drawn, "training rows were drawn for validation, as the split has no rows for it")
    if not work.is_drawn:
        return events
    events = holdout.with_clock(
        engine,
        events,
        seed=seed,
        fractions=work.fractions,
        is_given=work.is_given,
        has_times=work.logs.has_times,
    )
    events = engine.view(events)
    if work.is_given and work.logs.has_times:
        early = holdout.count_early_tests(engine, events)
        work.warn(early, "test rows are from before the last training row: training knows what came after them")
    return events


def count_events(work: Work, log: CheckedLog) -> dict[str, Any]:
    """Counts of all events, and the first and the last time."""
    rows, label = log.joined, log.joined[log.label]
    return work.engine.rows(
        rows.aggregate(
            events=rows.count(),
            incomplete=(rows.user.isnull() | rows.title.isnull() | rows.time.isnull()).sum(),
            with_title=rows.title.notnull().sum(),
            unknown=(rows.title.notnull() & rows.title_row.isnull()).sum(),
            zeros=(label == 0.0).sum(),
            unlabelled=label.isnull().sum(),
            events_of_task=discovery.is_event(rows, log.label).sum(),
            first=rows.time.min(),
            last=rows.time.max(),
        )
    )[0]


def check_counts(work: Work, log: CheckedLog) -> None:
    """Raises a `ValueError` where nothing is left of the events, and warns of what is left out."""
    counts, events, titles = log.counts, log.tables.events, log.titles
    if counts["first"] is None:
        raise ValueError(f"`events` must have rows with a time. Received: {counts['events']} rows, all without one")
    if counts["unknown"] == counts["with_title"] and work.logs.titles is not None:
        refuse_mismatch(work.engine, {"events": events, "titles": titles}, "title", log.tables.id_types["title"])
    if log.tables.has_ratings and not counts["events_of_task"]:
        column = next(iter(work.logs.tasks.values()))
        raise ValueError(
            f"The first task must have rows that reach its threshold. Received: {column!r}, which none of "
            f"{counts['zeros']} rated events does"
        )
    if work.options["examples"] == "impressions" and not log.has_zeros:
        raise ValueError(
            '`examples="impressions"` (`--examples impressions`) must have rows of what was shown and not taken, whose '
            f"first task is 0. Received: {log.tasks}, of which {next(iter(log.tasks))!r} is 0 in none of "
            f"{counts['events']} rows"
        )
    work.warn(counts["incomplete"], "events without user, title or time were dropped")
    hint = work.hint(events.anti_join(titles, "title"), titles, "title") if counts["unknown"] else ""
    work.warn(counts["unknown"], f"events of titles that are not in the titles table were dropped{hint}")
    work.warn(counts["unlabelled"], "events without a label of the first task were left out of the examples")
    if not work.logs.has_times:
        work.warnings.append("the log has no times: nothing is known of the order of events, and history is drawn")

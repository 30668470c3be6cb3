"""Reads and checks the tables of a service's log: any column names in, the words of this package out."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import dataclasses
import os
import re
import zoneinfo
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from tfmtr.checks import check_choice, nearest
from tfmtr.datasets.column_types import header_hint
from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.features import fits
from tfmtr.datasets.holdout import split_word
from tfmtr.datasets.homes import EVERYWHERE
from tfmtr.datasets.ids import as_id
from tfmtr.datasets.labels import parse_label
from tfmtr.datasets.logs import Logs
from tfmtr.datasets.names import inside
from tfmtr.datasets.reading import read_table
from tfmtr.datasets.report import counted
from tfmtr.datasets.times import as_time, check_time_format

LEAST_MEMORY = 100_000_000


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tables of a log as Ibis expressions in the words of this package.

    Columns that the user brings have the names that `tfmtr.datasets.names.inside` gives them.

    Args:
        events: `user`, `title` (text), `time` (timestamp, UTC), one float column a task and the `training` columns;
            `territory` (text) where `users` has none, see `find_homes`; `row_split` where the split is given; and
            `request` (text) where a column says which rows are of one list.
        users: `user`, `territory` (text) and the extra columns.
        titles: `title`, `name` (text) and the extra columns.
        tasks: `{task: kind}`, the first task first.
        after: `{task: the task it follows}`.
        has_ratings: Whether the first task has a threshold: rows below it are explicit ratings, no impressions.
        training: `{name: kind}` of the events' columns that are known in training only, `"number"` or `"id"`.
        context: The same of those that a request has, too.
        availability: `title`, `territory`, `start`, `end`, or `None`.
        id_types: `{"user", "title" or "territory": {table: type that its ids had}}`.
    """

    events: ibis.Table
    users: ibis.Table
    titles: ibis.Table
    tasks: Mapping[str, str]
    after: Mapping[str, str] = dataclasses.field(default_factory=dict)
    has_ratings: bool = False
    training: Mapping[str, str] = dataclasses.field(default_factory=dict)
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    availability: ibis.Table | None = None
    id_types: Mapping[str, Mapping[str, dt.DataType | None]] = dataclasses.field(  # pyright: ignore[reportGeneralTypeIssues]
        default_factory=dict
    )


def read_tables(engine: Engine, logs: Logs, warnings: list[str] | None = None) -> Tables:
    """Opens the tables that `logs` names; nothing is read yet but schemas and first rows.

    Args:
        engine: An `Engine`.
        logs: A `Logs`.
        warnings: List that what was left out or is worth a look is added to, table by table; `None` for nothing.

    Returns:
        A `Tables`.

    Raises:
        ValueError: If a table is missing, empty, damaged, or lacks a column, or if a column has a type
            that cannot be what `logs` says it is.
    """
    names = {key: logs.columns.get(key, key) for key in ("user", "title", "territory", "time", "name")}
    if logs.time_format is not None:
        check_time_format(logs.time_format)
    warnings = [] if warnings is None else warnings

    def read(path: Path, argument: str, ids: Collection[str]) -> ibis.Table:
        table, found = read_table(engine, path, argument, ids=ids)
        warnings.extend(found)
        return table

    users, titles = logs.users, logs.titles
    if users is not None:
        users = read(users, "users", [names["user"], names["territory"]])
    if titles is not None:
        titles = read(titles, "titles", [names["title"], names["name"]])
    context = {name: as_training(text) for name, text in logs.context.items()}
    codes = [t.partition(":")[0] for t in (*logs.training.values(), *context.values()) if t.endswith(":id")]
    lives = users is not None and names["territory"] in users.columns
    codes += [] if lives else [names["territory"]]
    codes += [logs.columns["request"]] if "request" in logs.columns else []
    events = read(logs.events, "events", [names["user"], names["title"], *codes])
    owner = "users" if lives else "events" if names["territory"] in events.columns else None
    if owner is None and "territory" in logs.columns:
        argument, table = ("events", events) if users is None else ("users", users)
        check_columns(table, argument, [names["territory"]])
    if users is not None:
        check_columns(users, "users", [names["user"]])
    if owner == "events" and users is not None and "territory" in users.columns:
        raise ValueError(
            f"Column {names['territory']!r} of `events` is the territory, so no column of `users` may be called "
            f"'territory'; rename it, or name it in `columns`. Received: columns={list(users.columns)}"
        )
    if titles is not None:
        check_columns(titles, "titles", [names["title"], *([names["name"]] if "name" in logs.columns else [])])
    elif "name" in logs.columns:
        raise ValueError(
            "`titles` must be given where `columns` names a column of its own, the title's `name`; leave that out for "
            f"titles without text. Received: name={names['name']!r}"
        )
    check_columns(events, "events", [names["user"], names["title"]])
    if logs.has_times:
        check_columns(events, "events", [names["time"]], "; or say `has_times=False` (`--no-times`)")
        time = as_time(engine, events, "events", names["time"], logs.time_format)
    else:
        time = ibis.null("timestamp")
    own = {}
    if logs.split_column is not None:
        check_columns(events, "events", [logs.split_column])
        own["row_split"] = split_word(events[logs.split_column])
    if "request" in logs.columns:
        check_columns(events, "events", [logs.columns["request"]])
        own["request"] = as_id(engine, events, "events", logs.columns["request"])
    tasks, after, labels, has_ratings = read_labels(engine, events, logs.tasks, [names["user"], names["title"]])
    training, known = read_training(engine, events, logs.training)
    context, of_requests = read_training(engine, events, context, "context")
    availability, offered = None, {"title": None, "territory": None}
    if logs.availability is not None and logs.availability != "anywhere":
        availability, found, offered = read_availability(
            engine, logs.availability, logs.time_format, territory=None if owner else EVERYWHERE
        )
        warnings.extend(found)
    places = {"territory": as_id(engine, events, "events", names["territory"])} if owner == "events" else {}
    log = events.select(
        user=as_id(engine, events, "events", names["user"]),
        title=as_id(engine, events, "events", names["title"]),
        time=time,
        **own,
        **places,
        **{inside(name): column for name, column in (labels | known | of_requests).items()},
    )
    if users is None:
        people = log.filter(log.user.notnull()).select("user").distinct()
    else:
        keys = {"user": names["user"], **({"territory": names["territory"]} if owner == "users" else {})}
        people = rename_ids(engine, users, "users", keys)
    if owner is None:
        people = people.mutate(territory=ibis.literal(EVERYWHERE))
        warnings.append(f"no table says where users live: all are of one territory, {EVERYWHERE!r}")
    if titles is None:
        catalogue = log.filter(log.title.notnull()).select("title").distinct().mutate(name=lambda t: t.title)
    else:
        catalogue = rename_ids(engine, titles, "titles", {"title": names["title"], "name": names["name"]})

    def type_of(table: ibis.Table | None, key: str) -> dt.DataType | None:  # pyright: ignore[reportGeneralTypeIssues]
        return None if table is None or names[key] not in table.columns else table[names[key]].type()

    tables = Tables(
        events=log,
        users=people,
        titles=catalogue,
        tasks=tasks,
        after=after,
        has_ratings=has_ratings,
        training=training,
        context=context,
        availability=availability,
        id_types={
            "user": {"events": type_of(events, "user"), "users": type_of(users, "user")},
            "title": {
                "events": type_of(events, "title"),
                "titles": type_of(events if titles is None else titles, "title"),
                "availability": offered["title"],
            },
            "territory": {
                "users": type_of(events if owner == "events" else users, "territory"),
                "availability": offered["territory"],
            },
        },
    )
    tables = localise(engine, tables, logs.time_zones) if logs.time_zones else tables
    views = {name: engine.view(getattr(tables, name)) for name in ("events", "users", "titles")}
    return dataclasses.replace(tables, **views)


def localise(engine: Engine, tables: Tables, time_zones: Mapping[str, str]) -> Tables:
    """The tables with the times of events and availability as the clocks of their territories show them.

    Args:
        engine: An `Engine`.
        tables: A `Tables`.
        time_zones: `{territory: name of a zone, such as "Europe/Berlin"}`; UTC for others.

    Returns:
        A `Tables`.

    Raises:
        ValueError: If a zone is unknown.
    """
    known = zoneinfo.available_timezones() - {"localtime"}
    unknown = {territory: zone for territory, zone in time_zones.items() if zone not in known}
    if unknown:
        raise ValueError(
            '`time_zones` must be names of the tz database, such as "Europe/Berlin". Received: '
            f"{dict(sorted(unknown.items())[:3])}"
        )
    zones = ibis.memtable({"place": list(time_zones), "zone": list(time_zones.values())})

    def shift(table: ibis.Table, *columns: str) -> ibis.Table:
        table = table.left_join(zones, table.territory == zones.place)
        zone = table.zone.fill_null("UTC")
        moved = {name: engine.local_time(zone, table[name]) for name in columns}
        return table.mutate(**moved).drop("place", "zone")

    availability = tables.availability
    if availability is not None:
        availability = shift(availability, "start", "end")
    if "territory" in tables.events.columns:
        return dataclasses.replace(tables, events=shift(tables.events, "time"), availability=availability)
    homes = tables.users.filter(tables.users.user.notnull()).select(owner="user", territory="territory")
    homes = homes.distinct(on="owner")  # a user with two rows is refused later, by name
    events = shift(tables.events.left_join(homes, tables.events.user == homes.owner), "time")
    return dataclasses.replace(tables, events=events.drop("owner", "territory"), availability=availability)


def check_columns(table: ibis.Table, argument: str, columns: Iterable[str], instead: str = "") -> None:
    """Raises a `ValueError` that names the nearest column unless the table has all `columns`."""
    for column in columns:
        if column not in table.columns:
            hint = nearest(column, table.columns) or header_hint(table.columns)
            raise ValueError(
                f"`{argument}` must have the column {column!r}; name another one in `columns` or `tasks`{instead}."
                f"{hint} Received: columns={list(table.columns)}"
            )


def rename_ids(engine: Engine, table: ibis.Table, argument: str, names: Mapping[str, str]) -> ibis.Table:
    """The table with its id columns renamed and cast to text; `name` may be absent and is then the title's id.

    Raises:
        ValueError: If another column already has one of the new names.
    """
    columns = {new: old for new, old in names.items() if old in table.columns}
    extra = [name for name in table.columns if name not in columns.values()]
    for new, old in columns.items():
        if new in extra:
            raise ValueError(
                f"Column {old!r} of `{argument}` is the {new}, so no other column may be called {new!r}; "
                f"rename it. Received: columns={list(table.columns)}"
            )
    ids = {new: as_id(engine, table, argument, old) for new, old in columns.items()}
    if "name" in names:
        ids["name"] = ids["name"].fill_null(ids["title"]) if "name" in ids else ids["title"]
    return table.select(**ids, **{inside(name): table[name] for name in extra})


def read_labels(
    engine: Engine, events: ibis.Table, tasks: Mapping[str, str], keys: Iterable[str]
) -> tuple[dict[str, str], dict[str, str], dict[str, ir.Value], bool]:
    """Kinds and label columns of the tasks, and what follows what.

    Args:
        engine: An `Engine`.
        events: The events table as it came.
        tasks: `{task: text}`, see `tfmtr.datasets.labels.parse_label`; empty for one task `event` that is always 1.
        keys: Columns that name a row in messages.

    Returns:
        `({task: kind}, {task: the task it follows}, {task: Ibis float value}, whether the first has a threshold)`.

    Raises:
        ValueError: If a task's text is none, or its column is missing or no number.
    """
    if not tasks:
        return {"event": "binary"}, {}, {"event": ibis.literal(1).cast("float64")}, False
    found = {task: parse_label(task, text, tasks, events.columns) for task, text in tasks.items()}
    for label in found.values():
        check_columns(events, "events", [label.column])
        dtype = events[label.column].type()
        if not (dtype.is_numeric() or (dtype.is_boolean() and label.comparison is None)):
            shown = list(dict.fromkeys([*keys, label.column]))
            rows = events.filter(events[label.column].notnull()).select(*shown)
            if dtype.is_string():  # those that are no numbers, unless all are
                rows = rows.order_by(rows[label.column].try_cast("float64").notnull(), *shown)
            what = "a number or boolean; write it so, such as 1 and 0 for yes and no"
            if label.comparison is not None:
                what = "a number to be compared with a threshold; write it so, such as 4 or 3.5"
            raise ValueError(
                f"Label column {label.column!r} of `events` must be {what}. Received: {dtype}, such as "
                f"{engine.rows(rows.limit(3))}"
            )
    return (
        {task: label.kind for task, label in found.items()},
        {task: label.after for task, label in found.items() if label.after is not None},
        {task: label.of(events[label.column]) for task, label in found.items()},
        next(iter(found.values())).comparison is not None,
    )


def read_training(
    engine: Engine, events: ibis.Table, training: Mapping[str, str], what: str = "training"
) -> tuple[dict[str, str], dict[str, ir.Value]]:
    """Kinds and columns of what is known in training only, or of a request.

    Args:
        engine: An `Engine`.
        events: The events table as it came.
        training: `{name: "column"}` or `{name: "column:id"}`.
        what: `"training"` or `"context"`, for messages.

    Returns:
        `({name: kind}, {name: Ibis value})`, float for numbers and text for ids.

    Raises:
        ValueError: If a kind is unknown, or a column is missing or no number.
    """
    kinds, columns = {}, {}
    for name, text in training.items():
        column, _, kind = text.partition(":")
        kinds[name] = kind or "number"
        check_choice("kind", kinds[name], ("number", "id"), of=f" of {what} column {name!r}")
        check_columns(events, "events", [column])
        dtype = events[column].type()
        if kinds[name] == "number" and not dtype.is_numeric():
            raise ValueError(
                f"Column {column!r} of `events` must be a number; for a category say "
                f"'{column}{':id' if what == 'training' else ''}'. Received: {dtype}"
            )
        if kinds[name] == "number":
            columns[name] = events[column].cast("float64")
        else:
            is_flag = dtype.is_boolean()
            columns[name] = events[column].cast("string") if is_flag else as_id(engine, events, "events", column)
    return kinds, columns


def as_training(text: str) -> str:
    """A context column as `read_training` reads it: a category unless it says that it is a number.

    >>> as_training("tab"), as_training("hour:number"), as_training("hour:text")
    ('tab:id', 'hour:number', 'hour:text')
    """
    return text if ":" in text else f"{text}:id"


def read_availability(
    engine: Engine, path: str | os.PathLike, time_format: str | None = None, territory: str | None = None
) -> tuple[ibis.Table, list[str], dict[str, dt.DataType]]:
    """The availability table with `title`, `territory` as text and `start`, `end` as timestamps or null.

    Where the log knows one `territory` only, the table need not name it.

    Returns:
        `(table, warnings, types)`: the types are those that `title` and `territory` had, by their names.
    """
    table, warnings = read_table(engine, path, "availability", ids=["title", "territory"])
    if territory is not None and "territory" not in table.columns:
        table = table.mutate(territory=ibis.literal(territory))
    check_columns(table, "availability", ["title", "territory"])
    bounds = {
        bound: as_time(engine, table, "availability", bound, time_format)
        if bound in table.columns
        else ibis.null("timestamp")
        for bound in ("start", "end")
    }
    ids = {name: as_id(engine, table, "availability", name) for name in ("title", "territory")}
    unused = [name for name in table.columns if name not in (*ids, *bounds)]
    if unused:
        warnings.append(
            counted(len(unused), f"columns of availability are not used: {unused}; its bounds are `start` and `end`")
        )
    return table.select(**ids, **bounds), warnings, {name: table[name].type() for name in ids}


def is_outside_range(label: ir.Value, kind: str) -> ir.BooleanValue:
    """Whether a label is none that its task may have: 0, 1 or null (binary), finite or null (regression)."""
    return ~(label.isin([0.0, 1.0]) if kind == "binary" else fits(label))


def check_labels(engine: Engine, events: ibis.Table, tasks: Mapping[str, str]) -> None:
    """Raises a `ValueError` with the count and the first rows unless all labels are in their range."""
    outside = {
        f"task_{place}": is_outside_range(events[task], kind) for place, (task, kind) in enumerate(tasks.items())
    }
    counts = engine.rows(events.aggregate(**{place: is_bad.sum() for place, is_bad in outside.items()}))[0]
    for (place, is_bad), (task, kind) in zip(outside.items(), tasks.items(), strict=True):
        count = counts[place]
        if count:
            bad = events.filter(is_bad)
            first = engine.rows(bad.select("user", "title", task).order_by("user", "title", task).limit(3))
            expected = (
                "0, 1 or null; for ratings say 'column>=4', for other numbers 'column:regression' in `tasks`"
                if kind == "binary"
                else "finite or null, also as a float32; mend the rows, or leave their label empty"
            )
            raise ValueError(
                f"Labels of the {kind} task {task!r} must be {expected}. Received: {count} others, first {first}"
            )


def count_contradictions(
    engine: Engine, events: ibis.Table, after: Mapping[str, str], *, refuse: bool
) -> dict[str, int]:
    """`{task: number of events with it and without the one it follows}`, such as purchases without a click.

    Raises:
        ValueError: If there are any and `refuse` is set, with the first rows.
    """
    counts = {}
    for task, before in after.items():
        bad = events.filter(events[task] == 1.0, events[before] == 0.0)
        counts[task] = engine.execute(bad.count())
        if counts[task] and refuse:
            columns = ("user", "title", before, task)
            first = engine.rows(bad.select(*columns).order_by(*columns).limit(3))
            raise ValueError(
                f"Events of the task {task!r}, which is after {before!r}, must have a {before!r} too; mend the log, or "
                f'pass `contradictions="keep"` (`--contradictions keep`) to train them as 0. Received: {counts[task]} '
                f"without, first {first}"
            )
    return counts


def check_unique(engine: Engine, table: ibis.Table, key: str, argument: str) -> None:
    """Raises a `ValueError` with the count and the first three keys unless every key has one row."""
    repeated = table.group_by(key).aggregate(rows=table.count()).filter(lambda t: t.rows > 1)
    count = engine.execute(repeated.count())
    if count:
        first = [row[key] for row in engine.rows(repeated.order_by(key).limit(3))]
        raise ValueError(
            f"`{argument}` must have one row for each {key}; drop the others. Received: {count} {key}s with several "
            f"rows, first {first}"
        )


def parse_memory(text: str) -> int:
    """Bytes of a size such as `"4GB"`.

    Raises:
        ValueError: If the text is no number with MB or GB, or less than any log needs.

    Example:
    >>> parse_memory("4GB")
    4000000000
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MG])i?B\s*", text, flags=re.IGNORECASE)
    if not match:
        raise ValueError(f'`memory_limit` must be a number with MB or GB, such as "4GB". Received: {text!r}')
    size = int(float(match[1]) * (10**6 if match[2].upper() == "M" else 10**9))
    if size < LEAST_MEMORY:
        raise ValueError(f"`memory_limit` must be at least {LEAST_MEMORY // 10**6}MB. Received: {text!r}")
    return size

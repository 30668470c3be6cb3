"""Reads and checks the tables of a service's log: any column names in, the words of this package out."""

import dataclasses
import difflib
import re
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr.datasets.features import is_finite
from tfmtr.datasets.names import inside
from tfmtr.schema import check_choice

KINDS = ("binary", "regression")
LARGEST_WHOLE = 10**15  # numbers below it are written with all digits
LATEST_SECOND = 4_102_444_800  # 2100; larger numbers are milliseconds taken for seconds


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tables of a log as Ibis expressions in the words of this package.

    Columns that the user brings have the names that `tfmtr.datasets.names.inside` gives them.

    Args:
        events: `user`, `title` (text), `time` (timestamp, UTC), one float column a task and the `training` columns.
        users: `user`, `territory` (text) and the extra columns.
        titles: `title`, `name` (text) and the extra columns.
        tasks: `{task: kind}`, the first task first.
        after: `{task: the task it follows}`.
        training: `{name: kind}` of the events' columns that are known in training only, `"number"` or `"id"`.
        availability: `title`, `territory`, `start`, `end`, or `None`.
    """

    events: Any
    users: Any
    titles: Any
    tasks: Mapping[str, str]
    after: Mapping[str, str] = dataclasses.field(default_factory=dict)
    training: Mapping[str, str] = dataclasses.field(default_factory=dict)
    availability: Any = None


def read_tables(engine, logs):
    """Opens the tables that `logs` names; nothing is read yet but schemas and first rows.

    Args:
        engine: An `Engine`.
        logs: A `Logs`.

    Returns:
        A `Tables`.

    Raises:
        ValueError: If a table is missing, empty, damaged, or lacks a column, or if a column has a type
            that cannot be what `logs` says it is.
    """
    names = {key: logs.columns.get(key, key) for key in ("user", "title", "territory", "time", "name")}
    users = read_table(engine, logs.users, "users", text=[names["user"], names["territory"]])
    titles = read_table(engine, logs.titles, "titles", text=[names["title"], names["name"]])
    events = read_table(engine, logs.events, "events", text=[names["user"], names["title"]])
    check_columns(users, "users", [names["user"], names["territory"]])
    check_columns(titles, "titles", [names["title"], *([names["name"]] if "name" in logs.columns else [])])
    tasks, after, labels = read_labels(events, logs.tasks)
    training, known = read_training(events, logs.training, tasks)
    check_columns(events, "events", [names["user"], names["title"], names["time"]])
    availability = None
    if logs.availability is not None and logs.availability != "anywhere":
        availability = read_availability(engine, logs.availability)
    tables = Tables(
        events=events.select(
            user=as_id(events, "events", names["user"]),
            title=as_id(events, "events", names["title"]),
            time=as_time(events, "events", names["time"]),
            **{inside(name): column for name, column in (labels | known).items()},
        ),
        users=rename_ids(users, "users", {"user": names["user"], "territory": names["territory"]}),
        titles=rename_ids(titles, "titles", {"title": names["title"], "name": names["name"]}),
        tasks=tasks,
        after=after,
        training=training,
        availability=availability,
    )
    return localise(engine, tables, logs.time_zones) if logs.time_zones else tables


def localise(engine, tables, time_zones):
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
    known = zoneinfo.available_timezones()
    unknown = {territory: zone for territory, zone in time_zones.items() if zone not in known}
    if unknown:
        raise ValueError(
            '`time_zones` must be names of the tz database, such as "Europe/Berlin". Received: '
            f"{dict(sorted(unknown.items())[:3])}"
        )
    zones = ibis.memtable({"place": list(time_zones), "zone": list(time_zones.values())})

    def shift(table, *columns):
        table = table.left_join(zones, table.territory == zones.place)
        zone = table.zone.fill_null("UTC")
        moved = {name: engine.local_time(zone, table[name]) for name in columns}
        return table.mutate(**moved).drop("place", "zone")

    homes = tables.users.filter(tables.users.user.notnull()).select(owner="user", territory="territory")
    homes = homes.distinct(on="owner")  # a user with two rows is refused later, by name
    events = shift(tables.events.left_join(homes, tables.events.user == homes.owner), "time")
    availability = tables.availability
    if availability is not None:
        availability = shift(availability, "start", "end")
    return dataclasses.replace(tables, events=events.drop("owner", "territory"), availability=availability)


def read_table(engine, path, argument, *, text=()):
    """One Parquet or CSV file, or a folder of them, as an Ibis table.

    Args:
        engine: An `Engine`.
        path: File or folder.
        argument: What the table is called in messages.
        text: Columns that a CSV must not turn into numbers (an id `007` stays `007`).

    Returns:
        Ibis table.

    Raises:
        ValueError: If there is no such file, it is empty or it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(
            f"`{argument}` must be a Parquet or CSV file or a folder of them. Received: {path}, which is missing"
        )
    files = table_files(path)
    if not files:
        raise ValueError(
            f"`{argument}` must be a file or folder of .parquet, .csv or .csv.gz. Received: {path}, which has none"
        )
    for file in files:
        if file.stat().st_size == 0:
            raise ValueError(
                f"`{argument}` must not hold an empty file; delete or rewrite it. Received: {file} of 0 bytes"
            )
    is_parquet = files[0].suffix == ".parquet"
    if is_parquet:
        check_parquet(files, argument)
    try:
        table = engine.read_parquet(files) if is_parquet else engine.read_csv(files, text)
        is_empty = engine.execute(table.limit(1).count()) == 0
    except engine.errors as error:
        raise ValueError(f"`{argument}` must be readable as one table. Received: {path}: {error}") from error
    table = table.drop(*(name for name in table.columns if name.startswith("__index_level_")))  # pandas writes them
    if is_empty:
        raise ValueError(f"`{argument}` must have at least one row. Received: {path} with 0 rows")
    return table


def table_files(path):
    """Sorted Parquet files of a folder, or its CSV files if it has no Parquet; a file is its own list."""
    if path.is_file():
        return [path]
    return sorted(path.rglob("*.parquet")) or sorted([*path.rglob("*.csv"), *path.rglob("*.csv.gz")])


def check_parquet(files, argument):
    """Raises a `ValueError` that names the file unless all are complete Parquet files with the same columns."""
    columns = None
    for file in files:
        try:
            names = set(pq.read_schema(file).names)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(
                f"`{argument}` must be complete Parquet files; copy or write the file again. Received: {file}: {error}"
            ) from error
        columns = columns or names
        if names != columns:
            raise ValueError(
                f"`{argument}` must have the same columns in every file. Received: {file} differs from {files[0]} in "
                f"{sorted(names ^ columns)}"
            )


def check_columns(table, argument, columns):
    """Raises a `ValueError` that names the nearest column unless the table has all `columns`."""
    for column in columns:
        if column not in table.columns:
            near = difflib.get_close_matches(column, table.columns, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"`{argument}` must have the column {column!r}; name another one in `columns` or `tasks`.{hint} "
                f"Received: columns={list(table.columns)}"
            )


def as_id(table, argument, column):
    """The column as text.

    Raises:
        ValueError: If it holds lists, times or other values that name nothing.
    """
    dtype = table[column].type()
    if not (dtype.is_string() or dtype.is_integer() or dtype.is_uuid() or dtype.is_floating() or dtype.is_decimal()):
        raise ValueError(f"Column {column!r} of `{argument}` must be text or a number. Received: {dtype}")
    value = table[column]
    if dtype.is_floating():  # engines write large numbers differently, such as 12345678.0 and 1.2345678E7
        is_whole = (value == value.floor()) & (value.abs() < LARGEST_WHOLE)
        return is_whole.ifelse(is_whole.ifelse(value, 0.0).cast("int64").cast("string") + ".0", value.cast("string"))
    return value.cast("string")


def as_time(table, argument, column):
    """The column as a timestamp in UTC.

    Raises:
        ValueError: If it is neither a timestamp, a date, nor seconds since 1970.
    """
    value, dtype = table[column], table[column].type()
    if dtype.is_timestamp() or dtype.is_date():
        return value.cast("timestamp")
    if not (dtype.is_integer() or dtype.is_floating()):
        raise ValueError(
            f"Column {column!r} of `{argument}` must be a timestamp, a date or seconds since 1970 (UTC); "
            f"convert it before. Received: {dtype}"
        )
    latest = value.max().execute()
    if latest is not None and latest > LATEST_SECOND:
        raise ValueError(
            f"Column {column!r} of `{argument}` must be seconds since 1970, not milliseconds; divide it. "
            f"Received: {latest}"
        )
    if dtype.is_integer():
        return value.as_timestamp("s")
    return ibis.timestamp("1970-01-01 00:00:00") + (value * 1000).round().cast("int64").as_interval("ms")


def rename_ids(table, argument, names):
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
    ids = {new: as_id(table, argument, old) for new, old in columns.items()}
    if "name" in names:
        ids["name"] = ids["name"].fill_null(ids["title"]) if "name" in ids else ids["title"]
    return table.select(**ids, **{inside(name): table[name] for name in extra})


def read_labels(events, tasks):
    """Kinds and label columns of the tasks, and what follows what.

    Args:
        events: The events table as it came.
        tasks: `{task: "column"}`, `{task: "column:regression"}` or `{task: "column:after=task"}`; empty for one task
            `event` that is always 1.

    Returns:
        `({task: kind}, {task: the task it follows}, {task: Ibis float value})`.

    Raises:
        ValueError: If a task's kind is unknown, it follows no task, or its column is missing or no number.
    """
    if not tasks:
        return {"event": "binary"}, {}, {"event": ibis.literal(1).cast("float64")}
    kinds, after, labels = {}, {}, {}
    for task, text in tasks.items():
        column, _, kind = text.partition(":")
        if kind.startswith("after="):
            kind, after[task] = "binary", kind.removeprefix("after=")
            check_choice(f"after` of task `{task}", after[task], [name for name in tasks if name != task])
        kind = kind or "binary"
        if kind not in KINDS:
            raise ValueError(
                f"Task {task!r} must be one of the kinds {list(KINDS)}, or 'after=' and the task it follows. "
                f"Received: {text!r}"
            )
        check_columns(events, "events", [column])
        dtype = events[column].type()
        if not (dtype.is_numeric() or dtype.is_boolean()):
            raise ValueError(f"Label column {column!r} of `events` must be a number or boolean. Received: {dtype}")
        kinds[task] = kind
        labels[task] = (events[column].cast("int8") if dtype.is_boolean() else events[column]).cast("float64")
    return kinds, after, labels


def read_training(events, training, tasks):
    """Kinds and columns of what is known in training only.

    Args:
        events: The events table as it came.
        training: `{name: "column"}` or `{name: "column:id"}`.
        tasks: The tasks' names.

    Returns:
        `({name: kind}, {name: Ibis value})`, float for numbers and text for ids.

    Raises:
        ValueError: If a kind is unknown, a name is taken, or a column is missing or no number.
    """
    kinds, columns = {}, {}
    for name, text in training.items():
        column, _, kind = text.partition(":")
        kinds[name] = kind or "number"
        check_choice(f"kind` of training column `{name}", kinds[name], ("number", "id"))
        if name in ("user", "title", "time", *tasks):
            raise ValueError(f"A training column must not be named like an id or a task. Received: {name!r}")
        check_columns(events, "events", [column])
        dtype = events[column].type()
        if kinds[name] == "number" and not dtype.is_numeric():
            raise ValueError(
                f"Column {column!r} of `events` must be a number; for a category say '{column}:id'. Received: {dtype}"
            )
        columns[name] = as_id(events, "events", column) if kinds[name] == "id" else events[column].cast("float64")
    return kinds, columns


def read_availability(engine, path):
    """The availability table with `title`, `territory` as text and `start`, `end` as timestamps or null."""
    table = read_table(engine, path, "availability", text=["title", "territory"])
    check_columns(table, "availability", ["title", "territory"])
    bounds = {
        bound: as_time(table, "availability", bound) if bound in table.columns else ibis.null("timestamp")
        for bound in ("start", "end")
    }
    ids = {name: as_id(table, "availability", name) for name in ("title", "territory")}
    return table.select(**ids, **bounds)


def is_outside_range(label, kind):
    """Whether a label is none that its task may have: 0, 1 or null (binary), finite or null (regression)."""
    return ~(label.isin([0.0, 1.0]) if kind == "binary" else is_finite(label))


def check_labels(engine, events, tasks):
    """Raises a `ValueError` with the count and the first rows unless all labels are in their range."""
    for task, kind in tasks.items():
        bad = events.filter(is_outside_range(events[task], kind))
        count = engine.execute(bad.count())
        if count:
            first = engine.rows(bad.select("user", "title", task).order_by("user", "title", task).limit(3))
            expected = "0, 1 or null" if kind == "binary" else "finite or null"
            raise ValueError(
                f"Labels of the {kind} task {task!r} must be {expected}; for other numbers say "
                f"'column:regression' in `tasks`. Received: {count} others, first {first}"
            )


def count_contradictions(engine, events, after, *, refuse):
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


def check_unique(engine, table, key, argument):
    """Raises a `ValueError` with the count and the first three keys unless every key has one row."""
    repeated = table.group_by(key).aggregate(rows=table.count()).filter(lambda t: t.rows > 1)
    count = engine.execute(repeated.count())
    if count:
        first = [row[key] for row in engine.rows(repeated.order_by(key).limit(3))]
        raise ValueError(
            f"`{argument}` must have one row for each {key}; drop the others. Received: {count} {key}s with several "
            f"rows, first {first}"
        )


def parse_memory(text):
    """Bytes of a size such as `"4GB"`.

    Raises:
        ValueError: If the text is no number with MB or GB.

    Example:
    >>> parse_memory("4GB")
    4000000000
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MG])i?B\s*", text, flags=re.IGNORECASE)
    if not match:
        raise ValueError(f'`memory_limit` must be a number with MB or GB, such as "4GB". Received: {text!r}')
    return int(float(match[1]) * (10**6 if match[2].upper() == "M" else 10**9))

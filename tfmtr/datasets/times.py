"""Times of a log as timestamps in UTC: real ones, seconds since 1970, or text; nothing about them is guessed."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import datetime
import itertools
import math
import re
from collections.abc import Callable, Sequence

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.report import counted

UTC = dt.Timestamp(timezone="UTC")
EARLIEST = datetime.datetime(1980, 1, 1)  # no service's log ends before it
EARLIEST_SECOND = int(EARLIEST.replace(tzinfo=datetime.UTC).timestamp())
FIRST, LAST = datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)
LATEST_SECOND = 4_102_444_800  # 2100; larger numbers are no seconds
UNITS = {  # seconds in one
    "days": 86_400,
    "hours": 3_600,
    "minutes": 60,
    "thousands of seconds": 1_000,
    "milliseconds": 1e-3,
    "microseconds": 1e-6,
    "nanoseconds": 1e-9,
}
ISO = r"^\s*[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"
DATES = r"^\s*([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]([0-9]{4})"  # days and months, in an order that the values must tell
CLOCK = r"(?:[ T,]+([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?)?\s*$"
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DIRECTIVES = {  # of `time_format`
    "d": "([0-9]{1,2})",
    "m": "([0-9]{1,2})",
    "b": f"((?i:{'|'.join(name[:3] for name in MONTHS)}))",
    "B": f"((?i:{'|'.join(MONTHS)}))",
    "Y": "([0-9]{4})",
    "y": "([0-9]{2})",
    "H": "([0-9]{1,2})",
    "I": "([0-9]{1,2})",
    "p": "([AaPp][Mm])",
    "M": "([0-9]{1,2})",
    "S": "([0-9]{1,2})",
    "f": "([0-9]+)",
}
FEW = 100  # most events that may lie far from all others and are then worth a word,
SHARE = 0.005  # and at most this share of all (or ten)


def as_time(engine: Engine, table: ibis.Table, argument: str, column: str, time_format: str | None = None) -> ir.Value:
    """The column as a timestamp in UTC.

    Args:
        engine: An `Engine`.
        table: Ibis table.
        argument: What the table is called in messages.
        column: Name of the column.
        time_format: How text is written that is not year, month, day; see `check_time_format`.

    Raises:
        ValueError: If it is neither a timestamp, a date, text that is one, nor seconds since 1970.
    """
    value, dtype = table[column], table[column].type()
    if dtype.is_timestamp() or dtype.is_date():
        time = _within_years(engine, value.cast("timestamp"), argument, column)
        latest = engine.rows(table.aggregate(latest=time.max()))[0]["latest"]
        if latest is not None and latest < EARLIEST:
            raise ValueError(
                f"Column {column!r} of `{argument}` must be times of a service: the latest is before "
                f"{EARLIEST.year}, as if numbers had been read in the wrong unit. Received: {latest}"
            )
        return time
    if dtype.is_string():
        return _within_years(engine, _from_text(engine, value, argument, column, time_format), argument, column)
    if not (dtype.is_integer() or dtype.is_floating()):
        raise ValueError(
            f"Column {column!r} of `{argument}` must be a timestamp, a date or seconds since 1970 (UTC); "
            f"convert it before. Received: {dtype}"
        )
    _check_unit(engine, value, argument, column)
    if dtype.is_integer():
        return value.as_timestamp("s")
    return ibis.timestamp("1970-01-01 00:00:00") + (value * 1000).round().cast("int64").as_interval("ms")


def _within_years(engine: Engine, time: ir.Value, argument: str, column: str) -> ir.Value:
    """The timestamps, unless one is infinite or of a year that Python does not know.

    Raises:
        ValueError: If there is one.
    """
    rows = time.name("time").as_table()
    count = engine.execute(
        rows.filter((rows.time < ibis.timestamp(str(FIRST))) | (rows.time > ibis.timestamp(str(LAST)))).count()
    )
    if count:
        raise ValueError(
            f"Column {column!r} of `{argument}` must be times of the years 1 to 9999; mend or drop the others. "
            f"Received: {count} others"
        )
    return time


def _check_unit(engine: Engine, value: ir.Value, argument: str, column: str) -> None:
    """Raises a `ValueError` that names the likely unit unless numbers can be seconds since 1970."""
    known = value.cast("float64").name("value").as_table()
    infinite = engine.execute(known.filter(known.value.isin([math.inf, -math.inf])).count())
    if infinite:
        raise ValueError(
            f"Column {column!r} of `{argument}` must be seconds since 1970 (UTC), or empty. "
            f"Received: {infinite} infinite ones"
        )
    known = known.filter(known.value.abs() < math.inf)
    bounds = engine.rows(known.aggregate(low=known.value.min(), high=known.value.max()))[0]
    low, high = bounds["low"], bounds["high"]
    if high is None or EARLIEST_SECOND <= high <= LATEST_SECOND:
        return
    likely = [unit for unit, seconds in UNITS.items() if EARLIEST_SECOND <= high * seconds <= LATEST_SECOND]
    if EARLIEST_SECOND <= low <= LATEST_SECOND:
        likely = []  # only some are not seconds
    elif re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", f"{high:.0f}"):
        likely = ["year, month and day"]
    raise ValueError(
        f"Column {column!r} of `{argument}` must be seconds since 1970 (UTC)"
        + (f"; these look like {' or '.join(likely)}, convert them" if likely else "; mend or drop what is not")
        + f". Received: {_number(low)} to {_number(high)}"
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) < 1e15 else f"{value:g}"


def _from_text(engine: Engine, value: ir.Value, argument: str, column: str, time_format: str | None) -> ir.Value:
    """Text as times: year, month, day in this order, or as `time_format` says, or where the days tell the order."""
    rows = value.name("text").as_table()
    rows = rows.filter(rows.text.notnull(), rows.text != "")
    if time_format is not None:
        given = _reader(*_pattern(time_format))

        def read(text: ir.Value) -> ir.Value:
            return given(text) if time_format.startswith("%Y") else ibis.coalesce(given(text), _read_iso(text))

    elif 2 * engine.execute(rows.text.re_search(ISO).sum().fill_null(0)) >= engine.execute(rows.count()):
        read = _read_iso
    else:
        read = _reader(DATES + CLOCK, _order(engine, rows, argument, column))  # pyright: ignore[reportAssignmentType]
    bad = rows.filter(read(rows.text).isnull())
    count = engine.execute(bad.count())
    if count:
        raise ValueError(
            f"Column {column!r} of `{argument}` must have a time in every row: a timestamp, a date, seconds since "
            "1970 as a number, or text that begins with year, month, day; for another order say `time_format` "
            f'(`--time-format`), such as "%d/%m/%Y %H:%M". Received: {count} others, first {_first(engine, bad)}'
        )
    return read(value)


def _first(engine: Engine, rows: ibis.Table) -> list[str]:
    """The first three different texts."""
    return [row["text"] for row in engine.rows(rows.select("text").distinct().order_by("text").limit(3))]


def _order(engine: Engine, rows: ibis.Table, argument: str, column: str) -> tuple[str, ...]:
    """Which directive each number of dates like 31/12/2024 is, if the days tell it.

    Raises:
        ValueError: If they do not.
    """
    numbers = [rows.text.re_extract(DATES, place).nullif("").cast("int64") for place in (1, 2)]
    greatest = engine.rows(rows.aggregate(first=numbers[0].max(), second=numbers[1].max()))[0]
    is_day = [number is not None and number > 12 for number in (greatest["first"], greatest["second"])]
    if greatest["first"] is not None and is_day[0] == is_day[1]:
        raise ValueError(
            f"Column {column!r} of `{argument}` must say which number is the month; pass `time_format` "
            f'(`--time-format`), such as "%d/%m/%Y" or "%m/%d/%Y %H:%M". Received: {_first(engine, rows)}'
        )
    return (*(("m", "d") if is_day[1] else ("d", "m")), "Y", "H", "M", "S", "f")


def _read_iso(text: ir.Value) -> ir.TimestampValue:
    return text.nullif("").try_cast(UTC).cast("timestamp")


def check_time_format(time_format: str) -> None:
    """Raises a `ValueError` unless a format has a day, a month and a year, and no other directives than `DIRECTIVES`.

    >>> check_time_format("%d/%m/%Y %H:%M")
    """
    found = re.findall(r"%(.?)", time_format.replace("%%", ""))
    is_date = sorted({"b": "m", "B": "m"}.get(name, name).lower() for name in found if name in "dmbBYy") == [*"dmy"]
    if not is_date or set(found) - set(DIRECTIVES) or len(set(found)) != len(found) or ("I" in found) != ("p" in found):
        raise ValueError(
            "`time_format` must have a day, a month and a year, each once, in the directives "
            f'{" ".join(f"%{name}" for name in DIRECTIVES)}, such as "%d/%m/%Y %H:%M"; %I goes with %p. '
            f"Received: {time_format!r}"
        )


def _pattern(time_format: str) -> tuple[str, list[str]]:
    """A regular expression of a format, and the directive of each of its groups."""
    check_time_format(time_format)
    parts = re.split(r"%(.)", time_format)  # text, directive, text, directive, ... text
    pattern = "".join(re.escape(part) if i % 2 == 0 else DIRECTIVES.get(part, part) for i, part in enumerate(parts))
    return rf"^\s*{pattern}\s*$", [name for name in parts[1::2] if name != "%"]


def _reader(pattern: str, names: Sequence[str]) -> Callable[[ir.Value], ir.Value]:
    """A function from text to timestamps, null where the text is not as the pattern says."""

    def read(text: ir.Value) -> ir.TimestampValue:
        part = {name: text.re_extract(pattern, place + 1) for place, name in enumerate(names)}
        year = part["Y"] if "Y" in part else (part["y"] >= "69").ifelse(ibis.literal("19"), "20") + part["y"]
        hour = part.get("H", ibis.literal("0"))
        if "I" in part:
            hour = part["I"].nullif("").cast("int64") % 12 + (part["p"].lower() == "pm").ifelse(12, 0)
            hour = hour.cast("string")
        month = part.get("m")
        if month is None:
            name = part.get("b", part.get("B")).lower()
            month = name.substr(0, 3).cases(*((m[:3].lower(), f"{i}") for i, m in enumerate(MONTHS, 1)), else_="")
        clock = [hour, *(part.get(name, ibis.literal("0")) for name in "MS")]
        day = ibis.literal("-").join([year, month.lpad(2, "0"), part["d"].lpad(2, "0")])
        time = ibis.literal(":").join([number.lpad(2, "0") for number in clock])
        fraction = part.get("f", ibis.literal("0")).rpad(6, "0")
        written = ibis.literal("").join([day, " ", time, ".", fraction])
        return text.re_search(pattern).ifelse(written, ibis.null("string")).try_cast(UTC).cast("timestamp")

    return read


def check_far_events(
    engine: Engine,
    events: ibis.Table,
    first: datetime.datetime,
    last: datetime.datetime,
    *,
    window: datetime.timedelta | None,
    all_windows: datetime.timedelta | None,
) -> list[str]:
    """Looks for a few events that lie far from all others: their times are wrong more often than not.

    Args:
        engine: An `Engine`.
        events: Table `user`, `title`, `time`.
        first: Datetime of the first event.
        last: Datetime of the last event.
        window: Length of a window, a timedelta; `None` where windows are chosen, which end with the log.
        all_windows: Timedelta that all windows together cover, if they are given and the last one ends with the log;
            `None` where they are chosen or the calendar has an end of its own.

    Returns:
        Warnings, a list of text.

    Raises:
        ValueError: If the windows would lie around a few events far after all others.
    """
    known, warnings = events.filter(events.time.notnull()).select("user", "title", "time"), []
    few = min(FEW, max(10, int(SHARE * engine.execute(known.count()))))
    for name, order in (("after", known.time.desc()), ("before", known.time.asc())):
        rows = engine.rows(known.order_by(order, "user", "title").limit(few + 1))
        gaps = [abs(one["time"] - two["time"]) for one, two in itertools.pairwise(rows)]
        if len(rows) <= few:
            continue
        gap = max(gaps)
        place = gaps.index(gap) + 1
        rest = abs(rows[place]["time"] - (first if name == "after" else last))
        places_windows = name == "after" and (all_windows is not None or window is None)
        near, far = (rest / 4, rest) if window is None else (window, all_windows)
        if gap <= (near if places_windows else rest):
            continue
        text = counted(
            place,
            f"events lie {gap} {name} all others, such as that of user {rows[0]['user']!r} and title "
            f"{rows[0]['title']!r} at {rows[0]['time']}",
        )
        if places_windows and gap > far:
            raise ValueError(
                "`events` must end where the last window shall; mend or drop what is later, or say `calendar.end` "
                f"(`--end`). Received: {text}"
            )
        warnings.append(text + (", and the last window ends with them" if places_windows else ""))
    return warnings

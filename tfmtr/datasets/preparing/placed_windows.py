"""Places the calendar's windows on a log, counts the rows of each day and window, and finds where users live."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from tfmtr.datasets import discovery, holdout
from tfmtr.datasets.calendars import complete, describe, is_complete
from tfmtr.datasets.homes import find_homes
from tfmtr.datasets.logs import Calendar
from tfmtr.datasets.preparing.checked_log import CheckedLog, is_early
from tfmtr.datasets.preparing.work import Work
from tfmtr.datasets.times import check_far_events


@dataclasses.dataclass(frozen=True)
class PlacedWindows:
    """The windows of a log.

    Args:
        windows: List of `Window`, oldest first.
        calendar: The `Calendar` with all that was left open; `None` where windows are no spans of time.
        text: One line that describes them.
        days: `{day: {"rows", "events"}}`.
    """

    windows: Sequence[discovery.Window]
    calendar: Calendar | None
    text: str
    days: Mapping[str, Mapping[str, int]]


def place_windows(work: Work, log: CheckedLog) -> PlacedWindows:
    """Places the windows, after choosing what the calendar leaves open, and counts the rows of each."""
    if work.is_drawn:
        calendar, windows = None, holdout.windows(work.is_given)
    else:
        calendar = complete_calendar(work, log)
        windows = discovery.plan_windows(calendar, log.first, log.last)
    days, on_time = count_days(work, log, windows)
    if work.is_drawn:
        text = holdout.TEXTS["given" if work.is_given else "drawn"]
    else:
        start = work.logs.calendar.start
        text = describe(windows, max(log.first, discovery.as_utc(start)) if start else log.first, on_time)
    empty = [window.number for window in windows if not on_time[window.number]]
    work.warn(len(empty), f"windows have no events: {empty[:10]}")
    last = windows[-1]
    if work.like is not None and not work.funnel.of(last.number)["rows"]:
        raise discovery.EmptyWindowError(
            f"`events` must have rows in the last window. Received: none from {last.start} to {last.end}; the last "
            f"event is of {max(days, default='no day')}"
        )
    return PlacedWindows(windows, calendar, text, days)


def complete_calendar(work: Work, log: CheckedLog) -> Calendar:
    """The calendar with all that it leaves open, chosen by the events of each hour."""
    calendar, hours, first, last = work.logs.calendar, [], log.first, log.last
    if not is_complete(calendar):
        rows = log.joined
        rows = rows.filter(rows.time.notnull(), rows.user.notnull(), rows.title_row.notnull())
        rows = rows.filter(discovery.is_event(rows, log.label))
        rows = rows.group_by(hour=rows.time.truncate("h")).aggregate(events=rows.count())
        hours = [(row["hour"], row["events"]) for row in work.engine.rows(rows.order_by("hour"))]
    window, all_windows = None, None
    if calendar.end is not None:
        window = last - first
    elif is_complete(calendar):
        calendar = complete(calendar, hours, first, last)
        window, all_windows = calendar.length, (calendar.num_train + calendar.num_test) * calendar.length
    events = log.tables.events
    work.warnings.extend(check_far_events(work.engine, events, first, last, window=window, all_windows=all_windows))
    return complete(calendar, hours, first, last)


def count_days(
    work: Work, log: CheckedLog, windows: Sequence[discovery.Window]
) -> tuple[dict[str, dict[str, int]], collections.Counter[int]]:
    """Counts the rows of each day, and in each window those that cannot be used.

    Returns:
        `({day: {"rows", "events"}}, {window: events that are not before the calendar's start})`.
    """
    rows = log.joined
    is_incomplete, is_event = rows.user.isnull() | rows.title.isnull(), discovery.is_event(rows, log.label)
    counts = rows.group_by(
        day=rows.time.date().cast("string"), window=discovery.number_window(rows.time, windows)
    ).aggregate(
        rows=rows.count(),
        events=is_event.sum(),
        on_time=(is_event & ~is_early(work, rows.time)).sum(),
        incomplete=is_incomplete.sum(),
        unknown_title=(~is_incomplete & rows.title_row.isnull()).sum(),
    )
    days, on_time = {}, collections.Counter()
    for row in work.engine.rows(counts.order_by("day", "window")):
        if row["day"] is None:  # none on the clock of a given split, either
            work.funnel.add(None, rows=row["rows"], incomplete=row["rows"])
            continue
        if not work.is_drawn:
            of_day = days.setdefault(row["day"], {"rows": 0, "events": 0})
            for name in of_day:
                of_day[name] += int(row[name])
        work.funnel.add(row["window"], **{name: row[name] for name in ("rows", "incomplete", "unknown_title")})
        on_time[row["window"]] += int(row["on_time"])
    return days, on_time


def settle_users(work: Work, log: CheckedLog, windows: Sequence[discovery.Window]) -> CheckedLog:
    """The log with users who are in no table, and with where users live who say it in events only."""
    engine, events, users = work.engine, log.tables.events, log.tables.users
    if "territory" in events.columns:
        tests = [window.start for window in windows if window.number > 0]
        users = find_homes(events, users, tests[0] if tests else windows[-1].end)
        users = engine.store(users, work.folder / "homes.parquet")
        work.warn(
            engine.execute((users.num_territories > 1).sum().fill_null(0)),
            "users have events in several territories; theirs is the one of most before the first test window",
        )
        events, users = events.drop("territory"), users.drop("num_territories")
    elif work.logs.users is None:
        users = engine.store(users, work.folder / "homes.parquet")
    return dataclasses.replace(log, tables=dataclasses.replace(log.tables, events=events, users=users))

"""Windows that cover a log but for a warm-up: what a calendar leaves open is chosen from span and density."""

import dataclasses
import datetime
import itertools
import math
from collections.abc import Mapping, Sequence

from tfmtr.datasets.discovery import Window, as_utc
from tfmtr.datasets.logs import Calendar

SECOND, HOUR, DAY = (datetime.timedelta(seconds=number) for number in (1, 3_600, 86_400))
LENGTHS = [hours * HOUR for hours in (1, 2, 6)] + [days * DAY for days in (1, 2, 4, 7, 14, 28, 91, 182, 364)]
MOST = 12  # windows that are enough to cover a log
FEW = 4  # windows that must be left where windows are longer to hold more events
EVENTS = 200  # that a window should have on average
NUM_TEST = 3
LIMIT = 1_000


def is_complete(calendar: Calendar) -> bool:
    """Whether a calendar says how long windows are and how many there are for training."""
    return calendar.length is not None and calendar.num_train is not None


def complete(
    calendar: Calendar,
    hours: Sequence[tuple[datetime.datetime, int]],
    earliest: datetime.datetime,
    latest: datetime.datetime,
) -> Calendar:
    """The calendar with what it leaves open chosen, so that its windows cover the log but for a warm-up.

    The warm-up is the first part of the events, from the calendar's start on; windows begin about where it ends.
    A window is the shortest of `LENGTHS` of which `MOST` are enough, and longer if it had fewer than `EVENTS` events on
    average, as long as `FEW` windows are left. Up to `NUM_TEST` of them, and no more than half, are for the tests.
    Windows of whole days end at midnight, those of hours at a whole hour. What the calendar says stays as it is.

    Args:
        calendar: A `Calendar`.
        hours: `[(start of an hour, number of its events)]`, hours with events only, in order.
        earliest: Datetime of the first event.
        latest: Datetime of the last event.

    Returns:
        A `Calendar` that is complete.

    Raises:
        ValueError: If there is no room for a training window and a test window, or for more than `LIMIT` windows.

    Example:
    >>> from tfmtr.datasets.logs import Calendar
    >>> start = datetime.datetime(2024, 1, 1)
    >>> hours = [(start + number * DAY, 100) for number in range(365)]
    >>> chosen = complete(Calendar(), hours, hours[0][0], hours[-1][0])
    >>> chosen.length.days, chosen.num_train, chosen.num_test, str(chosen.end)
    (28, 7, 3, '2024-10-08 00:00:00')
    """
    if not 0 <= calendar.warm_up < 1:
        raise ValueError(f"`warm_up` must be in [0, 1). Received: warm_up={calendar.warm_up}")
    if is_complete(calendar):
        return dataclasses.replace(calendar, num_test=NUM_TEST if calendar.num_test is None else calendar.num_test)
    start = max(earliest, as_utc(calendar.start)) if calendar.start else earliest
    hours = [(hour, events) for hour, events in hours if hour + HOUR > start]
    opening = max(start, quantile(hours, calendar.warm_up)) if hours else latest
    log = _Log(calendar, hours, start, start == earliest, opening, latest)
    if calendar.num_train is not None:
        lengths = [log.length_of(calendar.num_train, NUM_TEST if calendar.num_test is None else calendar.num_test)]
    else:
        lengths = LENGTHS if calendar.length is None else [calendar.length]
    if min(lengths) <= datetime.timedelta(0) or not (found := [plan for plan in map(log.plan, lengths) if plan]):
        raise ValueError(
            "`events` must cover a training window and a test window after the warm-up; ask for a smaller `warm_up` "
            "(`--warm-up`) or shorter windows, or say that there are no times (`--no-times`). Received: "
            f"{sum(events for _, events in hours)} events from {start} to {latest}, of which the first "
            f"{calendar.warm_up:.0%} are the warm-up, until {opening}"
        )
    plan = choose(found) if len(lengths) > 1 else found[0]
    if plan.num_train + plan.num_test > LIMIT:
        raise ValueError(
            f"`length` must be longer, so that at most {LIMIT} windows cover the log, or `num_train` says how many. "
            f"Received: {plan.num_train + plan.num_test} windows of {span(plan.length)} from {opening} to {latest}"
        )
    return dataclasses.replace(
        calendar, length=plan.length, num_train=plan.num_train, num_test=plan.num_test, end=plan.end
    )


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A length and what comes of it: windows, the end of training, and how many events a window has on average."""

    length: datetime.timedelta
    num_train: int
    num_test: int
    end: datetime.datetime
    events: float


class _Log:
    """What is known of a log: how long windows fit into it."""

    def __init__(
        self,
        calendar: Calendar,
        hours: Sequence[tuple[datetime.datetime, int]],
        start: datetime.datetime,
        is_whole: bool,
        opening: datetime.datetime,
        latest: datetime.datetime,
    ) -> None:
        self.calendar, self.hours, self.start, self.is_whole = calendar, hours, start, is_whole
        self.opening, self.latest = opening, latest

    def unit(self, length: datetime.timedelta) -> datetime.timedelta:
        """Of what windows of a length begin and end with."""
        return next((unit for unit in (DAY, HOUR) if not length % unit), SECOND)

    def last(self, length: datetime.timedelta) -> datetime.datetime:
        """Where windows of a length end at the latest."""
        return floor(self.latest, self.unit(length)) + self.unit(length)

    def plan(self, length: datetime.timedelta) -> _Plan | None:
        """A `_Plan`, or `None` where there is no room."""
        calendar, last = self.calendar, self.last(length)
        first = floor(self.start, SECOND if length % DAY else DAY) if self.is_whole else self.start
        end, num_test = as_utc(calendar.end) if calendar.end else last, calendar.num_test
        most = (end - first) // length
        windows = min(most, max(1, math.floor((end - self.opening) / length + 0.5)))
        if calendar.end:
            num_test = max(1, min(NUM_TEST, (last - end) // length)) if num_test is None else num_test
            windows += num_test
        elif num_test is None:
            num_test = min(NUM_TEST, max(1, windows // 2))
        num_train = windows - num_test if calendar.num_train is None else calendar.num_train
        if num_train < 1 or num_train + num_test > most + (num_test if calendar.end else 0):
            return None
        if not calendar.end:
            end -= num_test * length
        begin = end - num_train * length
        events = sum(events for hour, events in self.hours if hour + HOUR > begin)
        return _Plan(length, num_train, num_test, end, events / (num_train + num_test))

    def length_of(self, num_train: int, num_test: int) -> datetime.timedelta:
        """The length of so many windows, in whole days if there is a day for each, else in hours or seconds."""
        for unit in (DAY, HOUR, SECOND):
            last = self.last(unit)
            if self.calendar.end:
                end = as_utc(self.calendar.end)
                rooms = [(end - self.opening, num_train), (last - end, num_test)]
            else:
                rooms = [(last - max(self.opening, self.start), num_train + num_test)]
            length = min(floor_length(room / number, unit) for room, number in rooms if number)
            if length > datetime.timedelta(0):
                return length
        return datetime.timedelta(0)


def choose(plans: Sequence[_Plan]) -> _Plan:
    """The plan that suits a log best; plans are in the order of their lengths."""
    fit = [plan for plan in plans if plan.num_train + plan.num_test <= MOST] or plans[-1:]
    best = fit[0]
    for longer in fit[1:]:
        if best.events >= EVENTS or longer.num_train + longer.num_test < FEW:
            break
        best = longer
    return best


def quantile(hours: Sequence[tuple[datetime.datetime, int]], share: float) -> datetime.datetime:
    """Start of the hour in which a share of the events is reached.

    >>> start = datetime.datetime(2024, 1, 1)
    >>> quantile([(start, 1), (start + HOUR, 4)], 0.2)
    datetime.datetime(2024, 1, 1, 1, 0)
    """
    total = sum(events for _, events in hours)
    sums = itertools.accumulate(events for _, events in hours)
    return next(hour for (hour, _), events in zip(hours, sums, strict=True) if events > share * total)


def floor(time: datetime.datetime, unit: datetime.timedelta) -> datetime.datetime:
    """The last full day, hour or second before a time."""
    return time - (time - datetime.datetime.min) % unit


def floor_length(length: datetime.timedelta, unit: datetime.timedelta) -> datetime.timedelta:
    """A length in whole units."""
    return length - length % unit


def span(length: datetime.timedelta) -> str | None:
    """A length in words.

    >>> span(28 * DAY), span(HOUR), span(1.5 * DAY)
    ('28 days', '1 hour', '1.5 days')
    """
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (SECOND, "second")):
        if length >= unit or name == "second":
            number = f"{length / unit:.1f}".removesuffix(".0")
            return f"{number} {name}{'' if number == '1' else 's'}"
    return None


def describe(windows: Sequence[Window], first: datetime.datetime, events: Mapping[int, int]) -> str:
    """One line about windows.

    Args:
        windows: List of `Window`.
        first: Datetime of the first event, from the calendar's start on.
        events: `{window: number of events}`, with those before the first window and after the last one.

    Returns:
        A text.
    """
    tests = sum(window.number > 0 for window in windows)
    length = windows[0].end - windows[0].start
    before, total = events.get(windows[0].number - 1, 0), sum(events.values())
    warm_up = windows[0].start - first
    text = f"{len(windows) - tests} of {span(length)} for training, {tests} for the tests"
    if not before:
        return f"{text}, without a warm-up"
    warm_up = max(warm_up, SECOND)
    if warm_up > 3 * DAY:
        warm_up = floor_length(warm_up + DAY / 2, DAY)
    return f"{text}, after a warm-up of {span(warm_up)} ({before / total:.0%} of the events)".replace("%", " %")

"""The three tables that every data set starts from, and the calendar that cuts them into windows."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfmtr.checks import check_boolean, check_integer, check_number, check_path, check_text, check_texts

PATHS = ("events", "users", "titles", "availability", "user_vectors", "title_vectors")


@dataclasses.dataclass(frozen=True)
class Calendar:
    """Consecutive windows of equal length: training windows, then the test windows.

    Window w (an integer) covers `[end + (w - 1) * length, end + w * length)`: windows
    `1 - num_train .. 0` are for training and `1 .. num_test` follow the training window.
    What is left open is chosen so that windows cover the log but for a warm-up: see `tfmtr.datasets.calendars`.

    Args:
        length: Length of one window, for example a day; `None` to choose it.
        num_train: Number of training windows; `None` for as many as cover the log.
        num_test: Number of test windows; `None` for 3, or fewer where less than 6 windows cover the log.
        end: End of training, UTC; `None` puts the last test window at the end of the log.
        start: No event before this time is used, as example, feature or history; `None` for no limit.
        warm_up: Share of the events (from `start` on) that are history only, because they come before the first
            window; used where length or number of the windows is chosen.
    """

    length: datetime.timedelta | None = None
    num_train: int | None = None
    num_test: int | None = None
    end: datetime.datetime | None = None
    start: datetime.datetime | None = None
    warm_up: float = 0.2

    def __post_init__(self) -> None:
        for names, kind in ((("length",), datetime.timedelta), (("end", "start"), datetime.datetime)):
            for name in names:
                if not isinstance(value := getattr(self, name), kind | None):
                    raise ValueError(f"`{name}` must be a `datetime.{kind.__name__}`. Received: {name}={value!r}")
        for name in ("num_train", "num_test"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_integer(name, value))
        object.__setattr__(self, "warm_up", check_number("warm_up", self.warm_up))


@dataclasses.dataclass(frozen=True)
class Logs:
    """A service's log as tables of events, users and titles, with the names of their columns.

    Args:
        events: Parquet or CSV, one file or a folder: one row for each event (or logged impression).
        users: One row a user; `None` for the users of the events.
        titles: One row a title; `None` for the titles of the events, which then have no text.
        columns: Which column is what. Keys: `user`, `title`, `time` (timestamp, date, or seconds since 1970, UTC) and,
            optionally, `name` (the title's text to show) and `territory`. The latter is a column of the users table,
            or else of the events: a user's territory is then the one that most of the user's rows before the first test
            window have (the smallest text of several; of a user without such rows, that of the first row). Without
            either all users live in one territory, `"all"`. And `request`, a column of the events: which impressions
            are of one list; null where that is not known.
        tasks: `{task: "column"}`, `{task: "column:regression"}` or `{task: "column:after=task"}`, a column of the
            events table; the last is for a task that cannot be without another, as no purchase is without a click.
            `"column>=4"` (or `>`, `<=`, `<`, `==`) is 1 where a rating reaches a threshold. Empty: one task `event`
            that is 1 for every row. Rows of the first task with 0 are logged impressions or, if it has a threshold,
            explicit ratings: no events, but lists leave the title out as well.
        training: `{name: "column"}` for a number or `{name: "column:id"}` for a category, columns of the events table
            that are known in training only, such as the position that a title was shown at; heads read them. A sampled
            negative has none.
        context: `{name: "column"}` for a category or `{name: "column:number"}`, columns of the events table that a
            request has, too, such as the tab or the device. A sampled negative has that of a positive.
        id_features: `{"user" or "title": text}` for ids that are features, whatever their number: `"top:50000"`, the
            most frequent ones of the training rows, all others one unknown (`"top"` for a million); or
            `"hashed:100000"`, all in so many buckets.
        scenario: What tells scenarios apart, each value, or each combination of several columns' values, on its own:
            columns of `context`, columns of the users table that are categories, or `"territory"`. Empty: the groups
            of the territories.
        availability: Table `title, territory` and optionally `start`, `end` (UTC), or `None` to derive
            it from earlier events; or the word `"anywhere"`: from earlier events in any territory.
        user_vectors, title_vectors: Feature stores: a folder with `vectors.npy` (rows, width) and
            `ids.parquet` (one column: the ids, in the order of the rows); or `None`.
        calendar: The data set's own windows; by default windows are chosen that cover the log.
        groups: `{territory: group}`, or `None` to balance them over `neighbours`.
        neighbours: `{territory: (longitude, latitude)}` in degrees, used to group territories.
        time_zones: `{territory: "Europe/Berlin"}`, or `None` for UTC everywhere: times become the clock's in the
            territory of the user (of the event, where events say it), so that a window of a day is each territory's own
            day, from midnight to midnight. The calendar's times are then of that clock, too. A territory that is not
            listed keeps UTC.
        time_format: How times are written that are text and do not begin with year, month, day, such as
            `"%d/%m/%Y %H:%M"`; `None` where there are none, or where the days (above 12) tell them from the months.
        user_history: Whether users get the mean vector of the titles they had before the window.
        has_times: Whether events have a time. If not, what is history is drawn, and nothing is known of any order: see
            `tfmtr.datasets.holdout`. The calendar is then left out.
        split_column: Column of the events with the words train, validation (or valid, val, dev) and test, which say
            what a row is for; `None` to split users and time. The calendar is then left out, too.
    """

    events: Path
    users: Path | None = None
    titles: Path | None = None
    columns: Mapping[str, str] = dataclasses.field(kw_only=True)
    calendar: Calendar = Calendar()
    tasks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    training: Mapping[str, str] = dataclasses.field(default_factory=dict)
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    id_features: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scenario: Sequence[str] = ()
    availability: Path | str | None = None
    user_vectors: Path | None = None
    title_vectors: Path | None = None
    groups: Mapping[str, str] | None = None
    neighbours: Mapping[str, tuple[float, float]] | None = None
    time_zones: Mapping[str, str] | None = None
    time_format: str | None = None
    user_history: bool = True
    has_times: bool = True
    split_column: str | None = None

    def __post_init__(self) -> None:
        for name in PATHS:
            if (value := getattr(self, name)) is not None or name == "events":
                object.__setattr__(self, name, value if value == "anywhere" else check_path(name, value))
        tables = ("columns", "tasks", "training", "context", "id_features")
        for name in (*tables, "groups", "time_zones", "neighbours"):
            value = getattr(self, name)
            if value is not None or name in tables:
                _check_table(name, value, of_texts=name != "neighbours")
        object.__setattr__(self, "scenario", check_texts("scenario", self.scenario))
        if len(set(self.scenario)) < len(self.scenario):
            raise ValueError(f"`scenario` must name each column once. Received: scenario={list(self.scenario)}")
        if not isinstance(self.calendar, Calendar):
            raise ValueError(f"`calendar` must be a `Calendar`. Received: calendar={self.calendar!r}")
        for name in ("time_format", "split_column"):
            if (value := getattr(self, name)) is not None:
                check_text(name, value)
        for name in ("user_history", "has_times"):
            check_boolean(name, getattr(self, name))

    def paths(self) -> dict[str, Path]:
        """The tables and stores that there are, `{name: Path}`."""
        found = {name: getattr(self, name) for name in PATHS}
        return {name: Path(path) for name, path in found.items() if path not in (None, "anywhere")}


def _check_table(argument: str, value: Any, *, of_texts: bool) -> None:
    """Raises a `ValueError` unless a value is a dictionary of texts, or with texts as keys."""
    is_table = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if not is_table or (of_texts and not all(isinstance(text, str) for text in value.values())):
        what = "{text: text}" if of_texts else "{text: value}"
        raise ValueError(f"`{argument}` must be a dictionary, {what}. Received: {argument}={value!r}")

"""Counters as of a window's start: what was shown and taken in the last days, of a title, a user, or the two.

A counter is named by its columns, joined by commas:

    title                 of the title
    title,territory       of the title with users of the row's territory; or with its value of columns of a request
    user                  of the user
    user,genre            of the user with titles that have the title's genre, a category or a set of the titles table

Counts are rows of the log (events and impressions) and positives of each binary task, as the logarithm of 1 + the
number. A rate is shrunk towards that of all rows in the same days, `m` being `counter_prior`:

    rate = (positives + m * overall) / (known + m),    overall = all positives / all known

where known are rows in which the task's label is known. A rate is null where the days have no such row at all. Nothing
in a row of a window is of events at or after the window's start.
"""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence

import ibis
import ibis.expr.types as ir

from tfmtr.checks import check_choice, check_integer, check_items, check_number, check_texts
from tfmtr.datasets.discovery import Window, windows_table
from tfmtr.datasets.names import inside
from tfmtr.kinds import KINDS
from tfmtr.schema import PAIR

ROWS = "rows"
DAY = datetime.timedelta(days=1)
DAYS = (1, 7, 28)  # that counters look back by default
LONGEST = 10_000


@dataclasses.dataclass(frozen=True)
class Counter:
    """What is counted on its own.

    Args:
        columns: `"title"` or `"user"`, and the columns that the value is counted with.
    """

    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        """The columns in one word, as features have it."""
        return "_".join(self.columns)

    @property
    def owner(self) -> str:
        """`"title"` or `"user"`."""
        return self.columns[0]

    @property
    def others(self) -> tuple[str, ...]:
        """The columns beside the owner."""
        return self.columns[1:]

    @property
    def role(self) -> str:
        """The role of its features: what changes with every window is not in a title's one vector of an index."""
        return "user" if self.columns == ("user",) else PAIR

    @property
    def is_stored(self) -> bool:
        """Whether it is of a title and what a request says, so that one table has its values for all users."""
        return self.owner == "title"


@dataclasses.dataclass(frozen=True)
class Measure:
    """One feature of a counter.

    Args:
        name: Of the feature.
        days: How far it looks back.
        task: Place of the task among the binary ones; `None` for all rows.
        is_rate: Whether it is the rate of the task's positives.
    """

    name: str
    days: int
    task: int | None = None
    is_rate: bool = False

    def of(self, sums: ibis.Table, prior: float) -> ir.Value:
        """The feature, float32.

        Args:
            sums: Table with the columns of `Counting.sums`, null where there is no row, and of `Counting.overall`.
            prior: `m` of the shrinkage.
        """
        if self.task is None:
            return logarithm(sums[f"{ROWS}_{self.days}"])
        positives = sums[f"positives_{self.task}_{self.days}"].fill_null(0.0)
        if not self.is_rate:
            return logarithm(positives)
        known = sums[f"known_{self.task}_{self.days}"].fill_null(0.0)
        overall = sums[f"overall_{self.task}_{self.days}"]
        return ((positives + prior * overall) / (known + prior)).cast("float32")


def logarithm(count: ir.Value) -> ir.Value:
    """The logarithm of 1 + a count, float32; a null count is 0."""
    return (count.fill_null(0.0) + 1.0).ln().cast("float32")


@dataclasses.dataclass(frozen=True)
class Counting:
    """What is counted of a log.

    Args:
        counters: The `Counter`s.
        days: How far they look back, ascending.
        prior: As many rows of the overall rate are added to each rate.
        tasks: The binary tasks.
        has_zeros: Whether tasks may have rows of 0: without any task every row is an event, and rates are all 1.
    """

    counters: tuple[Counter, ...] = ()
    days: tuple[int, ...] = ()
    prior: float = 0.0
    tasks: tuple[str, ...] = ()
    has_zeros: bool = True

    def measures(self, counter: Counter) -> list[Measure]:
        """The features of a counter."""
        found = []
        for days in self.days:
            if self.has_zeros:
                found.append(Measure(f"count_{counter.name}_{ROWS}_{days}d", days))
            for place, task in enumerate(self.tasks):
                found.append(Measure(f"count_{counter.name}_{task}_{days}d", days, place))
                if self.has_zeros:
                    found.append(Measure(f"rate_{counter.name}_{task}_{days}d", days, place, is_rate=True))
        return found

    @property
    def names(self) -> list[str]:
        """Names of all features."""
        return [measure.name for counter in self.counters for measure in self.measures(counter)]

    @property
    def totals(self) -> list[str]:
        """Columns of what is added up in a slot of time."""
        return [ROWS, *(f"{what}_{place}" for place in range(len(self.tasks)) for what in ("known", "positives"))]

    @property
    def sums(self) -> list[str]:
        """Columns of what is added up as of a window."""
        return [f"{total}_{days}" for total in self.totals for days in self.days]

    @property
    def overall(self) -> list[str]:
        """Columns of the overall rates as of a window."""
        return [f"overall_{place}_{days}" for place in range(len(self.tasks)) for days in self.days]

    def features(self, counter: Counter, table: ibis.Table) -> dict[str, ir.Value]:
        """The features of a counter by the names that columns have inside, see `Measure.of`."""
        return {inside(measure.name): measure.of(table, self.prior) for measure in self.measures(counter)}


def parse_counters(texts: Iterable[str]) -> tuple[Counter, ...]:
    """`["title", "user,genre"]` as `Counter`s.

    Raises:
        ValueError: If one is not of a title or a user, names a column twice, has more columns than a user's may have,
            or comes twice.

    Example:
    >>> [counter.name for counter in parse_counters(["title", "title,territory", "user,genre"])]
    ['title', 'title_territory', 'user_genre']
    """
    counters = []
    for text in check_texts("counters", texts):
        columns = tuple(part.strip() for part in text.split(","))
        is_one = columns[0] in ("title", "user") and all(columns) and len(set(columns)) == len(columns)
        if not is_one or (columns[0] == "user" and ("title" in columns or len(columns) > 2)):
            raise ValueError(
                "`counters` must be title, user, title with columns of a request, such as title,territory, or user "
                f"with one column of the titles, such as user,genre. Received: {text!r}"
            )
        counters.append(Counter(columns))
    if min(len({c.name for c in counters}), len({frozenset(c.columns) for c in counters})) < len(counters):
        given = [",".join(counter.columns) for counter in counters]
        raise ValueError(f"`counters` must name each of them once, and joined by _ differ. Received: {given}")
    return tuple(counters)


def parse_days(days: Iterable[int]) -> tuple[int, ...]:
    """How many days counters look back, ascending.

    Raises:
        ValueError: If there are none, one is no positive whole number, or comes twice.
    """
    found = check_items("counter_days", days, int, "whole numbers")
    found = [check_integer("counter_days", value, least=1, most=LONGEST) for value in found]
    if not found or len(set(found)) < len(found):
        raise ValueError(
            f"`counter_days` must be one or more different numbers of days, such as 1,7,28. Received: {found}"
        )
    return tuple(sorted(found))


def parse_prior(prior: float) -> float:
    """How many rows of the overall rate are added to each rate, a positive number."""
    return check_number("counter_prior", prior, above=0)


def check_columns_of(counters: Iterable[Counter], context: Mapping[str, str], titles: Mapping[str, str | None]) -> None:
    """Raises a `ValueError` unless counters are of columns that a request or a title has, of kinds that are counted by.

    Args:
        counters: The `Counter`s.
        context: `{column: kind}` of the context.
        titles: `{column: kind}` of the titles' extra columns.
    """
    asked = ["territory", *(name for name, kind in context.items() if kind == "id")]
    attributes = [name for name, kind in titles.items() if kind is not None and KINDS[kind].has_vocabulary]
    for counter in counters:
        choices = asked if counter.owner == "title" else attributes
        for name in counter.others:
            check_choice("counters", name, choices, of=f" of a {counter.owner}")


@dataclasses.dataclass(frozen=True)
class Spans:
    """The days before the starts of windows, cut into slots of time that are wholly in or out of each span.

    Args:
        windows: List of `Window`; what is counted as of their starts.
        days: How far counters look back, ascending.
    """

    windows: Sequence[Window]
    days: Sequence[int]

    @property
    def bounds(self) -> list[datetime.datetime]:
        """Where slots begin and end; slot i is before the i-th bound and not before the one before."""
        starts = [window.start for window in self.windows]
        return sorted({bound for start in starts for bound in (start, *(start - days * DAY for days in self.days))})

    def slot(self, time: ir.Value) -> ir.IntegerValue:
        """The slot of a time; 0 before all spans."""
        bounds = self.bounds
        return ibis.cases(*((time < bound, place) for place, bound in enumerate(bounds)), else_=len(bounds)).cast(
            "int64"
        )

    def table(self) -> ibis.Table:
        """Table `window`, `end`, the last slot before its start, and `before_<days>`, the last one that is too old."""
        place = {bound: number for number, bound in enumerate(self.bounds)}
        rows = {
            "window": [window.number for window in self.windows],
            "end": [place[window.start] for window in self.windows],
        }
        for days in self.days:
            rows[f"before_{days}"] = [place[window.start - days * DAY] for window in self.windows]
        return ibis.memtable(rows, schema=dict.fromkeys(rows, "int64"))


def slots_of(events: ibis.Table, keys: Sequence[str], label: str, counting: Counting) -> ibis.Table:
    """Adds up rows by keys and slot of time.

    Args:
        events: Table with `keys`, `slot` and the labels.
        keys: What is counted on its own.
        label: Column of the first task: rows without it are neither events nor impressions.
        counting: The `Counting`.

    Returns:
        Table `keys`, `slot` and `Counting.totals`, float64.
    """
    sums = {ROWS: events[label].notnull().sum()}
    for place, task in enumerate(counting.tasks):
        value = events[inside(task)]
        sums |= {f"known_{place}": value.notnull().sum(), f"positives_{place}": (value == 1.0).sum()}
    return events.group_by(*keys, "slot").aggregate(**{name: value.cast("float64") for name, value in sums.items()})


def add_up(slots: ibis.Table, keys: Sequence[str], counting: Counting) -> ibis.Table:
    """Slots of several tables as those of one."""
    return slots.group_by(*keys, "slot").aggregate(**{name: slots[name].sum() for name in counting.totals})


def sums_of(pairs: ibis.Table, keys: Sequence[str], counting: Counting) -> ibis.Table:
    """Adds up slots as of windows.

    Args:
        pairs: Table with `keys`, a slot with its totals, and a row of `Spans.table`: each with all slots of its keys.
        keys: What is counted on its own.
        counting: The `Counting`.

    Returns:
        Table `keys`, `window` and `Counting.sums`; no row for keys without a slot in any of the days.
    """
    pairs = pairs.filter(pairs.slot <= pairs.end, pairs.slot > pairs[f"before_{counting.days[-1]}"])
    sums = {
        f"{total}_{days}": pairs[total].sum(where=pairs.slot > pairs[f"before_{days}"])
        for total in counting.totals
        for days in counting.days
    }
    return pairs.group_by(*keys, "window").aggregate(**sums)


def overall_rates(
    sums: Iterable[Mapping[str, float | None]], windows: Sequence[Window], counting: Counting
) -> ibis.Table:
    """Table `window` and `Counting.overall`, null where the days have no row whose label is known.

    Args:
        sums: `Counting.sums` of all rows by `window`, dictionaries; none of a window without a row.
        windows: The windows.
        counting: The `Counting`.
    """
    by_window = {row["window"]: row for row in sums}
    columns: dict[str, list] = {"window": [window.number for window in windows]}
    for place in range(len(counting.tasks)):
        for days in counting.days:
            rates = columns[f"overall_{place}_{days}"] = []
            for window in windows:
                row = by_window.get(window.number, {})
                known = row.get(f"known_{place}_{days}") or 0.0
                rates.append((row.get(f"positives_{place}_{days}") or 0.0) / known if known else None)
    return ibis.memtable(columns, schema={"window": "int64", **dict.fromkeys(counting.overall, "float64")})


def no_rows(windows: Sequence[Window], keys: Sequence[str], counting: Counting) -> ibis.Table:
    """A row of `Counting.sums` of 0 for each window, whose keys are null: what is true of all that has no row."""
    table = windows_table(windows)
    nothing = {key: ibis.null("string") for key in keys}
    return table.select(**nothing, window="window", **{name: ibis.literal(0.0) for name in counting.sums})

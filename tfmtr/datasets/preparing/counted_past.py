"""Counts what was before each window: of titles over all buckets, of users pass after pass."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ibis

from tfmtr.datasets import counters
from tfmtr.datasets.counter_tables import FOLDER
from tfmtr.datasets.counters import Counter, Counting, Spans
from tfmtr.datasets.discovery import Window
from tfmtr.datasets.features import number_moments
from tfmtr.datasets.names import inside
from tfmtr.datasets.preparing.buckets import Buckets
from tfmtr.datasets.preparing.checked_log import CheckedLog
from tfmtr.datasets.preparing.work import Work
from tfmtr.schema import Feature


@dataclasses.dataclass(frozen=True)
class CountedPast:
    """What is known of the past as of each window.

    Args:
        work: A `Work`.
        log: A `CheckedLog`, whose `counting` says what is counted.
        spans: The `Spans` of the windows and of the one after the last.
        events: Of each pass, see `events_before`.
        overall: See `tfmtr.datasets.counters.overall_rates`; `None` where nothing is counted.
        stored: `{counter: its sums by keys and window}` of those that are of a title and what a request says.
        values: `{title column: table title and value, each once}` of those that users' counters are of.
    """

    work: Work
    log: CheckedLog
    spans: Spans
    events: Sequence[ibis.Table]
    overall: ibis.Table | None
    stored: Mapping[Counter, ibis.Table]
    values: Mapping[str, ibis.Table]

    @property
    def counting(self) -> Counting:
        """What is counted."""
        return self.log.counting

    @property
    def newest(self) -> int:
        """Number of the window after the last, as of which counters are served."""
        return self.spans.windows[-1].number

    def with_counters(self, rows: ibis.Table, examples: ibis.Table, number: int, kind: str) -> ibis.Table:
        """Rows of a pass with the features of all counters, by the names that columns have inside.

        Args:
            rows: The examples, with more columns.
            examples: The examples as they are stored.
            number: Of the pass.
            kind: What the rows are, after which work files are called.
        """
        for counter in self.counting.counters:
            if counter.is_stored:
                keys, sums = keys_of(counter), self.stored[counter]
                rows = self.joined(rows, counter, sums, {key: text_of(rows[key]) for key in keys})
            else:
                keys = ["user", "title"] if counter.others else ["user"]
                sums = self.of_users(counter, examples.select(*keys, "window").distinct(), number, kind)
                rows = self.joined(rows, counter, sums, {key: rows[key] for key in keys})
        return rows

    def with_newest(self, users: ibis.Table, number: int) -> ibis.Table:
        """Users of a pass with the features of their own counters as of the window after the last."""
        for counter in self.counting.counters:
            if counter.role == "user":
                users = users.mutate(window=ibis.literal(self.newest, "int64"))
                sums = self.of_users(counter, users.select("user", "window"), number, "newest")
                users = self.joined(users, counter, sums, {"user": users.user}).drop("window")
        return users

    def joined(
        self, rows: ibis.Table, counter: Counter, sums: ibis.Table, keys: Mapping[str, ibis.Value]
    ) -> ibis.Table:
        """Rows with a counter's features.

        Args:
            rows: Table with `window`.
            counter: The `Counter`.
            sums: Its sums.
            keys: `{key column of the sums: value of the rows}`.
        """
        columns = rows.columns
        own = {f"own_{key}": value for key, value in keys.items()} | {"own_window": rows.window}
        sums = sums.rename({f"of_{key}": key for key in (*keys, "window")})
        rows = rows.mutate(**own).left_join(sums, [(f"own_{key}", f"of_{key}") for key in (*keys, "window")])
        rows = rows.left_join(self.overall.rename(as_of="window"), [("own_window", "as_of")])
        return rows.select(*columns, **self.counting.features(counter, rows))

    def of_users(self, counter: Counter, wanted: ibis.Table, number: int, name: str) -> ibis.Table:
        """Sums of the users, or of the pairs of a user with a title, that are wanted as of windows.

        Args:
            counter: The `Counter`.
            wanted: Table `user`, `window` and, where the counter is of titles' values, `title`, each row once.
            number: Of the pass.
            name: What the work file is called after.
        """
        engine, folder = self.work.engine, self.work.folder / f"pass-{number}"
        keys = [key for key in wanted.columns if key != "window"]
        path = folder / f"slots-{counter.name}.parquet"
        if path.exists():
            slots = engine.read_parquet([path])
        else:
            events = self.events[number]
            if counter.others:
                events = events.inner_join(self.values[counter.others[0]], "title")
            grouped = ["user", "value"] if counter.others else ["user"]
            slots = engine.store(counters.slots_of(events, grouped, self.log.label, self.counting), path)
        if counter.others:
            wanted = wanted.inner_join(self.values[counter.others[0]], "title")
            pairs = wanted.inner_join(slots, ["user", "value"])
        else:
            pairs = wanted.inner_join(slots, "user")
        pairs = pairs.inner_join(self.spans.table(), "window")
        return engine.store(counters.sums_of(pairs, keys, self.counting), folder / f"{name}-{counter.name}.parquet")

    def named(self, role: str) -> dict[str, str]:
        """`{name of a feature: what its column is called inside}` of the features of a role."""
        chosen = [counter for counter in self.counting.counters if counter.role == role]
        names = [measure.name for counter in chosen for measure in self.counting.measures(counter)]
        return {name: inside(name) for name in names}

    def features(self) -> list[Feature]:
        """The features, normalised as training rows are, once these are written."""
        names = self.counting.names
        files = self.work.out.glob("examples/split=train/*/window=*/*.parquet")
        files = sorted(file for file in files if int(file.parent.name.removeprefix("window=")) <= 0)
        if not names or not files:
            return []
        moments = number_moments(self.work.engine, self.work.engine.read_parquet(files), names)
        return [
            Feature(measure.name, counter.role, "number", mean=moments[measure.name][0], std=moments[measure.name][1])
            for counter in self.counting.counters
            for measure in self.counting.measures(counter)
        ]

    def document(self) -> list[dict[str, Any]]:
        """What prepare.json says: of each counter its columns, its features and their role."""
        return [
            {
                "columns": list(counter.columns),
                "role": counter.role,
                "features": [measure.name for measure in self.counting.measures(counter)],
            }
            for counter in self.counting.counters
        ]


def count_past(work: Work, log: CheckedLog, buckets: Buckets) -> CountedPast:
    """Counts what is of titles over all buckets, and writes it as of each window; and the overall rates."""
    engine, counting, last = work.engine, log.counting, buckets.windows[-1]
    after = Window(last.number + 1, last.end, last.end + (last.end - last.start))
    spans = Spans([*buckets.windows, after], counting.days)
    if not counting.counters:
        return CountedPast(work, log, spans, [], None, {}, {})
    stored = [counter for counter in counting.counters if counter.is_stored]
    attributes = [counter.others[0] for counter in counting.counters if counter.others and not counter.is_stored]
    values = {name: title_values(work, log, name) for name in attributes}
    parts: dict[Any, list[ibis.Table]] = {counter: [] for counter in (None, *stored)}
    all_events = []
    for number in range(len(buckets.passes)):
        events = events_before(work, log, buckets, spans, number)
        events = engine.store(events, work.folder / f"counted/events/{number}.parquet")
        all_events.append(events)
        for counter, found in parts.items():
            slots = counters.slots_of(events, keys_of(counter), log.label, counting)
            name = "all" if counter is None else counter.name
            found.append(engine.store(slots, work.folder / f"counted/{name}/{number}.parquet"))
    sums = {}
    for counter, tables in parts.items():
        keys, name = keys_of(counter), "all" if counter is None else counter.name
        slots = tables[0]
        if len(tables) > 1:
            slots = counters.add_up(ibis.union(*tables), keys, counting)
        pairs = slots.cross_join(spans.table())
        sums[counter] = engine.store(counters.sums_of(pairs, keys, counting), work.folder / f"counted/{name}.parquet")
    rates = counters.overall_rates(engine.rows(sums.pop(None)), spans.windows, counting)
    rates = engine.store(rates, work.folder / "counted/overall.parquet")
    past = CountedPast(work, log, spans, all_events, rates, sums, values)
    for counter in stored:
        write_counter(past, counter)
    return past


def write_counter(past: CountedPast, counter: Counter) -> None:
    """Writes the features of a counter of titles as of each window; keys that are null are of what had no row."""
    keys, work = keys_of(counter), past.work
    rows = past.stored[counter]
    rows = rows.select(*keys, "window", *past.counting.sums)
    rows = rows.union(counters.no_rows(past.spans.windows, keys, past.counting))
    rows = rows.left_join(past.overall.rename(as_of="window"), [("window", "as_of")])
    names = dict(zip(keys, counter.columns, strict=True))
    features = past.counting.features(counter, rows)
    table = rows.select(
        **{name: rows[key] for key, name in names.items()},
        window=rows.window,
        **{measure.name: features[inside(measure.name)] for measure in past.counting.measures(counter)},
    )
    table = work.engine.store(table, work.folder / f"counted/{counter.name}-{FOLDER}.parquet")
    order = [ibis.asc(name, nulls_first=True) for name in (*counter.columns, "window")]
    work.engine.write(table.order_by(*order), work.out / FOLDER / f"{counter.name}.parquet")


def keys_of(counter: Counter | None) -> list[str]:
    """The columns that a counter of titles is of, as they are called inside; none of all rows together."""
    return [] if counter is None else [counter.owner, *map(inside, counter.others)]


def text_of(column: ibis.Value) -> ibis.Value:
    """A category as text, null as "": what examples have of one that is unknown."""
    return column.cast("string").fill_null("")


def events_before(work: Work, log: CheckedLog, buckets: Buckets, spans: Spans, number: int) -> ibis.Table:
    """Rows of a pass in the spans, of known users: user, title, slot, labels and text of what is counted by."""
    some = buckets.passes[number]
    events, users = buckets.usable_events(some), buckets.part("users", some).select("user", "territory")
    events = events.inner_join(users, "user")
    asked = {key for counter in log.counting.counters if counter.is_stored for key in keys_of(counter)[1:]}
    texts = {key: text_of(events[key]) for key in sorted(asked)}
    labels = {inside(task) for task in log.tasks}
    # Written once: to find a slot takes longer than all sums.
    rows = events.select("user", "title", *sorted(labels), **texts, slot=spans.slot(events.time))
    return rows.filter(rows.slot > 0)


def title_values(work: Work, log: CheckedLog, column: str) -> ibis.Table:
    """Table `title`, `value`: each value that a title has in a column, once; null and empty text are none."""
    value = log.titles[inside(column)]
    value = value.unnest() if value.type().is_array() else value
    table = log.titles.select("title", value=value)
    table = table.mutate(value=table.value.cast("string"))
    table = table.filter(table.value.notnull(), table.value != "").distinct()
    return work.engine.store(table, work.folder / f"counted/values-{column}.parquet")

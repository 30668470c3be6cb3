"""Counters of random logs, compared one by one with what pandas counts in the same tables.

    python benchmarks/fuzz_counters.py --cases 200

The logs are those of `fuzz_prepare.py`: ids and columns of all types, nulls, impressions, ratings, files in random
splits. Each is prepared with counters of titles (alone, in a territory, with a column of the request) and of users
(alone, and with a column of the titles). Then every counter of every example, of every user's newest row and of every
stored title is counted anew by pandas, from the tables as they were drawn and event by event: rows of the last days
before the window's start whose first label is known, those of them where a task's label is 1, and the shrunk rate.

Expected: "200 logs: all counters are right", with the number of cells compared.
"""

import datetime

import fuzz_prepare
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from fuzz_prepare import FIRST, LOOKBACK, TEST, TRAIN

from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare

DAYS, PRIOR = (1, 2, 5), 3.5
DAY = datetime.timedelta(days=1)


class Truth:
    """The events of a case, and what pandas counts in them.

    Args:
        case: A `fuzz_prepare.Case`.
        context: `{name: column of the events}`.
        attribute: Column of the titles, or `None`.
    """

    def __init__(self, case, context, attribute):
        columns = case.events.columns
        self.tasks = [task for task in case.tasks or ("event",) if not case.tasks.get(task, "").endswith(":regression")]
        self.has_zeros, self.first = bool(case.tasks), next(iter(case.tasks), "event")
        log = pd.DataFrame({"time": columns["time"]})
        log["user"], log["title"] = ([None if v is None else str(v) for v in columns[c]] for c in ("user", "title"))
        for task in {self.first, *self.tasks}:
            values = [fuzz_prepare.label_of(case, task, row) for row in range(len(log))]
            log[f"label {task}"] = pd.array(values, "Float64")
        homes = dict(zip(map(str, case.users.columns["user"]), case.users.columns["territory"], strict=True))
        for name, column in context.items():
            log[name] = ["" if value is None else value for value in columns[column]]
        log["territory"] = log.user.map(homes)
        self.log, self.homes = log[log.user.notna() & log.title.notna()], homes
        self.values = {}
        for title, value in zip(case.titles.columns["title"], case.titles.columns.get(attribute, []), strict=False):
            some = value if isinstance(value, list) else [value]
            some = {str(v).lower() if isinstance(v, bool) else str(v) for v in some if v not in (None, "")}
            self.values[str(title)] = some
        self.cache, self.found = {}, {}

    def before(self, window, days):
        """The events of the last days before a window's start."""
        if (window, days) not in self.cache:
            start = FIRST + (window + TRAIN - 1) * DAY
            is_in = (self.log.time < start) & (self.log.time >= start - days * DAY)
            self.cache[window, days] = self.log[is_in]
        return self.cache[window, days]

    def features(self, columns, key, window):
        """`{feature: value}` of a counter; `key` has a value for each column, `None` for all that has no row."""
        place = (columns, tuple(key), window)
        if place not in self.found:
            self.found[place] = self.counted(columns, key, window)
        return self.found[place]

    def counted(self, columns, key, window):
        """The same, counted."""
        name, found = "_".join(columns), {}
        for days in DAYS:
            events = self.before(window, days)
            weight = np.ones(len(events))
            if columns[0] == "user" and len(columns) == 2:
                own = self.values[key[1]]  # the title whose values are asked for
                weight = np.array([len(own & self.values[title]) for title in events.title])
                weight = np.where(events.user == key[0], weight, 0)
            else:
                for column, value in zip(columns, key, strict=True):
                    weight = np.where(events[column] == value, weight, 0)
            if self.has_zeros:
                count = weight[events[f"label {self.first}"].notna().to_numpy()].sum()
                found[f"count_{name}_rows_{days}d"] = np.log1p(count)
            for task in self.tasks:
                label = events[f"label {task}"]
                known, positive = label.notna().to_numpy(), (label == 1).fillna(False).to_numpy(bool)
                found[f"count_{name}_{task}_{days}d"] = np.log1p(weight[positive].sum())
                if self.has_zeros:
                    overall = positive.sum() / known.sum() if known.any() else np.nan
                    rate = (weight[positive].sum() + PRIOR * overall) / (weight[known].sum() + PRIOR)
                    found[f"rate_{name}_{task}_{days}d"] = rate
        return found


def plan(case):
    """What is counted: `(counters, context, column of the titles or None)`, drawn by the case's seed."""
    rng = np.random.default_rng(case.seed)
    texts = [column.removesuffix(":id") for column in case.training.values() if column.endswith(":id")]
    context = {"tab": texts[0]} if texts else {}
    attributes = [name for name, kind in case.titles.kinds.items() if kind in ("text", "flag", "set")]
    attributes = [name for name in attributes if name not in ("title", "name")]
    attribute = attributes[rng.integers(len(attributes))] if attributes else None
    counters = [("title",), ("title", "territory"), ("user",)]
    counters += [("title", "tab"), ("title", "tab", "territory")] if context else []
    counters += [("user", attribute)] if attribute else []
    return [counters[place] for place in rng.permutation(len(counters))], context, attribute


def prepare_case(case, folder, engine="duckdb"):
    """Writes a case and prepares it with counters; `None` where there is nothing to learn from."""
    rng = np.random.default_rng(case.seed)
    tables = ("events", "users", "titles")
    paths = {name: fuzz_prepare.write(getattr(case, name), folder / name, rng) for name in tables}
    counters, context, _ = plan(case)
    logs = Logs(
        **paths,
        columns={name: name for name in ("user", "title", "territory", "time", "name")},
        calendar=Calendar(DAY, TRAIN, TEST, end=FIRST + TRAIN * DAY),
        tasks=case.tasks,
        context={name: f"{column}:id" for name, column in context.items()},
    )
    options = {**case.options, "random_fraction": 1.0, "discovery_lookback": LOOKBACK, "engine": engine}
    options |= {"counters": [",".join(columns) for columns in counters], "counter_days": DAYS, "counter_prior": PRIOR}
    try:
        return prepare(logs, folder / "out", progress=False, **options)
    except ValueError as error:
        known = ("must give positives in the training", "must have rows that reach", "must leave titles that users did")
        if any(text in str(error) for text in known):
            return None
        raise


def compare(case, data):
    """Compares all counters of a prepared folder with pandas; returns how many there were."""
    counters, context, attribute = plan(case)
    truth, count = Truth(case, context, attribute), 0
    for file in sorted(data.path.glob("examples/**/*.parquet")):
        window = int(file.parent.name.partition("=")[2])
        for row in pq.ParquetFile(file).read().to_pylist():
            for columns in counters:
                key = [row["title" if name == attribute else name] for name in columns]
                count += check(row, truth.features(columns, key, window), (file.parent.name, columns, key))
    for row in pq.read_table(data.path / "users.parquet").to_pylist() if ("user",) in counters else ():
        count += check(row, truth.features(("user",), [row["user"]], TEST + 1), ("newest", row["user"]))
    for columns in counters:
        if columns[0] != "title":
            continue
        table = pq.read_table(data.path / "counters" / f"{'_'.join(columns)}.parquet").to_pylist()
        for row in table:
            key = [row[name] for name in columns]
            count += check(row, truth.features(columns, key, row["window"]), ("stored", columns, key, row["window"]))
        stored = {(row["window"], *(row[name] for name in columns)) for row in table}
        for window in range(1 - TRAIN, TEST + 2):
            for key in {tuple(event) for event in truth.before(window, max(DAYS))[list(columns)].to_numpy()}:
                assert (window, *key) in stored, f"{columns} of {key} before {window} is not stored"
    return count


def check(row, right, place):
    """Fails, with the place, unless a row has the right values; returns how many there are."""
    for name, value in right.items():
        found = np.nan if row[name] is None else row[name]
        assert np.isclose(found, value, rtol=1e-6, atol=1e-7, equal_nan=True), f"{place}, {name}: {found}, not {value}"
    return len(right)


def main(num_cases=200, engine="duckdb", seed=0):
    """Runs the cases; returns `(logs, cells)` that were compared."""

    def count(case, folder):
        data = prepare_case(case, folder, engine)
        return compare(case, data) if data else 0

    counts = fuzz_prepare.run_cases(count, num_cases, seed)
    print(f"{len(counts)} logs: all counters are right, of {sum(counts):,} cells; {counts.count(0)} had no positive")
    return len(counts), sum(counts)


if __name__ == "__main__":
    main(*fuzz_prepare.arguments(__doc__, 200))

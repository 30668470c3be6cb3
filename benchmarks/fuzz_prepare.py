"""Random logs, prepared and compared cell by cell with what pandas computes from the same tables.

    python benchmarks/fuzz_prepare.py --cases 2000

Hypothesis draws a log: what ids are, which columns users, titles and events have and how they are called, where nulls
are, whether impressions or ratings are logged, and where negatives come from. The tables are written in random splits
over files, Parquet or CSV; each file of Parquet stores a column in any type that holds its values. `prepare` runs on
them. Then pandas says which users had which title for the first time, which rows of the log are negatives, and what a
negative that is drawn may not be, and every label and feature of every example is compared with the tables as they were
drawn.

Expected: "2000 logs: all cells are right", with the number of examples compared.
"""

import argparse
import collections
import csv
import dataclasses
import datetime
import decimal
import hashlib
import operator
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tfmtr.datasets.funnel import FATES
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare

START = datetime.datetime(2024, 3, 1)
DAYS, TRAIN, TEST = 9, 5, 2
LOOKBACK = datetime.timedelta(days=3)
FIRST = START + datetime.timedelta(days=DAYS - TRAIN - TEST)  # of the first window
TERRITORIES = ("DE", "NA", "São Tomé", "01")
WORDS = (
    "drama",
    "sci-fi",
    "é",
    "e\u0301",
    "a,b",
    'say "hi"',
    "two\nlines",
    " blank",
    "NA",
    "null",
    "tab\there",
    "x;y|z",
)
FILES = [[f"{name}{number}" for number in range(5)] for name in ("part-", "day=0", "two words ", "50%2", "é")]
FILES += [["E[1]", "E1", "E*", "E22", "E?"]] * 3  # patterns that would match one another
NAMES = (
    "rank",
    "draw",
    "order",
    "wanted",
    "count",
    "schema",
    "time_right",
    "start",
    "row",
    "text",
    "x",
    "Points",
    "a.b",
)
NAMES += (
    "position",
    "select",
    "level-2",
    "users",
    "is_event",
    "earlier",
    "pairs",
    "num_users",
    "key",
    "value",
    "states",
)
COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq}
KINDS = ("text", "flag", "small", "whole", "large", "float", "decimal", "set")
NUMBERS = ("small", "whole", "large", "float", "decimal")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as it was drawn: Python values, `None` for a null.

    Args:
        columns: `{name: list of values}`.
        kinds: `{name: kind of its values}`.
        parts: Rows of each file, a list of lists.
        form: `"parquet"` or `"csv"`.
    """

    columns: dict[str, list[Any]]
    kinds: dict[str, str]
    parts: list[list[int]]
    form: str


@dataclasses.dataclass(frozen=True)
class Case:
    """A log: three tables, what `prepare` is told of them, and the seed of how files are written."""

    users: Table
    titles: Table
    events: Table
    tasks: dict[str, str]
    training: dict[str, str]
    has_impressions: bool  # or low ratings
    options: dict[str, Any]
    seed: int


@st.composite
def cases(draw):
    """Draws a `Case`."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    names = iter(draw(st.permutations(NAMES)))
    ids = {key: draw(st.sampled_from(("text", "whole", "large"))) for key in ("user", "title")}
    users = _column(rng, ids["user"], int(rng.integers(8, 25)), unique=True)
    titles = _column(rng, ids["title"], int(rng.integers(4, 10)), unique=True)
    has_impressions = draw(st.booleans())

    count = int(rng.integers(80, 240))
    seconds = np.sort(rng.choice(DAYS * 86_400, count, replace=False))
    seconds[:3] = np.arange(3) * 86_400  # some at midnight, which a file may keep as days
    times = [START + datetime.timedelta(seconds=int(s)) for s in np.sort(np.unique(seconds))]
    columns = {
        "user": [_or_null(rng, users[i], 0.02) for i in rng.integers(len(users), size=len(times))],
        "title": [_or_null(rng, titles[i], 0.02) for i in rng.integers(len(titles), size=len(times))],
        "time": times,
    }
    kinds = {"user": ids["user"], "title": ids["title"], "time": "time"}
    tasks, training = {}, {}
    threshold = ""
    if has_impressions:
        name, threshold = next(names), draw(st.sampled_from(("", "", ">=0", "> -0.6", "<= 0.4", "<1", "==0.4")))
        columns[name], kinds[name] = [_or_null(rng, int(rng.random() < 0.5), 0.03) for _ in times], "label"
        if threshold:
            columns[name], kinds[name] = _with_nulls(rng, _column(rng, "float", len(times))), "float"
        tasks[name] = name + threshold
        for kind in draw(st.lists(st.sampled_from(("label", *NUMBERS)), min_size=1, max_size=3)):
            name = next(names)
            columns[name], kinds[name] = _with_nulls(rng, _column(rng, kind, len(times))), kind
            tasks[name] = name if kind == "label" else f"{name}:regression" if rng.random() < 0.7 else f"{name} >= 1"
    for kind in draw(st.lists(st.sampled_from(("text", *NUMBERS)), min_size=2, max_size=4)):
        name = next(names)
        columns[name], kinds[name] = _with_nulls(rng, _column(rng, kind, len(times))), kind
        training[name] = f"{name}:id" if kind == "text" else name
    events = _table(draw, rng, columns, kinds)

    def entity(key, values, fixed):
        columns, kinds = {key: values, **fixed}, {key: ids[key], **dict.fromkeys(fixed, "text")}
        for kind in draw(st.lists(st.sampled_from(KINDS), min_size=2, max_size=4)):
            name = next(names)
            columns[name], kinds[name] = _with_nulls(rng, _column(rng, kind, len(values))), kind
        return _table(draw, rng, columns, kinds)

    user_table = entity("user", users, {"territory": [str(rng.choice(TERRITORIES)) for _ in users]})
    title_table = entity("title", titles, {"name": [f"Film {i} of {WORDS[i % 3]}" for i in range(len(titles))]})
    low_ratings = draw(st.sampled_from(("hide", "negatives"))) if threshold else "hide"
    is_logged = has_impressions and (not threshold or low_ratings == "negatives")
    negatives = draw(st.sampled_from(("both", "logged") if is_logged else ("both", "sampled")))
    if is_logged and not threshold and rng.random() < 0.2:
        negatives = "sampled"
    alpha = (1000.0, 1.5)[rng.integers(2)] if negatives == "logged" else (0.6, 3.0)[rng.integers(2)]
    options = {"alpha": alpha, "negatives": negatives, "low_ratings": low_ratings}
    return Case(user_table, title_table, events, tasks, training, has_impressions, options, seed)


def _column(rng, kind, count, *, unique=False):
    """Values of a kind."""
    if kind == "label":
        return [int(value) for value in rng.integers(2, size=count)]
    if kind == "text":
        words = [f"{WORDS[i]}{'' if not unique else n}" for n, i in enumerate(rng.integers(len(WORDS), size=count))]
        return [f"00{n}" if unique and rng.random() < 0.3 else word for n, word in enumerate(words)]
    if kind == "flag":
        return [bool(value) for value in rng.integers(2, size=count)]
    if kind == "set":
        return [[str(word) for word in rng.choice(WORDS, rng.integers(4), replace=False)] for _ in range(count)]
    rare = rng.random(count) < rng.choice((0.02, 0.5))
    if rng.random() < 0.5:
        rare[: 2 * count // 3] = False  # so that the first files hold none of them
    if kind in ("small", "whole", "large"):
        low = {"small": 0, "whole": 10**9, "large": 2**53 + 1}[kind]
        numbers = rng.permutation(100_000)[:count] if unique else rng.integers(100, size=count)
        wide = numbers if unique else np.where(rare, rng.integers(-70_000, 70_000, size=count), numbers)
        return [low + int(value) for value in wide]
    whole = rng.integers(-5, 5, size=count)
    if kind == "decimal":
        return [decimal.Decimal(int(value)) / 4 for value in np.where(rare, 4 * whole + 1, 4 * whole)]
    return [float(value) for value in np.round(whole + rare * 0.4, 1)]


def _or_null(rng, value, share):
    return None if rng.random() < share else value


def _with_nulls(rng, values):
    """The values, some of them null, but never all: a column of nulls has no kind."""
    share = rng.choice((0.0, 0.3, 0.9))
    kept = [_or_null(rng, value, share) for value in values]
    kept[0] = values[0] if kept[0] is None else kept[0]
    return kept


def _table(draw, rng, columns, kinds):
    count = len(next(iter(columns.values())))
    parts = draw(st.integers(2, 5))
    places = np.sort(rng.integers(parts, size=count)) if draw(st.booleans()) else rng.integers(parts, size=count)
    rows = [np.flatnonzero(places == part).tolist() for part in range(parts)]
    form = draw(st.sampled_from(("parquet", "parquet", "csv")))
    return Table(columns, kinds, rows, "parquet" if "set" in kinds.values() else form)


# Writing -------------------------------------------------------------------------------------------------------------


def write(table, folder, rng):
    """Writes a table's files, and beside them what no reader may take: uncommitted ones, and an empty one."""
    folder.mkdir(parents=True)
    names_of_files = FILES[rng.integers(len(FILES))]
    names = list(table.columns)
    for number, rows in enumerate(table.parts):
        order = [names[i] for i in rng.permutation(len(names))]
        path = folder / f"{names_of_files[number]}.{table.form}"
        if table.form == "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, delimiter=",;\t"[number % 3])
                writer.writerow(order)
                texts = {c: _as_csv([table.columns[c][row] for row in rows], table.kinds[c], rng) for c in order}
                writer.writerows([texts[c][i] for c in order] for i in range(len(rows)))
        else:
            arrays = {c: _as_arrow([table.columns[c][row] for row in rows], table.kinds[c], rng) for c in order}
            pq.write_table(pa.table(arrays), path)
    if table.form == "parquet":
        every = pa.table({c: pa.array([], (pa.string(), pa.null(), pa.float64())[rng.integers(3)]) for c in names})
        pq.write_table(every, folder / ("a-empty.parquet", "z-empty.parquet")[rng.integers(2)])
        twice = pa.table({c: _as_arrow(values, table.kinds[c], rng) for c, values in table.columns.items()})
        for hidden in ("_temporary/0/part.parquet", ".part.parquet.crc", "_old.parquet", ".hidden.parquet"):
            (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(twice, folder / hidden)
    return folder


def _as_csv(values, kind, rng):
    if kind == "time":
        pattern = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ")[rng.integers(2)]
        return [value.strftime(pattern) for value in values]
    as_floats = kind in ("small", "whole") and None in values  # as pandas writes them
    return ["" if v is None else str(float(v)) if as_floats else str(v) for v in values]


def _as_arrow(values, kind, rng):
    """An array of any type that holds the values."""
    known = [value for value in values if value is not None]
    if not known:
        return pa.nulls(len(values)) if rng.random() < 0.5 else pa.array(values, types_of(kind, known)[0])
    types = types_of(kind, known)
    dtype = types[rng.integers(len(types))]
    if kind == "text" and rng.random() < 0.3:
        values = ["" if value is None else value for value in values]
    if pa.types.is_date(dtype):
        values = [value.date() for value in values]
    if pa.types.is_floating(dtype):
        values = [None if value is None else float(value) for value in values]
    if pa.types.is_integer(dtype):
        values = [None if value is None else int(value) for value in values]
    if pa.types.is_boolean(dtype):
        values = [None if value is None else bool(value) for value in values]
    return pa.array(values, dtype)


def types_of(kind, known):
    """Arrow types that hold values of a kind."""
    if kind == "text":
        return [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
    if kind == "flag":
        return [pa.bool_()]
    if kind == "set":
        return [pa.list_(pa.string()), pa.large_list(pa.large_string())]
    if kind == "time":
        units = [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")]
        return [*units, pa.date32()] if all(value.time() == datetime.time() for value in known) else units
    is_whole = all(value == int(value) for value in known)
    types = (
        [pa.decimal128(12, 2)] if kind == "decimal" else [pa.float64()] if kind in ("float", "small", "whole") else []
    )
    types += [pa.bool_()] if kind == "label" else []
    types += [pa.decimal128(2, 0)] if kind == "decimal" and is_whole else []
    if kind == "label" or (is_whole and kind != "decimal"):
        types += [
            dtype for dtype in (pa.int8(), pa.int16(), pa.uint16(), pa.int32(), pa.int64()) if _fits(known, dtype)
        ]
    if kind == "float":
        types += [pa.float32()] if all(np.float32(value) == value for value in known) else []
    return types


def _fits(known, dtype):
    bits = dtype.bit_width - pa.types.is_signed_integer(dtype)
    low = -(2**bits) if pa.types.is_signed_integer(dtype) else 0
    return all(low <= value < 2**bits for value in known)


# What is right -------------------------------------------------------------------------------------------------------


def split_of(user):
    """The split of a user with the seed 0 and the default fractions: by the first digits of a hash."""
    share = int(hashlib.md5(f"0|split|{user}".encode()).hexdigest()[:8], 16) / 16**8
    return "test" if share < 0.3 else "validation" if share < 0.4 else "train"


def label_of(case, task, row):
    """The label of a row of the events, `None` where it has none."""
    if task not in case.tasks:
        return 1
    text = case.tasks[task].partition(":")[0]
    column = max((name for name in case.events.columns if text.startswith(name)), key=len)
    value, condition = case.events.columns[column][row], text.removeprefix(column).strip()
    if not condition or value is None:
        return value
    sign = condition[:2].rstrip(" -0123456789")
    return int(COMPARISONS[sign](float(value), float(condition.removeprefix(sign))))


@dataclasses.dataclass(frozen=True)
class Expected:
    """The examples that a log gives, by pandas; keys are `(split, window, user, title)`.

    Args:
        positives: `{key: row of the event}`.
        logged: `{key: row of the event}` of the negatives that the log has.
        refused: Keys that no negative that is drawn may have.
        wanted: `{(split, window): how many negatives are drawn}`.
        offered: `{(window, territory): titles}`.
        homes: `{user: territory}`.
    """

    positives: dict
    logged: dict
    refused: set
    wanted: dict
    offered: dict
    homes: dict


def expected_rows(case, splits):
    """The `Expected` of a case; `splits` are `{user: split}`."""
    columns = case.events.columns
    first_task = next(iter(case.tasks), None)
    log = pd.DataFrame({"row": range(len(columns["time"])), **{c: columns[c] for c in ("user", "title", "time")}})
    log["user"], log["title"] = ([None if v is None else str(v) for v in columns[c]] for c in ("user", "title"))
    log["label"] = [label_of(case, first_task, row) for row in log.row]
    log = log[log.user.notna() & log.title.notna()].sort_values("time")
    log["window"] = [(time - FIRST) // datetime.timedelta(days=1) - TRAIN + 1 for time in log.time]
    homes = dict(zip(map(str, case.users.columns["user"]), case.users.columns["territory"], strict=True))
    log["territory"] = log.user.map(homes)
    firsts = log.groupby(["territory", "title"]).time.min().to_dict()

    offered = collections.defaultdict(set)
    for window in range(1 - TRAIN, TEST + 1):
        for (territory, title), first in firsts.items():
            if first < FIRST + datetime.timedelta(days=window + TRAIN - 1):
                offered[window, territory].add(title)

    def is_row(row):
        is_offered = row.title in offered[int(row.window), row.territory]
        return row.window > -TRAIN and is_offered and (splits[row.user] != "test" or row.window > 0)

    found, latest, chosen = {}, {}, set()
    for row in log[(log.label == 1)].itertuples():
        before = latest.get((row.user, row.title))
        latest[row.user, row.title] = row.time
        key = (splits[row.user], int(row.window), row.user, row.title)
        chosen.add(key)
        if (before is None or before < row.time - LOOKBACK) and key not in found and is_row(row):
            found[key] = row.row
    wanted = collections.Counter(key[:2] for key in found)
    wanted = {stratum: int(count * case.options["alpha"] + 0.5) for stratum, count in wanted.items()}
    zeros = {}
    for row in log[(log.label == 0)].itertuples():
        key = (splits[row.user], int(row.window), row.user, row.title)
        if key not in chosen and key[:2] in wanted and is_row(row):
            zeros.setdefault(key, row.row)
    is_rating = first_task is not None and case.tasks[first_task] != first_task
    logged, is_hidden = {}, is_rating and case.options["low_ratings"] == "hide"
    if case.options["negatives"] != "sampled" and not is_hidden:
        for key in sorted(zeros, key=draw_of):
            if sum(other[:2] == key[:2] for other in logged) < wanted[key[:2]]:
                logged[key] = zeros[key]
    drawn = dict.fromkeys(wanted, 0) if case.options["negatives"] == "logged" else wanted
    drawn = {s: max(0, count - sum(key[:2] == s for key in logged)) for s, count in drawn.items()}
    refused = {*chosen, *logged}
    for row in log[(log.label == 0) & (log.window <= TEST)].itertuples() if is_hidden else ():
        later = range(max(int(row.window), 1 - TRAIN), TEST + 1)
        refused |= {(splits[row.user], window, row.user, row.title) for window in later}
    return Expected(found, logged, refused, drawn, offered, homes)


def draw_of(key):
    """What logged negatives are sorted by, with the seed 0."""
    _, window, user, title = key
    return hashlib.md5(f"0|impression|{user}|{title}|{window}".encode()).hexdigest()


def compare(case, data):
    """Compares every example of a prepared folder with the log; returns how many there were."""
    features = {feature.name: feature for feature in data.schema.features}
    users, titles = (
        {str(value): row for row, value in enumerate(table.columns[key])}
        for key, table in (("user", case.users), ("title", case.titles))
    )
    rows = collections.defaultdict(list)
    for file in sorted(data.path.glob("examples/**/*.parquet")):
        split, _, window = (part.partition("=")[2] for part in file.parts[-4:-1])
        rows[split, int(window)] += pq.ParquetFile(file).read().to_pylist()
    splits = {user: split_of(user) for user in users}
    wanted = expected_rows(case, splits)
    count, missing, drawn = 0, wanted.positives | wanted.logged, collections.Counter()
    for (split, window), some in rows.items():
        for row in some:
            key = (split, window, row["user"], row["title"])
            event = missing.pop(key, None)
            if event is None:
                assert key not in wanted.refused, f"{key} is no negative"
                is_offered = row["title"] in wanted.offered[window, wanted.homes[row["user"]]]
                assert is_offered, f"{key} was not available"
                drawn[split, window] += 1
            for task in case.tasks or ("event",):
                if event is None:
                    value = None if case.tasks.get(task, "").endswith(":regression") else 0
                else:
                    value = label_of(case, task, event)
                check(row[task], np.float32(value) if value is not None else None, key, task)
            for name in case.training:
                value = None if event is None else case.events.columns[name][event]
                check(row[name], as_written(value, features[name]), key, name)
            for table, place in ((case.users, users[row["user"]]), (case.titles, titles[row["title"]])):
                for name in list(table.columns)[1:]:
                    if name != "name":
                        check(row[name], as_written(table.columns[name][place], features[name]), key, name)
            count += 1
    assert not missing, f"{list(missing)[:3]} are missing"
    for (split, window), number in wanted.wanted.items():
        free = sum(len(wanted.offered[window, wanted.homes[user]]) for user in users if splits[user] == split)
        free -= sum(
            key[:2] == (split, window) and key[3] in wanted.offered[window, wanted.homes[key[2]]]
            for key in wanted.refused
        )
        found = drawn.pop((split, window), 0)
        assert min(number, free) / 2 <= found <= number, f"{found} drawn for {split}, {window}: {number} of {free}"
    assert not drawn, f"negatives were drawn where there is no positive: {drawn}"
    for row in data.report["funnel"]:
        assert sum(row[name] for name in FATES) == row["rows"], f"fates of {row} do not add up"
    return count


def as_written(value, feature):
    """A value as the examples have it: nulls are null, empty text or an empty list."""
    if feature.kind == "number":
        return None if value is None else np.float32(value)
    if feature.kind == "set":
        return [] if value is None else value
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def check(found, right, key, name):
    """Fails, with the place, unless a cell is right."""
    assert found == right or (found is None and right is None), f"{key}, {name}: {found!r}, not {right!r}"


def prepare_case(case, folder, engine="duckdb"):
    """Writes a case and prepares it; returns the `Dataset` folder, or `None` where there is no positive."""
    rng = np.random.default_rng(case.seed)
    tables = ("events", "users", "titles")
    paths = {name: write(getattr(case, name), folder / f"{name} 1", rng) for name in tables}
    logs = Logs(
        **paths,
        columns={name: name for name in ("user", "title", "territory", "time", "name")},
        calendar=Calendar(datetime.timedelta(days=1), TRAIN, TEST, end=FIRST + datetime.timedelta(days=TRAIN)),
        tasks=case.tasks,
        training=case.training,
    )
    options = {**case.options, "random_fraction": 1.0, "discovery_lookback": LOOKBACK}
    try:
        return prepare(logs, folder / "day=01 [out]", engine=engine, progress=False, **options)
    except ValueError as error:
        if any(text in str(error) for text in ("must give positives in the training", "must have rows that reach")):
            return None
        if case.options["negatives"] == "logged" and "must leave titles that users did not have" in str(error):
            return None
        raise


def run_cases(count, num_cases, seed):
    """`count(case, folder)` of so many random logs, each in a folder of its own; returns a list of what it returned."""
    counts = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=num_cases,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],  # a log is small already, and smaller ones take as long
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(cases())
    def each(case):
        with tempfile.TemporaryDirectory() as folder:
            counts.append(count(case, Path(folder)))

    each()
    return counts


def arguments(text, num_cases):
    """What the command line says: `(cases, engine, seed)`."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=num_cases, help="Number of logs.")
    parser.add_argument("--engine", default="duckdb", choices=("duckdb", "spark"), help="What prepares them.")
    parser.add_argument("--seed", type=int, default=0, help="Of what is drawn.")
    found = parser.parse_args()
    return found.cases, found.engine, found.seed


def main(num_cases=2000, engine="duckdb", seed=0):
    """Runs the cases; returns `(logs, examples)` that were compared."""

    def count(case, folder):
        data = prepare_case(case, folder, engine)
        return compare(case, data) if data else 0

    counts = run_cases(count, num_cases, seed)
    print(f"{len(counts)} logs: all cells are right, of {sum(counts):,} examples; {counts.count(0)} had no positive")
    return len(counts), sum(counts)


if __name__ == "__main__":
    main(*arguments(__doc__, 2000))

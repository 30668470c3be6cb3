"""The log that the cases of wrong input start from: 300 users, 40 titles, 28 days, 3,600 events."""

import datetime

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare

START = pd.Timestamp("2024-03-01")
CALENDAR = Calendar(datetime.timedelta(days=7), num_train=2, num_test=1)
COLUMNS = {name: name for name in ("user", "title", "territory", "time", "name")}


def base(users=300, titles=40, days=28, per=12, seed=0):
    """Events, users and titles as data frames."""
    r = np.random.default_rng(seed)
    user_table = pd.DataFrame(
        {
            "user": [f"u{i:04d}" for i in range(users)],
            "territory": r.choice(("US", "DE", "JP", "BR"), users),
            "age": r.integers(18, 70, users),
        }
    )
    kinds = ["drama" if i % 2 else "comedy" for i in range(titles)]
    title_table = pd.DataFrame(
        {
            "title": [f"t{i:03d}" for i in range(titles)],
            "name": [f"Film {i} {kind}" for i, kind in enumerate(kinds)],
            "genre": kinds,
        }
    )
    n = users * per
    events = pd.DataFrame(
        {
            "user": r.choice(user_table.user, n),
            "title": r.choice(title_table.title, n),
            "time": START + pd.to_timedelta(r.integers(0, days * 86400, n), unit="s"),
        }
    )
    events["click"] = (r.random(n) < 0.5).astype("int64")
    events["buy"] = ((r.random(n) < 0.3) & (events.click == 1)).astype("int64")
    events["seconds"] = np.where(events.click == 1, r.integers(1, 600, n).astype(float), 0.0)
    events["pos"] = r.integers(1, 20, n)
    return events.sort_values("time").reset_index(drop=True), user_table, title_table


def halves(events):
    """The first and the second half of a table."""
    middle = len(events) // 2
    return events[:middle].copy(), events[middle:].copy()


def write(folder, name, table):
    """Writes a table: a data frame or an Arrow table as one Parquet file, a list of them as a folder of files."""
    if isinstance(table, list):
        path = folder / name
        for number, part in enumerate(table):
            write(path, f"part-{number}", part)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    if hasattr(table, "to_parquet"):
        table.to_parquet(path, index=False)
    else:
        pq.write_table(table, path)
    return path


def make_logs(folder, events, users, titles, **changes):
    """`Logs` of tables, each a data frame, a list of them (a folder of files) or a path."""
    tables = {"events": events, "users": users, "titles": titles}
    paths = {n: table if hasattr(table, "exists") else write(folder, n, table) for n, table in tables.items()}
    return Logs(**{**paths, "columns": COLUMNS, "calendar": CALENDAR, "tasks": {"click": "click"}, **changes})


def prepared(folder, events, users, titles, *, options=None, **changes):
    """The `Dataset` folder of `make_logs`, by default of logged negatives alone: all labels are cells of the log."""
    logs = make_logs(folder, events, users, titles, **changes)
    return prepare(logs, folder / "out", progress=False, **{"negatives": "logged", **(options or {})})


def examples(data):
    """All examples of a prepared folder as one data frame."""
    files = sorted(data.path.glob("examples/**/*.parquet"))
    return pd.concat([pq.ParquetFile(file).read().to_pandas() for file in files], ignore_index=True)


def read_examples(data):
    """All examples with their split, sampling and window."""
    parts = []
    for file in sorted(data.path.glob("examples/*/*/*/*.parquet")):
        part = pq.ParquetFile(file).read().to_pandas()
        for folder in file.parts[-4:-1]:
            key, _, value = folder.partition("=")
            part[key] = int(value) if key == "window" else value
        parts.append(part)
    return pd.concat(parts, ignore_index=True)

"""A log in which one title leads to the next: who had t00 takes t01 soon. Two territories begin elsewhere."""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare

DAYS, TITLES = 9, 24
START = datetime.datetime(2024, 3, 1)


def chain_events(users: int = 160, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Events `user`, `title`, `time`, and users `user`, `territory`."""
    rng = np.random.default_rng(seed)
    homes = rng.choice(["DE", "FR"], users)
    rows = []
    for user, home in enumerate(homes):
        at = int(rng.integers(0, TITLES // 2)) + (0 if home == "DE" else TITLES // 2)
        for day in np.flatnonzero(rng.random(DAYS) < 0.8):
            time = pd.Timestamp(START) + pd.Timedelta(days=int(day), seconds=int(rng.integers(0, 86_400)))
            rows.append((f"u{user:03}", f"t{at % TITLES:02}", time))
            at += 1 if rng.random() < 0.9 else int(rng.integers(1, TITLES))
    events = pd.DataFrame(rows, columns=["user", "title", "time"])
    return events, pd.DataFrame({"user": [f"u{user:03}" for user in range(users)], "territory": homes})


def chain_data(folder: Path, *, num_test: int = 2, change=None, counters=()) -> Dataset:
    """The log, prepared; `change` is a function of its events, `counters` those of `prepare`."""
    events, users = chain_events()
    titles = pd.DataFrame({"title": [f"t{i:02}" for i in range(TITLES)], "name": [f"part {i}" for i in range(TITLES)]})
    paths = {name: folder / f"{name}.parquet" for name in ("events", "users", "titles")}
    folder.mkdir(parents=True, exist_ok=True)
    (events if change is None else change(events)).to_parquet(paths["events"], index=False)
    users.to_parquet(paths["users"], index=False)
    titles.to_parquet(paths["titles"], index=False)
    end = START + datetime.timedelta(days=DAYS - num_test)
    calendar = Calendar(datetime.timedelta(days=1), num_train=DAYS - 2 - num_test, num_test=num_test, end=end)
    columns = {name: name for name in ("user", "title", "territory", "time", "name")}
    logs = Logs(**paths, columns=columns, calendar=calendar, availability="anywhere")
    options = {"test_fraction": 0.2, "validation_fraction": 0.3, "counters": counters}
    options |= {"counter_days": (2,)} if counters else {}
    return prepare(logs, folder / "data", progress=False, **options)

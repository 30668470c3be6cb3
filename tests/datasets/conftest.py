import datetime

import numpy as np
import pandas as pd
import pytest

from tfmtr.datasets.logs import Calendar, Logs

NUM_USERS, NUM_TITLES, NUM_EVENTS, DAYS = 60, 25, 900, 12


def small_tables(seed=0):
    """Events, users and titles of a service small enough for brute force."""
    rng = np.random.default_rng(seed)
    users = pd.DataFrame(
        {
            "uid": [f"u{i:02}" for i in range(NUM_USERS)],
            "market": rng.choice(["DE", "FR", "US"], NUM_USERS, p=[0.5, 0.3, 0.2]),
            "device": rng.choice(["tv", "phone"], NUM_USERS),
            "age": rng.integers(18, 80, NUM_USERS),
        }
    )
    titles = pd.DataFrame(
        {
            "asin": [f"t{i:02}" for i in range(NUM_TITLES)],
            "title name": [f"Story {i} of {('war', 'love')[i % 2]}" for i in range(NUM_TITLES)],
            "genres": [["drama"] if i % 2 else ["crime", "drama"] for i in range(NUM_TITLES)],
        }
    )
    seconds = rng.integers(0, DAYS * 86_400, NUM_EVENTS)
    events = pd.DataFrame(
        {
            "uid": rng.choice(users.uid, NUM_EVENTS),
            "asin": rng.choice(titles.asin, NUM_EVENTS, p=np.arange(1, NUM_TITLES + 1) / 325),
            "ts": datetime.datetime(2024, 1, 1) + pd.to_timedelta(seconds, unit="s"),
        }
    )
    return events, users, titles


@pytest.fixture
def tables():
    return small_tables()


@pytest.fixture(scope="module")
def module_tables():
    return small_tables()


@pytest.fixture(scope="session")
def make_logs(tmp_path_factory):
    """Returns a function that writes three tables and describes them as `Logs`."""

    def make(events, users, titles, **changes):
        folder = tmp_path_factory.mktemp("tables")
        paths = {}
        for name, table in (("events", events), ("users", users), ("titles", titles)):
            paths[name] = folder / f"{name}.parquet"
            table.to_parquet(paths[name], index=False)
        columns = {"user": "uid", "title": "asin", "territory": "market", "time": "ts", "name": "title name"}
        calendar = Calendar(datetime.timedelta(days=1), num_train=4, num_test=3)
        return Logs(**{**paths, "columns": columns, "calendar": calendar, **changes})

    return make

"""The service of `base_log` for tests of its days: a week of training, then days as a test changes them."""

import datetime
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.base_log import COLUMNS, START, base
from helpers.untraced import untraced
from tfmtr import training
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare
from tfmtr.operations.day import daily
from tfmtr.operations.service import start_service

DAYS = 24  # of the log that the service begins with
# Without a list model: what it does in days is told by `test_day.py`.
RECIPE = training.Recipe(units=(8,), epochs=1, batch_size=4096, listwise=False)
OPTIONS = {"max_drop": 0.9, "max_shift": 0.9}  # the base log has nothing to learn; its models may do what they like


def quiet(line):
    """Says nothing."""


def date(number):
    """Date of the log's day, from 0."""
    return (START + pd.Timedelta(days=number)).date()


class Tables:
    """The log as data frames that a test changes, and the folder that they are written to.

    Attributes:
        events, users, titles: Data frames; `events` are all of the 28 days.
        vectors: `{title: vector}`.
        folder: Where they are.
    """

    def __init__(self, folder):
        self.events, self.users, self.titles = base(users=600, per=24)
        self.titles["length"] = np.arange(len(self.titles), dtype="float64")
        rng = np.random.default_rng(1)
        self.vectors = {title: rng.normal(size=6).astype("float32") for title in self.titles.title}
        self.folder = folder

    def of_day(self, number):
        """Events of one day."""
        return self.events[self.events.time.dt.date == date(number)].copy()

    def write(self, *, events=None, name="events/all"):
        """Writes users, titles and the titles' store, and a file of events if there are any."""
        (self.folder / "events").mkdir(parents=True, exist_ok=True)
        (self.folder / "store").mkdir(exist_ok=True)
        if events is not None:
            events.to_parquet(self.folder / f"{name}.parquet", index=False)
        self.users.to_parquet(self.folder / "users.parquet", index=False)
        self.titles.to_parquet(self.folder / "titles.parquet", index=False)
        ids = [title for title in self.titles.title if title in self.vectors]
        np.save(self.folder / "store" / "vectors.npy", np.stack([self.vectors[title] for title in ids]))
        pq.write_table(pa.table({"title": ids}), self.folder / "store" / "ids.parquet")

    def logs(self, **changes):
        """The `Logs`, with a calendar of a fortnight."""
        end = datetime.datetime.combine(date(DAYS - 1), datetime.time())
        paths = {name: self.folder / f"{name}.parquet" for name in ("users", "titles")}
        return Logs(
            **{
                **paths,
                "events": self.folder / "events",
                "title_vectors": self.folder / "store",
                "columns": COLUMNS,
                "tasks": {"click": "click"},
                "calendar": Calendar(datetime.timedelta(days=1), 14, 1, end=end),
                **changes,
            }
        )


def begin(folder, **changes):
    """A log up to day `DAYS`, a run and the service that goes on from there: `Tables`."""
    tables = Tables(folder / "log")
    tables.write(events=tables.events[tables.events.time < pd.Timestamp(date(DAYS))])
    logs = tables.logs(**changes)
    data = prepare(logs, folder / "data", validation_fraction=0.3, test_fraction=0.1, num_groups=2, progress=False)
    with untraced():  # one epoch of a few steps
        training.train(data.path, folder / "run", RECIPE, verbose=0)
    start_service(folder / "service", folder / "run", folder / "model")
    return tables


def copy_of(folder, target):
    """A copy of `begin`'s folder, or of a later state of it, with paths of its own: `Tables`."""
    shutil.copytree(folder, target)
    for file in target.rglob("*.json"):
        file.write_text(file.read_text().replace(str(folder), str(target)))
    for file in target.rglob("keys.json"):
        file.unlink()
    return Tables(target / "log")


def run_day(tables, number=DAYS, *, lines=None, **options):
    """One day of the service; what it says goes into `lines`."""
    say = quiet if lines is None else lines.append
    return daily(tables.folder.parent / "service", date(number), say=say, **{**OPTIONS, **options})

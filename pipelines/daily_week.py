"""A week of a service that trains every day, with late events, a new territory, a new group and a day gone wrong.

    python pipelines/daily_week.py

A simulated service logs six weeks, a model is trained on the last two of them and served. Then the days come one by
one: each evening the day's events are there, but for 3 % that arrive a day late; on the third day a territory opens
that no model has seen, in a group of its own; on the fifth the log is wrong, every event has any title.
`tfmtr daily` trains, judges and publishes; a server takes each version while it runs. At the end the last version is
rolled back and one user is forgotten.

Expected: six days promoted, the fifth refused, and every question answered by the version that is live.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from tfmtr import training
from tfmtr.datasets.logs import Calendar
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.simulator import START, simulator
from tfmtr.operations.day import daily
from tfmtr.operations.forgetting import forget
from tfmtr.operations.service import read_live, read_service, rollback, start_service
from tfmtr.serving.client import Client
from tfmtr.serving.recommendations import recommend
from tfmtr.serving.server import Server

FIRST_DAY, DAYS, BAD_DAY, NEW_DAY = 45, 7, 5, 3  # of the simulator's 60 days; of the week, from 1
LATE = 0.03
MAX_DROP = 0.1  # of the gate: what is shown changes week by week, and a new model forgets some of the days before
AVAILABLE = 30  # state of a version in the protocol


class Log:
    """The tables of a service as they grow day by day."""

    def __init__(self, folder, num_users):
        self.logs = simulator(folder / "truth", num_users=num_users, num_titles=200, num_territories=8)
        self.events, self.users = (pq.read_table(path) for path in (self.logs.events, self.logs.users))
        self.day = (pc.cast(self.events["time"], pa.int64()).to_numpy() // 1_000_000 - int(START.timestamp())) // 86_400
        self.is_late = np.random.default_rng(0).random(len(self.events)) < LATE
        territories = sorted(self.users["territory"].unique().to_pylist(), key=lambda name: int(name[-2:]))
        self.new = territories[2]  # the third largest opens on NEW_DAY
        newcomers = self.users["user"].filter(pc.equal(self.users["territory"], self.new)).combine_chunks()
        self.is_new = np.asarray(pc.is_in(self.events["user"], value_set=newcomers))
        self.home = dict(zip(self.users["user"].to_pylist(), self.users["territory"].to_pylist(), strict=True))
        self.folder = folder / "log"
        (self.folder / "events").mkdir(parents=True)

    def write(self, first, last, *, is_open, is_bad=False):
        """The events of the days `first` to `last`, with the late ones of the day before, and the users so far."""
        arrived = (self.day >= first) & (self.day <= last) & ~(self.is_late & (self.day == last))
        arrived |= (self.day == first - 1) & self.is_late
        rows = self.events.filter(pa.array(arrived & (is_open | ~self.is_new)))
        if is_bad:
            rows = rows.set_column(rows.column_names.index("title"), "title", pa.array(self.wrong_titles(rows, last)))
        pq.write_table(rows, self.folder / "events" / f"day-{last:02}.parquet")
        users = self.users if is_open else self.users.filter(pc.not_equal(self.users["territory"], self.new))
        pq.write_table(users, self.folder / "users.parquet")

    def wrong_titles(self, rows, seed):
        """For each event any title that its territory had that day, all alike: labels without meaning."""
        rng, homes = np.random.default_rng(seed), np.asarray([self.home[user] for user in rows["user"].to_pylist()])
        titles = rows["title"].to_numpy().astype(str)
        wrong = titles.copy()
        for home in np.unique(homes):
            wrong[homes == home] = rng.choice(np.unique(titles[homes == home]), np.sum(homes == home))
        return wrong


def start(folder, *, num_users, units, batch_size, epochs=4):
    """A log of `FIRST_DAY` days, a run trained on it, and the service that goes on from there: `(log, service)`."""
    folder, log = Path(folder), Log(Path(folder), num_users)
    log.write(0, FIRST_DAY - 1, is_open=False)
    logs = dataclasses.replace(
        log.logs,
        events=log.folder / "events",
        users=log.folder / "users.parquet",
        calendar=Calendar(datetime.timedelta(days=1), 14, 1, end=START + datetime.timedelta(days=FIRST_DAY - 1)),
    )
    data = prepare(logs, folder / "data", validation_fraction=0.2, test_fraction=0.1, progress=False)
    recipe = training.Recipe(units=units, epochs=epochs, batch_size=batch_size)
    training.train(data.path, folder / "run", recipe, verbose=0)
    start_service(folder / "service", folder / "run", folder / "saved_models" / "two_tower")
    return log, folder / "service"


def date_of(number):
    """Date of a day of the week, from 1."""
    return (START + datetime.timedelta(days=FIRST_DAY + number - 1)).date()


def run_days(log, service, *, days=DAYS, bad_day=BAD_DAY, new_day=NEW_DAY, say=print, **options):
    """The days one by one, with a server that takes each version while it runs.

    Args:
        log: The `Log`.
        service: Directory of the service.
        days: How many days.
        bad_day: Whose log is wrong.
        new_day: On which the territory opens.
        say: Function that shows a line.
        **options: As for `tfmtr.operations.day.daily`.

    Yields:
        `(result, server)` of each day: the document `day.json` with what the server answered, and the server.
    """
    with contextlib.ExitStack() as stack:
        server = None
        for number in range(1, days + 1):
            day, is_open = FIRST_DAY + number - 1, number >= new_day
            log.write(day, day, is_open=is_open, is_bad=number == bad_day)
            groups = {log.new: "a new group"} if number == new_day else None
            result = daily(service, date_of(number), groups=groups, say=say, **options)
            if server is None:
                out = read_service(service)["out"]
                server = Server(out, model_name="two_tower", port=0, file_system_poll_wait_seconds=1)
                stack.enter_context(server)
            yield {**result, "served": ask(server, service, log.new if is_open else None)}, server


def main(folder, *, num_users=20_000, units=(128, 64), batch_size=2048):
    """Runs the week under `folder` and returns one dictionary a day."""
    console, results = Console(width=110), []
    log, service = start(folder, num_users=num_users, units=units, batch_size=batch_size)
    days = run_days(log, service, say=lambda line: console.print(line, highlight=False), max_drop=MAX_DROP)
    for result, server in days:
        results.append(result)
        if len(results) == DAYS:
            live = rollback(service, say=console.print)
            served = ask(server, service, None)
            results.append({"rolled back to": live["day"], "version": live["version"], "served": served})
    for line in forget(log.users["user"][7].as_py(), service=service):
        console.print(line)
    console.print(table_of(results))
    return results


def ask(server, service, territory):
    """Version and titles that a client gets for a user, in a territory if it is given."""
    live = read_live(service)
    data = Path(live["run"]).parent / "data"
    user = pq.read_table(data / "users.parquet", columns=["user", "territory"])
    if territory in user["territory"].unique().to_pylist():  # not before a model that knows it is live
        user = user.filter(pc.equal(user["territory"], territory))
    address = f"127.0.0.1:{server.port}"
    version = wait_for(address, live["version"])
    answer = recommend(address, "two_tower", data, user["user"][0].as_py(), k=3)
    return {"version": version, "titles": [title["name"] for title in answer["titles"]]}


def wait_for(address, version):
    """Waits until a server has a version, and no other."""
    end = time.monotonic() + 30
    with Client(address, "two_tower") as client:
        while time.monotonic() < end:
            found = [status.version for status in client.status() if status.state == AVAILABLE]
            if found == [version]:
                return version
            time.sleep(0.1)
    raise RuntimeError(f"the server must take version {version} within 30 seconds; it has {found}")


def table_of(results):
    """The week as a table."""
    table = Table(title="A week of days")
    for column in ("day", "status", "rows", "late", "grew", "version", "served", "titles"):
        table.add_column(column)
    for row in results:
        served = row["served"]
        table.add_row(
            row.get("day", f"back to {row.get('rolled back to')}"), row.get("status", ""), str(row.get("rows", "")),
            str(row.get("late_rows", "")), str(len(row.get("grown", []))), str(row["version"] or ""),
            str(served["version"]), "; ".join(served["titles"]),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="Directory to work in; a temporary one by default.")
    parser.add_argument("--num-users", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        week = main(arguments.out or temporary, num_users=arguments.num_users)
    print(json.dumps([{name: row.get(name) for name in ("day", "status", "version", "fallbacks")} for row in week]))

"""A month of a service that trains every day, with all that real days bring; each outcome is stated beforehand.

    python studies/daily_month/study.py --out studies/daily_month    # writes lines and page

A simulated service logs 29 days, a model is trained on them and served. Then thirty days come one by one. Titles come
and go, attributes change, users move; 3 % of the events are a day late, some later; a file comes twice; there are days
without data, with half of them, with labels of another type, with users, territories or vectors that are not what they
were; a territory opens, clocks change, and every step crashes once. `DAYS` says what each day brings and how `tfmtr
daily` shall end it, also when the day is mended and run again. At the end the model of the thirtieth day stands beside
one that is trained at once on the whole log, and beside what is popular, on the day after.

Expected: "30 of 30 days ended as stated".
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from studies import cells
from tfmtr import training
from tfmtr.datasets.logs import Calendar
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.simulator import simulator
from tfmtr.evaluation.baselines.ease import ease
from tfmtr.evaluation.baselines.history import History
from tfmtr.evaluation.baselines.neighbours import neighbours
from tfmtr.evaluation.baselines.popularity import popularity
from tfmtr.evaluation.compare import paired_bootstrap, percentile_interval
from tfmtr.evaluation.evaluate import predict
from tfmtr.evaluation.index_lists import ListCase, index_lists
from tfmtr.evaluation.metrics import OVERALL, evaluate_task
from tfmtr.evaluation.ranking import ndcg_of_users
from tfmtr.operations.day import BadDataError, NoDataError, daily
from tfmtr.operations.service import read_live, start_service
from tfmtr.retrieval.index import build_index
from tfmtr.run import Run
from tfmtr.schema import Schema

FIRST, LENGTH = 29, 30  # of the simulator's 60 days; the last one is the test's
MONTH_BEGINS = datetime.date(2025, 2, 16)  # so that clocks change in America on the 22nd day, 2025-03-09
ZONE = "America/New_York"  # of all American territories; the others keep UTC
LATE = 0.03
OPTIONS = {"max_drop": 0.25, "max_shift": 0.4}


class Service:
    """The tables of a simulated service, as far as they have come, and what a day may do to them.

    Attributes:
        events, users, titles: Data frames of all 60 days; `events` has the day, from 1 for the month's first.
        hidden: Titles that have not come yet, or are gone.
        closed: Territory that opens later.
    """

    def __init__(self, folder, num_users):
        self.folder = Path(folder, "log")
        self.source = simulator(Path(folder, "truth"), num_users=num_users, num_titles=200, num_territories=8)
        paths = {name: getattr(self.source, name) for name in ("events", "users", "titles", "availability")}
        tables = {name: pq.read_table(path).to_pandas() for name, path in paths.items()}
        shift = pd.Timestamp(MONTH_BEGINS) - pd.Timestamp("2025-01-01") - pd.Timedelta(days=FIRST)
        tables["events"]["time"] += shift
        for bound in ("start", "end"):
            tables["availability"][bound] += shift
        self.events, self.users, self.titles, self.availability = tables.values()
        is_american = self.events.user.map(self.homes()).str.startswith("am")
        local = self.events.time.dt.tz_localize("UTC").dt.tz_convert(ZONE).dt.tz_localize(None)
        clock = local.where(is_american, self.events.time)
        self.events["day"] = (clock - pd.Timestamp(MONTH_BEGINS)).dt.days + 1
        self.events["streamed"] = 1
        is_late = np.random.default_rng(0).random(len(self.events)) < LATE
        self.events["comes"] = self.events.day + is_late
        self.vectors = np.load(self.source.title_vectors / "vectors.npy").astype("float32")
        self.hidden = set(self.titles.title[:15])
        self.closed = self.users.territory.value_counts().index[2]
        (self.folder / "events").mkdir(parents=True)
        (self.folder / "titles").mkdir()

    def homes(self):
        """`{user: territory}`."""
        return dict(zip(self.users.user, self.users.territory, strict=True))

    def deliver(self, number, *, rows=None, name=None):
        """Writes what comes on a day, or other rows, and the tables as they are."""
        if rows is None:
            rows = self.rows(number)
        if rows is not None and len(rows):
            rows.drop(columns=["day", "comes"]).to_parquet(self.folder / "events" / f"{name or number:02}.parquet")
        self.write_tables()

    def rows(self, number):
        """Events that come on a day, the late ones of the day before among them; before the month, all."""
        comes = self.events.comes == number if number > 0 else self.events.comes <= 0
        is_open = self.events.user.map(self.homes()) != self.closed
        return self.events[comes & ~self.events.title.isin(self.hidden) & is_open]

    def write_tables(self, *, users=None, titles=None, vectors=None):
        """Writes the users and titles, or others in their place."""
        users = self.users[self.users.territory != self.closed] if users is None else users
        titles = self.titles[~self.titles.title.isin(self.hidden)] if titles is None else titles
        users.to_parquet(self.folder / "users.parquet", index=False)
        titles.to_parquet(self.folder / "titles.parquet", index=False)
        self.availability.to_parquet(self.folder / "availability.parquet", index=False)
        np.save(self.folder / "titles" / "vectors.npy", self.vectors if vectors is None else vectors)
        pq.write_table(pa.table({"title": self.titles.title}), self.folder / "titles" / "ids.parquet")

    def logs(self, calendar):
        """The `Logs` of these tables."""
        america = [name for name in sorted(set(self.users.territory)) if name.startswith("am")]
        paths = {name: self.folder / f"{name}.parquet" for name in ("users", "titles", "availability")}
        return dataclasses.replace(
            self.source, **paths, events=self.folder / "events", title_vectors=self.folder / "titles",
            tasks={"stream": "streamed"}, time_zones=dict.fromkeys(america, ZONE), calendar=calendar,
        )  # fmt: skip


def date_of(number):
    """Date of a day of the month, from 1."""
    return MONTH_BEGINS + datetime.timedelta(days=number - 1)


# What a day brings: functions of the service and the day's number.


def ordinary(service, number):
    """The day's events and the late ones of the day before."""
    service.deliver(number)


def titles_come(service, number):
    """Five titles that were never there before."""
    service.hidden -= set(sorted(service.hidden)[:5])
    service.deliver(number)


def titles_go(service, number):
    """Five titles are not in the catalogue any more, nor are their events."""
    service.hidden |= set(service.titles.title[-5:])
    service.deliver(number)


def attributes_change(service, number):
    """Ten titles get another language, one of them one that no title had."""
    service.titles.loc[20:29, "language"] = ["Klingon", *["English"] * 9]
    service.deliver(number)


def half_of_the_rows(service, number):
    """Every second event is missing."""
    service.deliver(number, rows=service.rows(number)[::2])


def nothing(service, number):
    """No file comes."""
    service.write_tables()


def the_day_before_too(service, number):
    """The events of the day before come as well."""
    service.deliver(number, rows=pd.concat([service.rows(number - 1), service.rows(number)]))


def twice(service, number):
    """The file of the day before comes again, under another name."""
    service.deliver(number - 1, name=70 + number)
    service.deliver(number)


def labels_of_another_type(service, number):
    """The label column is text."""
    service.deliver(number, rows=service.rows(number).assign(streamed="yes"))


def users_move(service, number):
    """One user of thirty has moved to the largest territory."""
    service.users.loc[service.users.index % 30 == 0, "territory"] = service.users.territory.value_counts().index[0]
    service.deliver(number)


def a_territory_opens(service, number):
    """The third largest territory opens, in a group of its own."""
    service.closed = None
    service.deliver(number)


def three_days_late(service, number):
    """Some events of the third day before, which `--late-days 2` does not look back on."""
    rows = service.events[service.events.day == number - 3].sample(80, random_state=0)
    service.deliver(number, rows=rows, name=80 + number)
    service.deliver(number)


def wrong_titles(service, number):
    """Every event has any title: the data look well, and mean nothing."""
    rows = service.rows(number)
    offered = sorted(set(rows.title))
    service.deliver(number, rows=rows.assign(title=np.random.default_rng(0).choice(offered, len(rows))))


def half_of_the_users(service, number):
    """Every second user is missing from the users table."""
    service.deliver(number)
    service.write_tables(users=service.users[::2])


def a_territory_renamed(service, number):
    """The largest territory has another name in the users table."""
    largest = service.users.territory.value_counts().index[0]
    service.deliver(number)
    service.write_tables(users=service.users.replace({"territory": {largest: "renamed"}}))


def vectors_of_another_model(service, number):
    """Title vectors of the same width whose numbers stand elsewhere."""
    service.deliver(number)
    service.write_tables(vectors=service.vectors[:, ::-1])


def a_column_is_lost(service, number):
    """The users table has no devices."""
    service.deliver(number)
    service.write_tables(users=service.users.drop(columns="device"))


def values_in_other_words(service, number):
    """Languages are written in capitals."""
    service.deliver(number)
    service.write_tables(titles=service.titles.assign(language=service.titles.language.str.upper()))


def a_part(service, number):
    """Three quarters of the day's events are there; the others come after a crash."""
    service.deliver(number, rows=service.rows(number)[: -len(service.rows(number)) // 4])


@dataclasses.dataclass(frozen=True)
class Day:
    """A day of the month.

    Args:
        brings: Function that delivers it.
        ends: The outcome that is stated: `"promoted"`, `"refused"`, `"no data"`, `"bad data"` or `"crashed"`.
        mended: Functions and outcomes of further runs of the day.
        crash: Name of what is interrupted in the first run.
        options: Further options of `daily`.
    """

    brings: Callable
    ends: str = "promoted"
    mended: Sequence = ()
    crash: str | None = None
    options: dict = dataclasses.field(default_factory=dict)


AGAIN = ((ordinary, "promoted"),)
DAYS = (
    Day(ordinary),
    Day(titles_come),
    Day(attributes_change),
    Day(half_of_the_rows, "refused", AGAIN),
    Day(ordinary),
    Day(nothing, "no data"),
    Day(the_day_before_too),
    Day(twice),
    Day(labels_of_another_type, "bad data", AGAIN),
    Day(users_move),
    Day(ordinary, "crashed", AGAIN, "tfmtr.datasets.preparing.steps.write_report"),
    Day(ordinary, "crashed", AGAIN, "tfmtr.training.going_on.end_stage"),
    Day(a_territory_opens, options={"groups": "opens"}),
    Day(titles_go),
    Day(ordinary, "crashed", AGAIN, "tfmtr.operations.day_steps.gate"),
    Day(three_days_late),
    Day(ordinary, "crashed", AGAIN, "tfmtr.operations.day_steps.try_version"),
    Day(wrong_titles, "refused"),
    Day(ordinary),
    Day(ordinary, "crashed", AGAIN, "tfmtr.operations.day_steps.publish_copy"),
    Day(half_of_the_users, "refused", AGAIN),
    Day(ordinary),  # clocks change
    Day(a_territory_renamed, "refused", AGAIN),
    Day(titles_come),
    Day(vectors_of_another_model, "refused", AGAIN),
    Day(a_column_is_lost, "bad data", AGAIN),
    Day(values_in_other_words, "refused", AGAIN),
    Day(a_part, "crashed", AGAIN, "tfmtr.training.going_on.end_stage", {"max_loss": 0.5}),
    Day(titles_come),
    Day(ordinary),
)


def begin(folder, *, num_users, recipe):
    """The log of the days before the month, a run trained on it, and the service that goes on from there."""
    service = Service(folder, num_users)
    service.deliver(0)
    calendar = Calendar(datetime.timedelta(days=1), 14, 1, end=at(0))
    data = prepare(service.logs(calendar), Path(folder, "data"), **SPLIT, progress=False)
    training.train(data.path, Path(folder, "run"), recipe, verbose=0)
    start_service(Path(folder, "service"), Path(folder, "run"), Path(folder, "model"))
    return service


SPLIT = {"validation_fraction": 0.2, "test_fraction": 0.2}


def at(number):
    """Midnight at the beginning of a day of the month."""
    return datetime.datetime.combine(date_of(number), datetime.time())


def run_day(folder, service, number, day, say):
    """Delivers a day and runs it as often as it takes; returns a line of the results."""
    found, stated, record, began = [], [day.ends, *(ends for _, ends in day.mended)], {}, time.perf_counter()
    options = dict(day.options)
    if "groups" in options:
        options["groups"] = {service.users.territory.value_counts().index[2]: options["groups"]}
    for run, brings in enumerate((day.brings, *(function for function, _ in day.mended))):
        brings(service, number)
        with (
            mock.patch(day.crash, side_effect=KeyboardInterrupt) if day.crash and run == 0 else contextlib.nullcontext()
        ):
            try:
                record = daily(
                    Path(folder, "service"), date_of(number), retry=run > 0, say=say, **{**OPTIONS, **options}
                )
                found.append(record["status"])
            except (NoDataError, BadDataError, KeyboardInterrupt) as error:
                names = {NoDataError: "no data", BadDataError: "bad data", KeyboardInterrupt: "crashed"}
                found.append(names[type(error)])
    size = sum(file.stat().st_size for file in Path(folder, "service", "days").glob(f"{date_of(number)}/**/*"))
    change = next(iter(record.get("gate", {}).get("last", {}).values()), {}).get("change")
    return {
        "day": number, "date": str(date_of(number)), "brings": day.brings.__name__, "crash": day.crash,
        "stated": stated,
        "found": found, "reasons": record.get("reasons", []), "rows": record.get("rows"),
        "late_rows": record.get("late_rows"), "left": sum(record.get("late", {}).get("new", {}).values()),
        "moved": sum(move["users"] for move in record.get("moved", [])), "grown": len(record.get("grown", [])),
        "change": change, "version": record.get("version"), "seconds": round(time.perf_counter() - began, 1),
        "megabytes": round(size / 1e6, 2),
    }  # fmt: skip


def compare(folder, service, recipe):
    """The live model, one trained at once on the whole log, and baselines, on the day after the month."""
    service.deliver(LENGTH + 1)
    calendar = Calendar(datetime.timedelta(days=1), 14 + LENGTH, 1, end=at(LENGTH + 1))
    data = prepare(service.logs(calendar), Path(folder, "whole"), **SPLIT, progress=False)
    training.train(data.path, Path(folder, "at-once"), recipe, verbose=0)
    live = Path(read_live(Path(folder, "service"))["run"])
    files, runs = data.examples("test", windows=[1]), {"daily": live, "at once": Path(folder, "at-once")}
    scores, ndcg, columns = {}, {}, None
    for name, run in runs.items():
        model, schema = Run(run).load(), Schema.load(run)
        columns, users, positives = predict(model, files, schema, data, columns=("title", "user"))
        scores[name] = columns["stream score"]
        lists = index_lists(model, positives, schema, data, window=1, k=10, most=10_000)
        ndcg[name] = ndcg_of_users(lists.lists)
    for name, score in baselines(service, data).items():
        values = score(columns["user"], columns["title"])
        scores[name] = (values - values.min()) / max(1e-12, np.ptp(values))
        ndcg[name] = ndcg_of_users(lists_of(score, data, model, schema, positives).lists)
    labels, rng = columns["stream"], np.random.default_rng(0)
    result = {"users": len(ndcg["daily"]), "rows": len(labels)}
    for name in scores:
        cell = evaluate_task(labels, scores[name], np.full(len(labels), "all"), users)
        result[name] = {"pr_auc": round(cell[OVERALL]["pr_auc"], 4), "ndcg@10": round(float(ndcg[name].mean()), 4)}
        if name != "daily":
            found = paired_bootstrap(labels, scores["daily"], scores[name], users, num_samples=1000)
            drawn = rng.integers(len(ndcg[name]), size=(1000, len(ndcg[name])))
            low, high = percentile_interval((ndcg["daily"] - ndcg[name])[drawn].mean(axis=1))
            result[f"daily minus {name}"] = {
                "pr_auc": {key: round(float(found[key]), 4) for key in ("difference", "low", "high")},
                "ndcg@10": {
                    "difference": round(float((ndcg["daily"] - ndcg[name]).mean()), 4),
                    "low": round(float(low), 4), "high": round(float(high), 4),
                },
            }  # fmt: skip
    return result


def baselines(service, data):
    """`{name: function(users, titles) of scores}` of what people have without a model, fitted on the month's events."""
    users = pq.read_table(data.path / "users.parquet", columns=["user", "territory"]).to_pandas()
    titles = pq.read_table(data.path / "titles.parquet", columns=["title"])["title"].to_pylist()
    rows, places = ({value: place for place, value in enumerate(values)} for values in (users.user, titles))
    known = service.events[(service.events.day <= LENGTH) & service.events.title.isin(places)]
    known = known[known.user.isin(rows)]
    tests = pq.ParquetFile(*data.examples("test", windows=[1])).read(["user"])["user"].to_pylist()
    history = History(
        known.user.map(rows), known.title.map(places), LENGTH + 1 - known.day, pd.factorize(users.territory)[0],
        num_titles=len(titles), fitted=~known.user.isin(tests),
    )  # fmt: skip

    def by_name(score):
        def of_pairs(some, others):
            values = score([rows[user] for user in some])
            return values[np.arange(len(some)), [places[title] for title in others]] if others is not None else values

        return of_pairs

    found = {"popularity": popularity(history, days=7), "neighbours": neighbours(history), "EASE": ease(history)}
    return {name: by_name(score) for name, score in found.items()}


def lists_of(score, data, model, schema, positives):
    """The ten best titles of a baseline, of those that the index may offer."""

    def rank(rows, allowed):
        values = np.where(np.asarray(allowed), score(rows["user"].to_pylist(), None), -np.inf)
        order = np.argsort(-values, axis=1, kind="stable")[:, :10]
        return np.where(np.isfinite(np.take_along_axis(values, order, axis=1)), order, -1)

    catalogue = build_index(model, data, schema, window=1).catalogue
    return ListCase(positives, catalogue, most=10_000).index_lists(rank)


def page(lines):
    """The page of a month's lines."""
    texts = {day.brings.__name__: day.brings.__doc__ for day in DAYS}
    days = [line for line in lines if "day" in line]
    right = sum(line["found"] == line["stated"] for line in days)
    rows = []
    for line in days:
        brings = texts[line["brings"]] + (f" A crash in `{line['crash'].split('.')[-1]}`." if line["crash"] else "")
        change = "" if line["change"] is None else f"{line['change']:+.1%}"
        ends = ", then ".join(line["found"]) + (
            "" if line["found"] == line["stated"] else f" (stated: {line['stated']})"
        )
        counts = [line[name] for name in ("rows", "late_rows", "left", "grown")]
        rows.append(
            [line["day"], brings, ends, *counts, change, line["version"] or "", line["seconds"], line["megabytes"]]
        )
    columns = ["day", "brings", "ends", "rows", "late", "left", "grew", "change", "version", "seconds", "MB"]
    text = [
        "# A month of days",
        f"`python studies/daily_month/study.py` says how. {right} of {len(days)} days ended as stated "
        "beforehand. `rows` are training rows of the day, `late` those of earlier days, `left` rows of the log that "
        "came too late; `grew` counts variables; `change` is the gate's, of PR-AUC on the day.",
        cells.table(columns, [["" if cell is None else str(cell) for cell in row] for row in rows]),
    ]
    if "compare" in lines[-1]:
        last, found = lines[-1], lines[-1]["compare"]
        names = {"daily": "thirty days, one epoch each", "at once": "at once on the whole log"}
        names |= {"popularity": "popularity", "neighbours": "nearest neighbours (BM25)", "EASE": "EASE"}
        table = [
            [text, *(str(found[name][metric]) for metric in ("pr_auc", "ndcg@10"))] for name, text in names.items()
        ]
        differences = [
            [
                f"thirty days minus {names[name]}",
                *(_interval(found[f"daily minus {name}"][m]) for m in ("pr_auc", "ndcg@10")),
            ]
            for name in list(names)[1:]
        ]
        text += [
            f"The day after, {found['rows']:,} rows of test users, lists of {found['users']:,} of them; 95 % intervals "
            "over users. Popularity is of the territory and the seven days before; baselines are untuned, fitted on "
            "users without test rows; nothing is masked.",
            cells.table(["model", "PR-AUC", "NDCG@10"], [*table, *differences]),
            f"{last['date']}; {last['num_users']:,} users; "
            + ", ".join(f"{k} {v}" for k, v in last["versions"].items()),
        ]
    return "\n\n".join(part.strip() for part in text) + "\n"


def _interval(found):
    return f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"


def main(folder, *, num_users=30_000, days=LENGTH, out=None, say=print, **changes):
    """Runs the first days of the month under `folder`; returns a line a day, and the comparison after the last one.

    What is not as usual in the recipe is named in `changes`.
    """
    recipe = training.Recipe(**{"units": (128, 64), "epochs": 6, "batch_size": 1024, **changes})
    service, lines = begin(folder, num_users=num_users, recipe=recipe), []
    for number, day in enumerate(DAYS[:days], start=1):
        lines.append(run_day(folder, service, number, day, lambda line: None))
        write(lines, out)
        line = lines[-1]
        mark = "as stated" if line["found"] == line["stated"] else f"STATED {line['stated']}"
        say(f"{number:2} {line['brings']}: {', '.join(line['found'])} ({mark}), {line['seconds']} s {line['reasons']}")
    if days == LENGTH:
        facts = {"num_users": num_users, "recipe": recipe.document(), "versions": training.versions()}
        lines.append({"compare": compare(folder, service, recipe), "date": str(datetime.date.today()), **facts})
        say(json.dumps(lines[-1]["compare"], indent=1))
        write(lines, out)
    right = sum(line["found"] == line["stated"] for line in lines if "day" in line)
    say(f"{right} of {days} days ended as stated")
    return lines


def write(lines, out):
    """Writes the lines and their page into a folder, if there is one."""
    if out is not None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        Path(out, cells.RESULTS).write_text(text, encoding="utf-8")
        Path(out, "README.md").write_text(page(lines), encoding="utf-8")


if __name__ == "__main__":
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="Folder to write the lines and the page into.")
    parser.add_argument("--work", help="Directory to work in; a temporary one by default.")
    parser.add_argument("--num-users", type=int, default=30_000, help="Number of users.")
    parser.add_argument("--days", type=int, default=LENGTH, help="Number of days, from the first.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        month = main(arguments.work or temporary, num_users=arguments.num_users, days=arguments.days, out=arguments.out)
    raise SystemExit(any(line["found"] != line["stated"] for line in month if "day" in line))

"""The steps of `prepare`, in order.

Read and check the tables; cut events and users into buckets by a hash of the user; survey what is known over
all buckets (first events, volumes, vocabularies); then make the examples and the user vectors, pass after pass. A pass
is as many buckets as the engine takes at once; the rows and their order depend on the buckets alone, so they are the
same for every engine. Memory does not grow with the number of users or events.
"""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import collections
import dataclasses
import datetime
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from tfmtr.datasets import examples as make
from tfmtr.datasets import holdout, stores
from tfmtr.datasets.calendars import complete, describe, is_complete
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.engines._engine import ROW_GROUP, Engine
from tfmtr.datasets.features import (
    as_feature,
    check_drift,
    check_widths,
    column_kinds,
    count_changed,
    count_missing,
    find_features,
)
from tfmtr.datasets.funnel import Funnel, stages
from tfmtr.datasets.groups import territory_groups
from tfmtr.datasets.history import history_states, mean_vectors, recent_titles
from tfmtr.datasets.homes import find_homes
from tfmtr.datasets.ids import differences, refuse_mismatch
from tfmtr.datasets.labels import check_same_tasks
from tfmtr.datasets.logs import Logs
from tfmtr.datasets.names import check_names, inside
from tfmtr.datasets.report import (
    PARTITIONS,
    build_report,
    check_negatives,
    counted,
    describe_tasks,
    fingerprint,
    shortfall,
    sum_counts,
)
from tfmtr.datasets.sampling import digest, draw
from tfmtr.datasets.tables import check_labels, check_unique, count_contradictions, read_tables
from tfmtr.datasets.text import TEXT, TextVectors, encoder_vectors, has_words
from tfmtr.datasets.times import check_far_events
from tfmtr.schema import Feature, Scenario, Schema

ACTIVITY = datetime.timedelta(days=90)
BUCKET_EVENTS = 250_000
JUDGED_WINDOWS = 3  # training windows whose catalogues are kept: baselines are tuned on validation users' lists there
UNKNOWN_TERRITORY = "unknown"


class Preparation:
    """One run of `prepare`: the paths and what the steps learn.

    Args:
        engine: An `Engine`.
        logs: A `Logs`.
        out: Folder to make.
        folder: Folder for work files, removed by the caller.
        options: The options of `prepare`.
        advance: Function `advance(text, total=None)` that shows progress.
        like: The `Dataset` that these data continue, or `None`.
    """

    def __init__(
        self,
        engine: Engine,
        logs: Logs,
        out: Path,
        folder: Path,
        options: Mapping[str, Any],
        advance: Callable[..., None],
        like: Dataset | None = None,
    ) -> None:
        self.engine, self.logs, self.out, self.folder = engine, logs, out, folder
        self.is_drawn, self.is_given = holdout.is_drawn(logs), logs.split_column is not None
        self.options, self.advance, self.like = options, advance, like
        out.mkdir()
        self.warnings = []
        self.counts = []  # dictionaries of split, sampling, window and counts, one for each bucket
        self.fates = Funnel()
        self.territories = collections.defaultdict(
            lambda: {"group": None, "users": 0, "events": 0, "last_window": 0, "positives": 0}
        )
        self.missing = (0, [])
        self.without_text = None  # number of titles, where vectors are made of texts
        self.newcomers = 0  # positives of users who had no event before the window
        self.parts = {}  # tables of buckets that were opened before

    def run(self) -> None:
        """All steps in order."""
        self.read()
        self.cut_buckets()
        self.survey()
        self.plan_catalogue()
        self.plan_features()
        self.write_titles()
        self.make_examples()
        self.write_sorted_tables()
        self.write_report()

    def warn(self, count: int, text: str) -> None:
        """Keeps the warning `counted(count, text)` if there is anything to warn of."""
        if count:
            self.warnings.append(counted(count, text))

    def hint(self, strangers: ibis.Table, table: ibis.Table, key: str) -> str:
        """What ids that match nowhere differ in, if some would match: the end of a warning."""
        changes = differences(self.engine, strangers, table, key)
        return f"; some would match but for {changes}" if changes else ""

    def part(self, name: str, buckets: range) -> ibis.Table:
        """Some buckets of `"events"`, `"users"` or `"store"`."""
        key = (name, buckets)
        if key not in self.parts:
            self.parts[key] = self.engine.read_buckets(self.folder / name, buckets)
        return self.parts[key]

    def read(self) -> None:
        """Opens the tables and checks what needs one look at all events."""
        self.tables = read_tables(self.engine, self.logs, self.warnings)
        self.tasks = self.tables.tasks
        events = self.tables.events
        users, titles = self.tables.users, self.tables.titles
        extra = {"users": column_kinds(users, ("user", "territory")), "titles": column_kinds(titles, ("title", "name"))}
        check_names(self.tasks, self.tables.training, **extra)
        self.kinds = {**extra, "users": {"territory": "id", **extra["users"]}}
        if self.like is not None:
            self.check_like(self.like.report)
        titles = titles.filter(titles.title.notnull())
        check_unique(self.engine, titles, "title", "titles")
        titles = titles.mutate(title_row=ibis.row_number().over(order_by="title"))
        self.titles = self.engine.store(titles, self.folder / "titles.parquet")
        labels = events.select("user", "title", *(events[inside(task)].name(task) for task in self.tasks))
        check_labels(self.engine, labels, self.tasks)
        if self.options["low_ratings"] == "negatives" and not self.tables.has_ratings:
            raise ValueError(
                '`low_ratings="negatives"` must be left out unless the first task has a threshold, such as '
                f"'column>=4' in `tasks`. Received: {dict(self.logs.tasks)}"
            )
        refuse = self.options["contradictions"] == "refuse"
        for task, count in count_contradictions(self.engine, labels, self.tables.after, refuse=refuse).items():
            before = self.tables.after[task]
            self.warn(count, f"events of {task!r} have no {before!r}; heads for cascades train them as 0")
        first_label = inside(next(iter(self.tasks)))
        if self.is_given:
            there = holdout.check_splits(self.engine, events, self.logs.split_column)
            if "validation" not in there:
                events = holdout.draw_validation(events, self.options["seed"])
                drawn = self.engine.execute((events.row_split == "validation").sum())
                self.warn(drawn, "training rows were drawn for validation, as the split has no rows for it")
        if self.is_drawn:
            events = holdout.with_clock(
                self.engine,
                events,
                seed=self.options["seed"],
                fractions=self.fractions(),
                is_given=self.is_given,
                has_times=self.logs.has_times,
            )
            events = self.engine.view(events)
            self.tables = dataclasses.replace(self.tables, events=events)
            if self.is_given and self.logs.has_times:
                early = holdout.count_early_tests(self.engine, events)
                self.warn(early, "test rows are from before the last training row: training knows what came after them")
        known = self.engine.view(events.left_join(self.titles.select("title", "title_row"), "title"))
        counted = self.engine.rows(
            known.aggregate(
                events=known.count(),
                incomplete=(known.user.isnull() | known.title.isnull() | known.time.isnull()).sum(),
                with_title=known.title.notnull().sum(),
                unknown=(known.title.notnull() & known.title_row.isnull()).sum(),
                zeros=(known[first_label] == 0.0).sum(),  # impressions, or low ratings
                unlabelled=known[first_label].isnull().sum(),
                events_of_task=make.is_event(known, first_label).sum(),
                first=known.time.min(),
                last=known.time.max(),
            )
        )[0]
        if counted["first"] is None:
            raise ValueError(
                f"`events` must have rows with a time. Received: {counted['events']} rows, all without one"
            )
        if counted["unknown"] == counted["with_title"] and self.logs.titles is not None:
            refuse_mismatch(
                self.engine, {"events": events, "titles": self.titles}, "title", self.tables.id_types["title"]
            )
        if self.tables.has_ratings and not counted["events_of_task"]:
            column = next(iter(self.logs.tasks.values()))
            raise ValueError(
                f"The first task must have rows that reach its threshold. Received: {column!r}, which none of "
                f"{counted['zeros']} rated events does"
            )
        self.warn(counted["incomplete"], "events without user, title or time were dropped")
        hint = self.hint(events.anti_join(self.titles, "title"), self.titles, "title") if counted["unknown"] else ""
        self.warn(counted["unknown"], f"events of titles that are not in the titles table were dropped{hint}")
        self.warn(counted["unlabelled"], "events without a label of the first task were left out of the examples")
        if not self.logs.has_times:
            self.warnings.append("the log has no times: nothing is known of the order of events, and history is drawn")
        self.num_events = counted["events"]
        self.has_zeros = bool(counted["zeros"])
        self.place_windows(known, counted["first"], counted["last"])
        self.count_days(known, counted["first"])
        self.find_users()
        self.num_buckets = max(1, -(-self.num_events // BUCKET_EVENTS))
        size = self.engine.pass_buckets
        self.passes = [range(i, min(i + size, self.num_buckets)) for i in range(0, self.num_buckets, size)]
        self.advance("Cutting buckets", total=2 * len(self.passes) + 5)

    def check_like(self, before: Mapping[str, Any]) -> None:
        """Raises a `ValueError` unless the tables are of the same kind as those that these data continue."""
        times, then = self.logs.has_times, before.get("times", True)
        if times != then:
            has, lacks = "have times", "have none (`--no-times`)"
            raise ValueError(
                "`like` must be data with times if these have times, and without if they have none. Received: "
                f"those of {self.like.path} {has if then else lacks}, these {has if times else lacks}"
            )
        check_same_tasks(self.logs.tasks, before["logs"]["tasks"])
        if "columns" in before:  # not in what older versions prepared
            check_drift(self.columns(), before["columns"])

    def place_windows(self, known: ibis.Table, first: datetime.datetime, last: datetime.datetime) -> None:
        """Places the calendar's windows on the log, after choosing what the calendar leaves open."""
        if self.is_drawn:
            self.windows = holdout.windows(self.is_given)
            return
        calendar, hours = self.logs.calendar, []
        if not is_complete(calendar):
            rows = known.filter(known.time.notnull(), known.user.notnull(), known.title_row.notnull())
            rows = rows.filter(make.is_event(rows, inside(next(iter(self.tasks)))))
            rows = rows.group_by(hour=rows.time.truncate("h")).aggregate(events=rows.count())
            hours = [(row["hour"], row["events"]) for row in self.engine.rows(rows.order_by("hour"))]
        window, all_windows = None, None
        if calendar.end is not None:
            window = last - first
        elif is_complete(calendar):
            calendar = complete(calendar, hours, first, last)
            window, all_windows = calendar.length, (calendar.num_train + calendar.num_test) * calendar.length
        events = self.tables.events
        self.warnings += check_far_events(self.engine, events, first, last, window=window, all_windows=all_windows)
        self.calendar = complete(calendar, hours, first, last)
        self.windows = make.plan_windows(self.calendar, first, last)

    def find_users(self) -> None:
        """Finds users who are in no table, and where users live who say it in events only."""
        events, users = self.tables.events, self.tables.users
        if "territory" in events.columns:
            tests = [window.start for window in self.windows if window.number > 0]
            users = find_homes(events, users, tests[0] if tests else self.windows[-1].end)
            users = self.engine.store(users, self.folder / "homes.parquet")
            self.warn(
                self.engine.execute((users.num_territories > 1).sum().fill_null(0)),
                "users have events in several territories; theirs is the one of most before the first test window",
            )
            events, users = events.drop("territory"), users.drop("num_territories")
        elif self.logs.users is None:
            users = self.engine.store(users, self.folder / "homes.parquet")
        self.tables = dataclasses.replace(self.tables, events=events, users=users)

    def count_days(self, known: ibis.Table, first: datetime.datetime) -> None:
        """Counts the rows of each day, and in each window those that cannot be used; looks for the day's own."""
        is_incomplete, start = known.user.isnull() | known.title.isnull(), self.logs.calendar.start
        is_event = make.is_event(known, inside(next(iter(self.tasks))))
        is_early = known.time < make.as_utc(start) if start else ibis.literal(False)
        days = known.group_by(
            day=known.time.date().cast("string"), window=make.number_window(known.time, self.windows)
        ).aggregate(
            rows=known.count(),
            events=is_event.sum(),
            on_time=(is_event & ~is_early).sum(),
            incomplete=is_incomplete.sum(),
            unknown_title=(~is_incomplete & known.title_row.isnull()).sum(),
        )
        self.days, on_time = {}, collections.Counter()
        for row in self.engine.rows(days.order_by("day", "window")):
            if row["day"] is None:  # none on the clock of a given split, either
                self.fates.add(None, rows=row["rows"], incomplete=row["rows"])
                continue
            if not self.is_drawn:
                of_day = self.days.setdefault(row["day"], {"rows": 0, "events": 0})
                for name in of_day:
                    of_day[name] += int(row[name])
            self.fates.add(row["window"], **{name: row[name] for name in ("rows", "incomplete", "unknown_title")})
            on_time[row["window"]] += int(row["on_time"])
        if self.is_drawn:
            self.calendar_text = holdout.TEXTS["given" if self.is_given else "drawn"]
        else:
            self.calendar_text = describe(self.windows, max(first, make.as_utc(start)) if start else first, on_time)
        empty = [window.number for window in self.windows if not on_time[window.number]]
        self.warn(len(empty), f"windows have no events: {empty[:10]}")
        last = self.windows[-1]
        if self.like is not None and not self.fates.of(last.number)["rows"]:
            raise make.EmptyWindowError(
                f"`events` must have rows in the last window. Received: none from {last.start} to {last.end}; the last "
                f"event is of {max(self.days, default='no day')}"
            )

    def columns(self) -> dict[str, dict[str, str]]:
        """`{argument: {column: kind}}` of the columns that become something."""
        return {
            argument: {name: kind for name, kind in kinds.items() if kind is not None}
            for argument, kinds in self.kinds.items()
        }

    def cut_buckets(self) -> None:
        """Writes events and users once, in buckets by a hash of the user."""
        seed, first_label = self.options["seed"], inside(next(iter(self.tasks)))

        def with_bucket(table: ibis.Table) -> ibis.Table:
            if self.num_buckets == 1:
                return table.mutate(bucket=ibis.literal(0, "int64"))
            return table.mutate(bucket=draw(digest(seed, "bucket", table.user), self.num_buckets).cast("int64"))

        events = self.tables.events
        events = events.filter(events.user.notnull(), events.time.notnull()).semi_join(self.titles, "title")
        events = events.mutate(
            window=make.number_window(events.time, self.windows), is_event=make.is_event(events, first_label)
        )
        if self.is_given:
            events = self.without_validation_pairs(events)
        self.engine.partition(with_bucket(events), self.folder / "events", self.num_buckets)
        users = self.tables.users
        counts = {"nameless": users.user.isnull(), "homeless": users.territory.isnull() | (users.territory == "")}
        counts = self.engine.rows(users.aggregate(**{name: is_one.sum() for name, is_one in counts.items()}))[0]
        self.warn(counts["nameless"], "users without id were dropped")
        territory = users.territory.nullif("").fill_null(UNKNOWN_TERRITORY)
        self.warn(
            counts["homeless"],
            f"users have no territory; theirs is {UNKNOWN_TERRITORY!r}, served by the default branch",
        )
        users = make.assign_users(
            users.filter(users.user.notnull()).mutate(territory=territory), seed=seed, **self.fractions()
        )
        if self.is_given:
            users = holdout.splits_of_users(users, events)
        self.engine.partition(with_bucket(users), self.folder / "users", self.num_buckets)
        self.upstream = None
        if self.logs.user_vectors is not None:
            self.upstream, ids = stores.open_store(self.engine, self.logs.user_vectors, "user_vectors", "user")
            self.engine.partition(with_bucket(ids), self.folder / "store", self.num_buckets)

    def fractions(self) -> dict[str, Any]:
        """The arguments of `assign_users` that say which users are for what."""
        fractions = {name: self.options[name] for name in self.options if name.endswith("_fraction")}
        if self.is_given:
            return {**fractions, "test_fraction": 0.0, "validation_fraction": 0.0}
        return {**fractions, "fold": self.options["fold"] and tuple(map(int, self.options["fold"].split("/")))}

    def without_validation_pairs(self, events: ibis.Table) -> ibis.Table:
        """Events of a given split; a training row of a pair that is for validation, too, is no event."""
        overlaps = holdout.count_overlaps(self.engine, events.filter(events.is_event))
        self.warn(overlaps["validation"], "validation pairs are training pairs, too, and were left out of training")
        what = "test pairs are training or validation pairs, too; users had them, so they are not tested"
        self.warn(overlaps["test"], what)
        pairs = events.filter(events.is_event, events.row_split == "validation").select("user", "title").distinct()
        pairs = self.engine.store(pairs.mutate(is_validation=True), self.folder / "validation.parquet")
        events = events.left_join(pairs, ("user", "title")).drop("user_right", "title_right")
        is_left_out = events.is_validation.notnull() & (events.row_split == "train")
        return events.mutate(is_event=events.is_event & ~is_left_out).drop("is_validation")

    def usable(self, events: ibis.Table) -> ibis.Table:
        """Events from the calendar's start to the end of the last window."""
        events = events.filter(events.window <= self.windows[-1].number)
        start = self.logs.calendar.start
        return events.filter(events.time >= make.as_utc(start)) if start else events

    def history_events(self, buckets: range) -> ibis.Table:
        """What counts as a user's history, activity and discoveries: usable events, no impressions."""
        return self.usable(self.part("events", buckets)).filter(lambda t: t.is_event)

    def known_events(self, buckets: range, users: ibis.Table) -> ibis.Table:
        """What lists leave out, with all that a mask or a baseline may know of it: rows of `events.parquet`."""
        events, label = self.part("events", buckets), inside(next(iter(self.tasks)))
        if self.is_given:  # a training row that a validation pair left is no trace of the pair
            events = events.filter(events.is_event | events[label].isnull() | (events[label] == 0.0))
        if self.options["seen"] == "events" or (self.options["seen"] == "rated" and not self.tables.has_ratings):
            events = events.filter(events.is_event)
        elif self.options["seen"] == "rated":
            events = events.filter(events[label].notnull())
        events = events.left_join(users.select("user", "split"), "user")
        start, last = self.logs.calendar.start, self.windows[-1].number
        is_early = events.time < make.as_utc(start) if start else ibis.literal(False)
        events = events.select(
            "user",
            "title",
            # Before the calendar's start it may be known that something was, but neither when nor in which order.
            time=is_early.ifelse(ibis.null("timestamp(6)"), events.told if self.is_drawn else events.time),
            window=is_early.ifelse(self.windows[0].number - 1, events.window).cast("int64"),
            split=events.row_split if self.is_given else events.split,
            is_event=events.is_event,
            is_history=events.is_event & events.split.notnull() & ~is_early & (events.window <= last),
        )
        return events.distinct()

    @property
    def has_history(self) -> bool:
        """Whether user vectors come from history."""
        return self.upstream is None and self.logs.user_history

    def states(self, buckets: range) -> ibis.Table:
        """Rows of the user store of some buckets: `user`, `bucket`, `window`, `next_window`, `row` in the bucket."""
        users = self.part("users", buckets)
        if self.has_history:
            return history_states(users, self.history_events(buckets), self.windows)
        return users.select(
            "user",
            "bucket",
            window=ibis.literal(self.windows[0].number, "int64"),
            next_window=ibis.null("int64"),
            row=ibis.row_number().over(group_by="bucket", order_by="user"),
        )

    def survey(self) -> None:
        """One look at each bucket: doubles, unknown users, first events, volumes and sizes."""
        self.num_states, firsts, hint = np.zeros(self.num_buckets, "int64"), [], None
        self.stored_states = []
        for number, buckets in enumerate(self.passes):
            events, users = self.part("events", buckets), self.part("users", buckets)
            check_unique(self.engine, users, "user", "users")
            homes = users.select("user", "territory", "split")
            self.survey_fates(events.left_join(homes, "user"))
            if self.like is not None:
                self.count_doubles(events)
            if self.fates.total("unknown_user") and hint is None:  # the strangers of one pass tell enough
                hint = self.hint(events.anti_join(users, "user"), self.tables.users, "user")
            known = events.filter(events.window <= self.windows[-1].number).inner_join(homes, "user")
            first = known.group_by("title", "territory").aggregate(
                time=known.time.min(),
                events=known.is_event.sum(),
                volume=(known.is_event & (known.window <= 0) & (known.split != "test")).sum(),
                last=(known.is_event & (known.window == self.windows[-1].number)).sum(),
            )
            firsts.append(self.engine.store(first, self.folder / f"first/{number}.parquet"))
            for row in self.engine.rows(users.group_by("territory").aggregate(users=users.count())):
                self.territories[row["territory"]]["users"] += row["users"]
            states = self.engine.store(self.states(buckets), self.folder / f"states/{number}.parquet")
            self.stored_states.append(states)
            for row in self.engine.rows(states.group_by("bucket").aggregate(rows=states.count())):
                self.num_states[row["bucket"]] = row["rows"]
            if self.upstream is not None:
                self.survey_store(buckets, users)
            self.advance("Surveying buckets")
        unknown = self.fates.total("unknown_user")
        usable = self.fates.total("rows") - self.fates.total("incomplete") - self.fates.total("unknown_title")
        if unknown == usable and self.logs.users is not None:
            tables = {"events": self.tables.events, "users": self.tables.users}
            refuse_mismatch(self.engine, tables, "user", self.tables.id_types["user"])
        count, first = self.missing
        stores.check_vectors_found(count, first, "user", self.options["missing_vectors"])
        self.warn(count, "users have no vector and got the zero vector")
        self.warn(unknown, f"events of users that are not in the users table were dropped{hint}")
        beyond = self.fates.of(self.windows[-1].number + 1)
        beyond = beyond["rows"] - sum(beyond[name] for name in ("incomplete", "unknown_title", "unknown_user"))
        self.warn(beyond, "events after the last window are used for nothing but the seen titles")
        self.first_events = firsts[0]
        if len(firsts) > 1:
            self.first_events = self.engine.store(ibis.union(*firsts), self.folder / "first.parquet")
        self.group_territories()

    def survey_fates(self, events: ibis.Table) -> None:
        """Counts what the rows of some buckets are, window by window; their users' split is null if there is none."""
        label, is_known = events[inside(next(iter(self.tasks)))], events.split.notnull()
        start = self.logs.calendar.start
        is_early = events.time < make.as_utc(start) if start else ibis.literal(False)
        is_left_out = label.notnull() & (label != 0.0) & ~events.is_event  # of a given split
        counts = events.group_by("window").aggregate(
            unknown_user=(~is_known).sum(),
            other_split=(is_known & is_left_out).sum(),
            unlabelled=(is_known & label.isnull()).sum(),
            **{"low_rated" if self.tables.has_ratings else "impressions": (is_known & (label == 0.0)).sum()},
            too_early=(is_known & events.is_event & is_early).sum(),
            events=(is_known & events.is_event & ~is_early).sum(),
        )
        for row in self.engine.rows(counts):
            number, left = row.pop("window"), row.pop("events")
            is_before, is_after = number < self.windows[0].number, number > self.windows[-1].number
            fate = "history" if is_before else "later" if is_after else "repeats"  # until discoveries are found
            self.fates.add(number, **row)
            self.fates.add(number, **{fate: left})

    def count_doubles(self, events: ibis.Table) -> None:
        """Counts rows of the last window that another row of some buckets repeats, in user, title and time."""
        own = events.filter(events.window == self.windows[-1].number)
        rows = own.group_by("user", "title", "time").aggregate(rows=own.count())
        counted = self.engine.rows(rows.aggregate(doubles=(rows.rows - 1).sum()))[0]
        self.fates.add(self.windows[-1].number, doubles=counted["doubles"])

    def survey_store(self, buckets: range, users: ibis.Table) -> None:
        """Users of some buckets without an upstream vector."""
        ids = self.part("store", buckets)
        check_unique(self.engine, ids, "user", "user_vectors")
        lacking = users.anti_join(ids, "user")
        count, first = self.missing
        some = [row["user"] for row in self.engine.rows(lacking.select("user").order_by("user").limit(3))]
        self.missing = (count + self.engine.execute(lacking.count()), sorted(first + some)[:3])

    def group_territories(self) -> None:
        """Gives every territory its group: the caller's, or balanced over neighbours by training volume."""
        sums = self.first_events.group_by("territory")
        volumes = dict.fromkeys(self.territories, 0)
        names = ("events", "volume", "last")
        for row in self.engine.rows(sums.aggregate(**{name: self.first_events[name].sum() for name in names})):
            statistics = self.territories[row["territory"]]
            statistics["events"], statistics["last_window"] = int(row["events"]), int(row["last"])
            volumes[row["territory"]] = int(row["volume"])
        self.groups = self.logs.groups
        if self.groups is None:
            volumes.pop(UNKNOWN_TERRITORY, None)
            self.groups = territory_groups(volumes, self.logs.neighbours, self.options["num_groups"]) if volumes else {}
        for territory, statistics in self.territories.items():
            statistics["group"] = self.groups.get(territory)
        unlisted = sorted(t for t in self.territories if t not in self.groups and t != UNKNOWN_TERRITORY)
        users = sum(self.territories[territory]["users"] for territory in unlisted)
        self.warn(users, f"users live in territories of no group, served by the default branch: {unlisted[:10]}")
        for name in ("groups", "neighbours", "time_zones"):
            absent = sorted(set(getattr(self.logs, name) or ()) - set(self.territories))
            self.warn(len(absent), f"territories of {name!r} have no users and are not used: {absent[:10]}")

    def plan_catalogue(self) -> None:
        """Which titles each territory can be offered in each window, and in the one after the last."""
        last = self.windows[-1]
        windows = [*self.windows, make.Window(last.number + 1, last.end, last.end + (last.end - last.start))]
        territories = ibis.memtable({"territory": sorted(self.territories)})
        table = self.tables.availability
        if table is not None:
            rows = self.engine.execute(table.count())
            for key, owner, known in (("title", "titles", self.titles), ("territory", "users", territories)):
                strangers = table.anti_join(known, key)
                count = self.engine.execute(strangers.count())
                if count == rows:
                    tables = {"availability": table, owner: known}
                    refuse_mismatch(self.engine, tables, key, self.tables.id_types[key])
                hint = self.hint(strangers, known, key) if count else ""
                what = (
                    "of titles that are not in the titles table" if key == "title" else "of territories without users"
                )
                self.warn(count, f"rows of availability {what} were left out{hint}")
            table = table.semi_join(self.titles, "title")
        if self.is_drawn:
            none = ibis.null("timestamp")
            if table is None:
                table = self.titles.select("title").cross_join(territories)
            else:
                bounds = self.engine.execute((table.start.notnull() | table.end.notnull()).sum().fill_null(0))
                self.warn(bounds, "rows of availability have a start or end, which is not used: windows have no times")
            table = table.select("title", "territory").distinct().mutate(start=none, end=none)
        is_anywhere = self.logs.availability == "anywhere"
        titles = make.catalogue(self.first_events, territories, windows, table=table, is_anywhere=is_anywhere)
        self.catalogue = self.engine.store(titles, self.folder / "catalogue.parquet")
        columns = ("territory", "title", "window")
        shown = self.catalogue.filter(self.catalogue.window > -JUDGED_WINDOWS).select(*columns).order_by(*columns)
        self.engine.write(shown, self.out / "availability.parquet")
        self.advance("Surveying features")

    def plan_features(self) -> None:
        """Turns the extra columns into features, and sets lists of floats aside for the stores."""
        users = self.part("users", range(self.num_buckets))
        training = users.filter(users.split == "train")
        self.features, self.vector_columns = {}, {}
        for role, table, kinds in (
            ("user", training, self.kinds["users"]),
            ("title", self.titles, self.kinds["titles"]),
        ):
            ignored = [f"{name} ({table[inside(name)].type()})" for name, kind in kinds.items() if kind is None]
            self.warn(len(ignored), f"columns of the {role}s are left out because of the type: {ignored}")
            self.vector_columns[role] = [name for name, kind in kinds.items() if kind == "vector"]
            names = [name for name, kind in kinds.items() if kind not in (None, "vector")]
            self.features[role] = find_features(self.engine, table, role, names)
            numbers = [name for name in names if kinds[name] == "number"]
            everyone = users if role == "user" else table
            self.warnings += count_changed(self.engine, everyone, numbers)
            self.warnings += count_missing(self.engine, everyone, f"{role}s", numbers)
        events = self.part("events", range(self.num_buckets))
        names = list(self.tables.training)
        self.features["training"] = find_features(self.engine, events.filter(events.window <= 0), "training", names)
        numbers = [name for name, kind in self.tables.training.items() if kind == "number"]
        self.warnings += count_missing(self.engine, events, "events", numbers)
        numbers += [task for task, kind in self.tasks.items() if kind == "regression"]
        self.warnings += count_changed(self.engine, events, numbers)
        self.advance("Writing titles")

    def feature_columns(self, table: ibis.Table, role: str) -> list[ir.Value]:
        """The features of a table as they are written."""
        return [as_feature(table, feature) for feature in self.features[role]]

    def write_titles(self) -> None:
        """Writes titles.parquet and the title store."""
        titles = self.titles.order_by("title_row")
        self.engine.write(
            titles.select("title", "name", *self.feature_columns(titles, "title")),
            self.out / "titles.parquet",
        )
        extra = self.engine.to_pyarrow(titles.select("title", *map(inside, self.vector_columns["title"])))
        rows = extra.num_rows
        blocks, width = self.title_blocks(rows)
        names = self.vector_columns["title"]
        parts = [stores.list_matrix(extra.column(inside(name)).combine_chunks(), name) for name in names]
        ids = extra.select(["title"])
        self.title_width = width + sum(part.shape[1] for part in parts)
        writer = stores.StoreWriter(self.out / "vectors/title", rows, self.title_width, ids.schema)
        for block in blocks:
            span = slice(writer.rows, writer.rows + len(block))
            writer.append([np.hstack([block, *(part[span] for part in parts)])])
        writer.append_ids(ids)
        writer.close()
        self.title_vectors = np.load(self.out / "vectors/title/vectors.npy", mmap_mode="r")
        self.advance("Making examples")

    def title_blocks(self, rows: int) -> tuple[Iterable[np.ndarray], int]:
        """Title vectors in the order of the titles: `(iterable of matrices, width)`."""
        if self.logs.title_vectors is not None:
            vectors, ids = stores.open_store(self.engine, self.logs.title_vectors, "title_vectors", "title")
            check_unique(self.engine, ids, "title", "title_vectors")
            found = self.titles.select("title", "title_row").left_join(ids, "title").order_by("title_row")
            found = self.engine.to_pyarrow(found.select("title", "store_row"))
            places = stores.array_of(found, "store_row")
            lacking = found.column("title").filter(pa.array(places < 0))
            stores.check_vectors_found(len(lacking), lacking[:3].to_pylist(), "title", self.options["missing_vectors"])
            self.warn(len(lacking), "titles have no vector and got the zero vector")
            chunks = (places[begin : begin + ROW_GROUP] for begin in range(0, rows, ROW_GROUP))
            return (stores.gather(vectors, chunk) for chunk in chunks), vectors.shape[1]
        ids, texts, nameless = self.title_texts()
        if self.options["text_encoder"] is None:
            fitted = self.like and self.like.path / TEXT
            if fitted and fitted.is_file():
                fitted = TextVectors.load(fitted)
            else:
                fitted = TextVectors.fit(texts, seed=self.options["seed"])
            fitted.save(self.out / TEXT)
            unknown = fitted.count_unknown(texts)
            what = "text and no vectors" if unknown == rows else "word that is known, and no vector"
            self.warn(unknown, f"titles have no {what}; each got a random vector of its own")
            self.without_text = unknown
            self.warn(len(nameless), "titles have no name; half of their vector is random and their own")
            return [fitted(texts, ids, nameless)], fitted.width
        self.warn(sum(not has_words([text]) for text in texts), "titles have no text, and all of them the same vector")
        blocks = encoder_vectors(texts, self.options["text_encoder"])
        first = next(blocks)
        return (block for part in ([first], blocks) for block in part), first.shape[1]

    def title_texts(self) -> tuple[list[str], list[str], list[int]]:
        """What vectors are made of.

        Returns:
            `(ids, texts, nameless)` in the order of the titles: of each its name (unless it is just the id), text and
            list columns in one text, and the places of those that have text but no name, where others have one.
        """
        titles = self.titles
        parts = [(titles.name != titles.title).ifelse(titles.name, "")]
        for feature in self.features["title"]:
            if feature.kind != "number":
                column = as_feature(titles, feature)
                parts.append(column.join(" ") if feature.kind == "set" else column)
        texts = {"text": ibis.literal(" ").join(parts), "own": parts[0]}
        table = self.engine.to_pyarrow(titles.select("title", "title_row", **texts).order_by("title_row"))
        ids, texts, names = (table.column(name).to_pylist() for name in ("title", "text", "own"))
        has_name = [has_words([name or ""]) for name in names]
        nameless = [row for row, text in enumerate(texts) if not has_name[row] and has_words([text or ""])]
        return ids, texts, nameless if any(has_name) else []

    def make_examples(self) -> None:
        """Writes the examples, the user store and the parts of the users and events tables, pass after pass."""
        self.user_writer, self.user_width = None, 0
        for number, buckets in enumerate(self.passes):
            users, folder = self.part("users", buckets), self.folder / f"pass-{number}"
            states = self.stored_states[number]
            offsets = [(bucket, int(self.num_states[:bucket].sum())) for bucket in buckets]
            # Cast at once: Spark's sum is of 32 bits, and Ibis, which says otherwise, would leave out a later cast.
            states = states.mutate(row=states.row.cast("int64") + states.bucket.cases(*offsets, else_=None))
            width = self.write_user_vectors(buckets, users, states)
            narrow = self.engine.store(self.pass_examples(buckets, users, folder), folder / "examples.parquet")
            states = states.mutate(user_row=states.row if width else ibis.literal(-1, "int64"))
            self.write_examples(narrow, users, states)
            newest = states.filter(states.next_window.isnull()).select("user", "user_row")
            columns = self.feature_columns(users, "user")
            self.engine.save(
                users.select("user", *columns).inner_join(newest, "user"),
                self.folder / f"users_out/{number}.parquet",
            )
            self.engine.save(self.known_events(buckets, users), self.folder / f"events_out/{number}.parquet")
            shutil.rmtree(folder)
            self.advance("Making examples")
        if self.user_writer is not None:
            self.user_writer.close()

    def count_positives(self, found: ibis.Table, placed: ibis.Table, users: ibis.Table, events: ibis.Table) -> None:
        """Counts what became of the discoveries of some buckets, by window, split and sampling, and by territory."""
        keys = ("window", "split", "sampling")
        key = ("user", "split") if self.is_given else "user"
        found = found.inner_join(users.select("user", "split", "sampling"), key)
        of_users = collections.defaultdict(collections.Counter)
        for row in self.engine.rows(found.group_by(*keys).aggregate(discoveries=found.count())):
            of_users[tuple(row[key] for key in keys)].update(discoveries=row["discoveries"])
        firsts = events.group_by("user").aggregate(first=events.window.min())
        placed = placed.left_join(firsts, "user")
        counts = placed.group_by(*keys, "territory").aggregate(
            placed=placed.count(),
            positives=placed.is_available.sum(),
            newcomers=(placed.is_available & (placed.first == placed.window)).sum(),
        )
        for row in self.engine.rows(counts):
            positives = int(row["positives"])
            of_users[tuple(row[key] for key in keys)].update(placed=row["placed"], positives=positives)
            self.territories[row["territory"]]["positives"] += positives
            self.newcomers += int(row["newcomers"])
        for key, counts in of_users.items():
            self.fates.add_of_users(*key, **{name: counts[name] for name in ("discoveries", "placed", "positives")})

    def pass_examples(self, buckets: range, users: ibis.Table, folder: Path) -> ibis.Table:
        """Positives and negatives of some buckets."""
        options = self.options
        kinds = {inside(task): kind for task, kind in self.tasks.items()}
        labels, training = list(kinds), [inside(name) for name in self.tables.training]
        events = self.engine.store(self.history_events(buckets), folder / "history.parquet")
        rows = self.usable(self.part("events", buckets))
        owners = holdout.users_by_split(users, rows) if self.is_given else users
        lookback = options["activity_lookback"] or max(ACTIVITY, self.windows[0].end - self.windows[0].start)
        members = make.cohorts(owners, events, self.windows, lookback)
        members = self.engine.store(members, folder / "cohorts.parquet")
        carried = [*labels, *training]
        columns = ["user", "title", "time", "window", *carried]
        if self.is_given:
            events, rows = (table.rename(split="row_split") for table in (events, rows))
            columns.append("split")
        lookback = holdout.LOOKBACK if self.is_drawn else options["discovery_lookback"]
        found = make.discoveries(events.select(*columns), carried, lookback, is_greatest=self.is_drawn)
        found = found.filter(found.window >= self.windows[0].number)
        found = self.engine.store(found, folder / "discoveries.parquet")
        placed = self.engine.store(make.place(found, members, self.catalogue), folder / "positives.parquet")
        self.count_positives(found, placed, owners, events)
        positives = placed.filter(placed.is_available)
        # Whatever the user had in the window is no negative, also what is no discovery, because it was had before.
        # Where order is drawn, nothing that the user ever had is one.
        chosen = events.filter(events.window >= self.windows[0].number).select("user", "title", "window").distinct()
        refused = make.from_then_on(events, self.windows) if self.is_drawn else chosen
        amount, logged = {"seed": options["seed"], "alpha": options["alpha"]}, None
        if self.has_zeros:
            low = rows.filter(lambda t: t[labels[0]] == 0.0)
            zeros = low.filter(low.window >= self.windows[0].number).select(*columns)
            zeros = make.place(zeros, members, self.catalogue).filter(lambda t: t.is_available)
            if self.tables.has_ratings and options["low_ratings"] == "hide":
                refused = refused.union(make.from_then_on(low, self.windows), distinct=True)
            elif options["negatives"] != "sampled":
                zeros = zeros.anti_join(chosen, ("user", "title", "window"))
                logged = make.logged_negatives(zeros, positives, carried, **amount)
                logged = self.engine.store(logged, folder / "logged.parquet")
        # Filtered in one query with the join, DuckDB may begin with all members times all titles of their territory.
        refused = make.place(refused, members, self.catalogue)
        refused = refused.select("user", "title", *make.STRATUM, "is_available").distinct()
        refused = self.engine.store(refused, folder / "refused.parquet").filter(lambda t: t.is_available)
        negatives = [] if logged is None else [logged]
        if options["negatives"] != "logged":
            few = {"logged": logged, "refused": refused}
            negatives.append(make.sampled_negatives(positives, members, self.catalogue, **amount, **few))
        return make.label_examples(positives, negatives, kinds, training)

    def write_examples(self, narrow: ibis.Table, users: ibis.Table, states: ibis.Table) -> None:
        """Joins features to the examples of a pass and writes a file for each bucket, split, sampling and window."""
        counts = narrow.group_by("bucket", *PARTITIONS).aggregate(
            rows=narrow.count(),
            positives=narrow.is_positive.sum(),
            users=narrow.user.nunique(),
            **{f"sum_{task}": narrow[inside(task)].sum() for task in self.tasks},
            **{f"known_{task}": narrow[inside(task)].notnull().sum() for task in self.tasks},
        )
        counts = self.engine.rows(counts.order_by("bucket", *PARTITIONS))
        for row in counts:
            row["wanted"] = math.floor(row["positives"] * self.options["alpha"] + 0.5)
        titles = self.titles
        columns = [column.name(inside(column.get_name())) for column in self.feature_columns(users, "user")]
        rows = narrow.inner_join(users.select("user", *(c for c in columns if c.get_name() != "territory")), "user")
        columns = [column.name(inside(column.get_name())) for column in self.feature_columns(titles, "title")]
        rows = rows.inner_join(titles.select("title", "title_row", *columns), "title")
        spans = states.select("next_window", "user_row", state_user="user", state_window="window")
        rows = rows.inner_join(
            spans,
            [
                rows.user == spans.state_user,
                spans.state_window <= rows.window,
                spans.next_window.isnull() | (rows.window < spans.next_window),
            ],
        )
        features = [rows[inside(f.name)].name(f.name) for role in ("user", "title") for f in self.features[role]]
        labels = [rows[inside(task)].cast("float32").name(task) for task in self.tasks]
        training = [as_feature(rows, feature) for feature in self.features["training"]]
        rows = rows.order_by("bucket", *PARTITIONS, "user", "title")
        rows = rows.select(
            "user",
            "title",
            *features,
            *training,
            *labels,
            user_row=rows.user_row,
            title_row=rows.title_row.cast("int64"),
        )
        names = ["/".join(f"{key}={row[key]}" for key in PARTITIONS) + f"/part-{row['bucket']:05d}" for row in counts]
        paths = [self.out / "examples" / f"{name}.parquet" for name in names]
        self.engine.write_parts(rows, [row["rows"] for row in counts], paths)
        self.counts += [{name: value for name, value in row.items() if name != "bucket"} for row in counts]

    def write_user_vectors(self, buckets: range, users: ibis.Table, states: ibis.Table) -> int:
        """Appends some buckets to the user store; returns the width, 0 without a store."""
        columns = self.vector_columns["user"]
        if self.upstream is None and not self.has_history and not columns:
            return 0
        rows = states.inner_join(users.select("user", *map(inside, columns)), "user")
        if self.upstream is not None:
            rows = rows.left_join(self.part("store", buckets).select("user", "store_row"), "user").drop("user_right")
        source = self.engine.stream(rows.order_by("row"))
        history = self.history_blocks(buckets, states)
        ids = ["user", "window"] if self.has_history else ["user"]
        for table in source:
            parts = [stores.list_matrix(table.column(inside(name)).combine_chunks(), name) for name in columns]
            if self.upstream is not None:
                parts.insert(0, stores.gather(self.upstream, stores.array_of(table, "store_row")))
            if self.has_history:
                parts.insert(0, next(history))
            block = np.hstack(parts)
            table = table.select(ids)
            if self.user_writer is None:
                path, self.user_width = self.out / "vectors/user", block.shape[1]
                self.user_writer = stores.StoreWriter(path, int(self.num_states.sum()), self.user_width, table.schema)
            self.user_writer.append([block])
            self.user_writer.append_ids(table)
        return self.user_width

    def history_blocks(self, buckets: range, states: ibis.Table) -> Iterator[np.ndarray]:
        """History vectors of some buckets in the order of their states, in blocks as `stream` cuts them."""
        if not self.has_history:
            return iter(())
        pairs = self.engine.to_pyarrow(recent_titles(states, self.history_events(buckets), self.titles))
        rows, title_rows = (pairs.column(name).to_numpy() for name in ("row", "title_row"))
        first, end = (int(self.num_states[:bucket].sum()) for bucket in (buckets.start, buckets.stop))
        return mean_vectors(rows - first, title_rows, self.title_vectors, end - first)

    def write_sorted_tables(self) -> None:
        """Writes the users and events tables, sorted by user; sorts spill early, to stay below the buckets' memory."""
        self.engine.sort_early()
        users = self.engine.read_parquet(sorted(self.folder.glob("users_out/*.parquet")))
        self.engine.write(users.order_by("user"), self.out / "users.parquet")
        self.advance("Writing events")
        events = self.engine.read_parquet(sorted(self.folder.glob("events_out/*.parquet")))
        order = ("user", ibis.asc("time", nulls_first=True), "title", "window", "split", "is_event")
        self.engine.write(events.order_by(*order), self.out / "events.parquet")
        self.advance("Writing the report")

    def write_report(self) -> None:
        """Writes schema.json and prepare.json."""
        counts = sum_counts(self.counts)
        self.warn(self.fates.total("unavailable"), "positives of titles that were not available were dropped")
        self.warnings += shortfall(counts, self.options["negatives"])
        without = sorted(name for name, row in self.territories.items() if not row["positives"])
        self.warn(len(without), f"territories have no positives: {without[:10]}")
        self.warn(len(self.title_vectors) == 1, "titles are all that there is: nothing can be ranked")
        if self.has_history and self.newcomers == self.fates.total("positives"):
            self.warn(self.newcomers, "positives are all of users without a past: their user vectors are zero")
        if not any(row["split"] == "train" and row["window"] <= 0 for row in counts):
            raise ValueError(
                "`events` must give positives in the training windows: discoveries of available titles by training "
                "users; the warnings say what was dropped. Received: none"
            )
        check_negatives(counts, self.options["negatives"], len(self.title_vectors))
        features = [feature for role in ("user", "title", "training") for feature in self.features[role]]
        if self.user_width:
            features.append(Feature("user_vector", "user", "vector", width=self.user_width))
        features.append(Feature("title_vector", "title", "vector", width=self.title_width))
        if self.like is not None:
            check_widths(features, self.like.schema.features)
        groups = {(territory,): group for territory, group in self.groups.items()}
        tasks = describe_tasks(self.tasks, self.tables.after, counts)
        Schema(features=features, tasks=tasks, scenario=Scenario(("territory",), groups)).save(self.out)
        num_titles = len(self.title_vectors)
        report = build_report(
            self.logs, self.options, self.windows, counts, self.territories, num_titles, self.warnings
        )
        tests = sum(window.number > 0 for window in self.windows)
        report["times"] = self.logs.has_times
        report["calendar"] = {
            "text": self.calendar_text,
            "days": None if self.is_drawn else self.calendar.length / datetime.timedelta(days=1),
            "num_train": len(self.windows) - tests,
            "num_test": tests,
        }
        if self.is_drawn:  # windows are no spans of time
            report["windows"] = [{"window": window.number, "start": None, "end": None} for window in self.windows]
        report["funnel"], report["days"] = self.fates.document(), self.days
        report["stages"], report["splits"] = stages(report["funnel"]), self.fates.by_split()
        report["columns"], report["titles_without_text"] = self.columns(), self.without_text
        report["fingerprint"] = fingerprint(self.out)
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        (self.out / "prepare.json").write_text(text, encoding="utf-8")

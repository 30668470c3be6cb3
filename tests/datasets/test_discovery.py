import datetime

import ibis
import pandas as pd
import pytest

from tfmtr.datasets import discovery
from tfmtr.datasets.history import history_states, recent_titles
from tfmtr.datasets.logs import Calendar

DAY = datetime.timedelta(days=1)


def day(number, hour=0):
    return datetime.datetime(2024, 1, number, hour)


WINDOWS = [discovery.Window(number, day(10 + number), day(11 + number)) for number in (-1, 0, 1)]


def at(*rows):
    """Events `(user, title, time)` with their windows."""
    table = ibis.memtable(pd.DataFrame(rows, columns=["user", "title", "time"]).astype({"time": "datetime64[us]"}))
    return table.mutate(window=discovery.number_window(table.time, WINDOWS), event=ibis.literal(1).cast("float64"))


def rows(table, *columns):
    frame = ibis.duckdb.connect().execute(table.select(*columns))
    return sorted(frame.itertuples(index=False, name=None))


def test_plan_windows_ends_with_the_log():
    calendar = Calendar(DAY, num_train=2, num_test=1)
    windows = discovery.plan_windows(calendar, day(1, 8), day(3, 20))
    assert [(w.number, w.start, w.end) for w in windows] == [
        (-1, day(1), day(2)),
        (0, day(2), day(3)),
        (1, day(3), day(4)),
    ]
    hours = discovery.plan_windows(Calendar(DAY / 24, num_train=2, num_test=1), day(1, 8), day(3, 20))
    assert hours[-1].end == day(3, 20) + datetime.timedelta(seconds=1)


def test_plan_windows_takes_a_given_end_in_any_zone():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    end = datetime.datetime(2024, 1, 3, 2, tzinfo=zone)
    windows = discovery.plan_windows(Calendar(DAY, num_train=1, num_test=2, end=end), day(1), day(9))
    assert [w.start for w in windows] == [day(2), day(3), day(4)]


@pytest.mark.parametrize(
    "calendar",
    [
        Calendar(DAY, num_train=3, num_test=1),
        Calendar(DAY, num_train=3, num_test=1, end=day(2)),
        Calendar(DAY, num_train=2, num_test=1, start=day(2)),
    ],
)
def test_a_log_too_short_says_how_many_windows_fit(calendar):
    fit = 2 if calendar.start else 3
    with pytest.raises(ValueError, match=f"`calendar` must fit into the log.*where {fit} windows fit"):
        discovery.plan_windows(calendar, day(1, 8), day(3, 20))


def test_a_calendar_that_ends_after_the_log_has_an_error_of_its_own():
    calendar = Calendar(DAY, num_train=1, num_test=1, end=day(9))
    with pytest.raises(
        discovery.EmptyWindowError, match=r"must end in the log.*the last event is of 2024-01-03 20:00:00"
    ):
        discovery.plan_windows(calendar, day(1, 8), day(3, 20))


@pytest.mark.parametrize("changes", [{"length": datetime.timedelta(0)}, {"num_train": 0}, {"num_test": -1}])
def test_calendar_without_windows(changes):
    with pytest.raises(ValueError, match="`calendar` must have a positive length"):
        discovery.plan_windows(Calendar(**{"length": DAY, "num_train": 1, **changes}), day(1), day(9))


def test_windows_are_half_open():
    events = at(("u", "before", day(8, 23)), ("u", "first", day(9)), ("u", "last", day(12)), ("u", "in", day(11, 23)))
    assert rows(events, "title", "window") == [("before", -2), ("first", -1), ("in", 1), ("last", 2)]


def test_discoveries_look_back_over_the_whole_time():
    lookback = 2 * DAY
    events = at(
        ("u", "exactly", day(8)),
        ("u", "exactly", day(10)),  # two days later to the second: still the same month, so to say
        ("u", "longer", day(8)),
        ("u", "longer", day(10, 1)),
        ("u", "twice", day(9, 1)),
        ("u", "twice", day(9, 2)),
        ("v", "longer", day(10, 1)),
    )
    found = discovery.discoveries(events, ["event"], lookback).filter(lambda t: t.window >= -1)
    assert rows(found, "user", "title", "time") == [
        ("u", "longer", day(10, 1)),
        ("u", "twice", day(9, 1)),
        ("v", "longer", day(10, 1)),
    ]


def test_the_first_discovery_of_a_window_keeps_its_labels():
    events = at(("u", "a", day(10, 1)), ("u", "a", day(10, 5)))
    events = events.mutate(seconds=events.time.hour().cast("float64"))
    found = discovery.discoveries(events, ["event", "seconds"], datetime.timedelta(hours=1))
    assert rows(found, "title", "seconds") == [("a", 1.0)]


def test_active_means_before_the_window():
    users = ibis.memtable({"user": ["r", "a", "b"], "sampling": ["random", "active", "active"]})
    users = users.mutate(territory=ibis.literal("DE"), bucket=ibis.literal(0, "int64"), split=ibis.literal("train"))
    events = at(("a", "t", day(8, 12)), ("b", "t", day(10, 1)), ("r", "t", day(9)))
    members = discovery.cohorts(users, events, WINDOWS, lookback=DAY)
    # a was active within a day of window -1 only; b's event in window 0 counts for window 1 alone.
    assert rows(members, "user", "cohort", "user_position") == [("a", "-1", 0), ("b", "1", 0), ("r", "all", 0)]


def test_catalogue_knows_nothing_of_the_window_itself():
    first = ibis.memtable(
        {"title": ["a", "a", "b"], "territory": ["DE", "FR", "DE"], "time": [day(8), day(10), day(9)]},
        schema={"title": "string", "territory": "string", "time": "timestamp(6)"},
    )
    territories = ibis.memtable({"territory": ["DE", "FR"]})
    own = rows(discovery.catalogue(first, territories, WINDOWS), "territory", "title", "window")
    assert own == [("DE", "a", -1), ("DE", "a", 0), ("DE", "a", 1), ("DE", "b", 0), ("DE", "b", 1), ("FR", "a", 1)]
    anywhere = rows(discovery.catalogue(first, territories, WINDOWS, is_anywhere=True), "territory", "title", "window")
    assert set(anywhere) - set(own) == {("FR", "a", -1), ("FR", "a", 0), ("FR", "b", 0), ("FR", "b", 1)}


def test_history_is_the_newest_titles_before_the_window(monkeypatch):
    monkeypatch.setattr("tfmtr.datasets.history.MAX_TITLES", 2)
    users = ibis.memtable({"user": ["u", "v"], "bucket": [3, 3]})
    titles = ibis.memtable({"title": ["a", "b", "c"], "title_row": [0, 1, 2]})
    events = at(
        ("u", "a", day(7)),
        ("u", "b", day(7, 5)),
        ("u", "a", day(9, 5)),  # seen again: now newer than b
        ("u", "c", day(11, 5)),
    ).mutate(bucket=ibis.literal(3, "int64"))
    states = history_states(users, events, WINDOWS)
    assert [row[:3] for row in rows(states.fill_null({"next_window": 99}), "user", "window", "next_window")] == [
        ("u", -1, 0),
        ("u", 0, 2),
        ("u", 2, 99),
        ("v", -1, 99),
    ]
    # u before window -1: a, b; before 0 and 1: b, a; after the last window: a, c. v: nothing.
    assert rows(recent_titles(states, events, titles), "row", "title_row") == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("alpha", [10.0, 60.0])
def test_draws_reach_nearly_every_pair(alpha):
    # Eight users and eight titles: draws of users and titles that were not independent would give eight pairs only,
    # and 60 of the 63 free pairs need many more draws than that.
    members = ibis.memtable({"user": [f"u{i}" for i in range(8)], "user_position": range(8)})
    stratum = {"bucket": ibis.literal(0, "int64"), "split": ibis.literal("train"), "sampling": ibis.literal("random")}
    members = members.mutate(territory=ibis.literal("DE"), cohort=ibis.literal("all"), **stratum)
    titles = ibis.memtable({"title": [f"t{i}" for i in range(8)], "title_position": range(8)})
    titles = titles.mutate(territory=ibis.literal("DE"), window=ibis.literal(0, "int64"))
    positives = members.filter(members.user == "u3").drop("user_position")
    positives = positives.mutate(title=ibis.literal("t3"), window=ibis.literal(0, "int64"))
    found = rows(discovery.sampled_negatives(positives, members, titles, seed=0, alpha=alpha), "user", "title")
    assert len(found) == len(set(found)) == alpha
    assert ("u3", "t3") not in found


def test_users_without_a_title_do_not_eat_the_draws():
    members = ibis.memtable({"user": [f"u{i:03}" for i in range(300)], "user_position": range(300)})
    stratum = {"bucket": ibis.literal(0, "int64"), "split": ibis.literal("train"), "sampling": ibis.literal("random")}
    members = members.mutate(cohort=ibis.literal("all"), **stratum)
    members = members.mutate(territory=ibis.ifelse(members.user < "u030", "DE", "unknown"))
    titles = ibis.memtable({"title": [f"t{i:03}" for i in range(400)], "title_position": range(400)})
    titles = titles.mutate(territory=ibis.literal("DE"), window=ibis.literal(0, "int64"))
    positives = members.filter(members.user < "u020").drop("user_position")
    positives = positives.mutate(title=ibis.literal("t3"), window=ibis.literal(0, "int64"))
    found = rows(discovery.sampled_negatives(positives, members, titles, seed=0, alpha=10.0), "user", "title")
    assert len(found) == 200
    assert {user for user, _ in found} <= {f"u{i:03}" for i in range(30)}

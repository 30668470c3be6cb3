"""Windows that are chosen: they cover the log but for its warm-up."""

import datetime

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.base_log import base, prepared

from tfmtr.datasets import discovery
from tfmtr.datasets.calendars import EVENTS, FEW, LENGTHS, complete
from tfmtr.datasets.logs import Calendar

HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
START = datetime.datetime(2024, 1, 1, 9, 30)


def chosen(days, events, calendar=None, seed=0):
    """Times of a random log, and the windows on it."""
    rng = np.random.default_rng(seed)
    times = pd.Series(START + pd.to_timedelta(rng.integers(0, int(days * 86_400), events), unit="s")).sort_values()
    first, last = times.iloc[0].to_pydatetime(), times.iloc[-1].to_pydatetime()
    counts = times.dt.floor("h").value_counts().sort_index()
    hours = [(hour.to_pydatetime(), int(count)) for hour, count in counts.items()]
    calendar = complete(calendar or Calendar(), hours, first, last)
    return times, calendar, discovery.plan_windows(calendar, first, last)


@pytest.mark.parametrize(
    ("days", "events", "expected"),
    [
        *((0.5, 90_000, (HOUR, 8, 3)), (1, 90_000, (2 * HOUR, 7, 3)), (3, 90_000, (6 * HOUR, 7, 3))),
        *((5, 90_000, (DAY, 3, 2)), (12, 90_000, (DAY, 7, 3)), (60, 90_000, (4 * DAY, 9, 3))),
        *((365, 90_000, (28 * DAY, 7, 3)), (1000, 90_000, (91 * DAY, 6, 3)), (8000, 90_000, (364 * DAY, 15, 3))),
        *((60, 900, (7 * DAY, 4, 3)), (210, 900, (28 * DAY, 3, 3)), (210, 90, (28 * DAY, 3, 2))),
    ],
)
def test_length_and_number_follow_span_and_density(days, events, expected):
    times, calendar, windows = chosen(days, events)
    assert (calendar.length, calendar.num_train, calendar.num_test) == expected
    assert calendar.length in LENGTHS
    assert windows[-1].start <= times.iloc[-1] < windows[-1].end  # the last one ends with the log
    if days >= 5:
        assert windows[-1].end.time() == datetime.time()
        assert windows[-1].end - times.iloc[-1] <= DAY
    # The warm-up is a fifth of the events, but for half a window.
    edge = times.iloc[int(0.2 * len(times))]
    assert abs(windows[0].start - edge) <= calendar.length / 2 + HOUR
    inside = (times >= windows[0].start).sum()
    assert inside / len(windows) >= EVENTS or len(windows) < 2 * FEW


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"length": 7 * DAY}, (7 * DAY, 21, 3)),
        ({"length": 7 * DAY, "warm_up": 0.5}, (7 * DAY, 12, 3)),
        ({"length": 7 * DAY, "warm_up": 0.0}, (7 * DAY, 27, 3)),
        ({"num_test": 1}, (14 * DAY, 11, 1)),
        ({"num_train": 5}, (21 * DAY, 5, 3)),
        ({"length": 7 * DAY, "num_train": 4}, (7 * DAY, 4, 3)),
        ({"end": datetime.datetime(2024, 6, 1)}, (14 * DAY, 8, 3)),
        ({"end": datetime.datetime(2024, 6, 1), "num_train": 5, "num_test": 1}, (21 * DAY, 5, 1)),
        ({"start": datetime.datetime(2024, 3, 1, 0, 0, 1)}, (14 * DAY, 6, 3)),
    ],
)
def test_what_is_given_decides(given, expected):
    times, calendar, windows = chosen(210, 90_000, Calendar(**given))
    assert (calendar.length, calendar.num_train, calendar.num_test) == expected
    if "end" in given:
        assert windows[-1 - calendar.num_test].end == given["end"]
    else:
        assert windows[-1].start <= times.iloc[-1] < windows[-1].end
    if {"length", "num_train"} - given.keys():
        counted = times[times >= given.get("start", START)]
        edge = counted.iloc[int(given.get("warm_up", 0.2) * len(counted))]
        assert abs(windows[0].start - edge) <= calendar.length / 2 + DAY


@pytest.mark.parametrize(
    ("days", "given", "message"),
    [
        (0.02, {}, r"`events` must cover a training window and a test window.*\(`--no-times`\). Received: 5000 events"),
        (210, {"length": 200 * DAY}, "`events` must cover a training window and a test window"),
        (210, {"num_test": 12, "length": 28 * DAY}, "`events` must cover a training window and a test window"),
        (210, {"length": HOUR}, "`length` must be longer, so that at most 1000 windows cover the log"),
        (210, {"warm_up": 1.0}, r"`warm_up` must be in \[0, 1\). Received: warm_up=1.0"),
    ],
)
def test_logs_too_short_and_windows_too_many(days, given, message):
    with pytest.raises(ValueError, match=message):
        chosen(days, 5000, Calendar(**given))


def seven_months():
    events, users, titles = base(days=213, per=30)
    return events.assign(click=1), users, titles


def test_seven_months_by_default_lose_no_positive_before_the_first_window(tmp_path):
    events, users, titles = seven_months()
    short = Calendar(7 * DAY, num_train=8)
    changes = {"availability": "anywhere", "options": {"negatives": "both"}}
    old = prepared(tmp_path / "old", events, users, titles, calendar=short, **changes)
    new = prepared(tmp_path / "new", events, users, titles, calendar=Calendar(), **changes)
    lost = {}
    for name, data in (("old", old), ("new", new)):
        history = sum(row["history"] for row in data.report["funnel"])
        first = pd.Timestamp(data.report["windows"][0]["start"])
        assert history == (events.time < first).sum()
        share = f"{history / len(events):.0%}".replace("%", " %")
        assert f"({share} of the events)" in data.report["calendar"]["text"]
        lost[name] = history / len(events)
    assert lost["old"] > 0.6
    assert lost["new"] < 0.25
    text = "9 of 14 days for training, 3 for the tests, after a warm-up of 45 days (21 % of the events)"
    assert new.report["calendar"] == {"text": text, "days": 14.0, "num_train": 9, "num_test": 3}
    assert len(new.report["windows"]) == 12
    assert "3 for the tests, after a warm-up of 136 days" in old.report["calendar"]["text"]


def test_no_warm_up_is_said(tmp_path):
    events, users, titles = base()
    data = prepared(tmp_path, events, users, titles, calendar=Calendar(7 * DAY, 3, 1), availability="anywhere")
    assert data.report["calendar"]["text"] == "3 of 7 days for training, 1 for the tests, without a warm-up"


def test_windows_without_events_are_named(tmp_path):
    events, users, titles = base()
    days = (events.time - pd.Timestamp("2024-03-01")).dt.days
    events = events[(days < 8) | ((days >= 12) & (days < 25))]
    calendar = Calendar(4 * DAY, 4, 2, end=datetime.datetime(2024, 3, 21))
    data = prepared(tmp_path, events, users, titles, calendar=calendar)
    assert any(text == "1 window has no events: [-2]" for text in data.report["warnings"])
    events = events[days[events.index] < 24]
    late = pd.DataFrame({"user": ["u0000"], "title": ["t000"], "time": [pd.Timestamp("2024-03-26")], "click": [0]})
    data = prepared(tmp_path / "last", pd.concat([events, late]), users, titles, calendar=calendar)
    assert any(text == "2 windows have no events: [-2, 2]" for text in data.report["warnings"])
    assert data.test_windows == [1, 2]


def test_a_log_of_one_day_has_windows_of_hours(tmp_path):
    events, users, titles = base(days=1)
    data = prepared(tmp_path, events, users, titles, calendar=Calendar())
    assert data.report["calendar"]["text"].startswith("7 of 2 hours for training, 3 for the tests, after a warm-up of")


def test_all_events_at_once_and_all_in_the_warm_up(tmp_path):
    events, users, titles = base()
    at_once = events.assign(time=pd.Timestamp("2024-03-01"))
    with pytest.raises(ValueError, match=r"`events` must cover a training window.*\(`--no-times`\)"):
        prepared(tmp_path / "once", at_once, users, titles, calendar=Calendar())
    late = events.assign(time=pd.Timestamp("2024-03-28"))  # nine of ten events are of the last day
    late.loc[:359, "time"] = events.time[:359]
    with pytest.raises(ValueError, match=r"of which the first 20% are the warm-up, until 2024-03-28 00:00:00"):
        prepared(tmp_path / "late", late, users, titles, calendar=Calendar())


def test_few_events_far_after_all_others_place_no_windows(tmp_path):
    events, users, titles = base()
    events.loc[events.index[-1], "time"] = pd.Timestamp("2038-01-19")
    with pytest.raises(ValueError, match=r"`events` must end where the last window shall.*2038-01-19"):
        prepared(tmp_path, events, users, titles, calendar=Calendar())


def test_windows_longer_than_ninety_days_look_as_far_back_for_active_users(tmp_path):
    events, users, titles = base(days=1000, per=6)
    events["click"] = 1
    sizes = {}
    for name, lookback in (("default", None), ("ninety", 90 * DAY)):
        options = {"negatives": "both", "alpha": 1.0, "random_fraction": 0.0, "activity_lookback": lookback}
        calendar = Calendar(182 * DAY, 3, 1)
        data = prepared(
            tmp_path / name, events, users, titles, calendar=calendar, availability="anywhere", options=options
        )
        sizes[name] = {row["window"]: row["positives"] for row in data.report["examples"] if row["split"] == "train"}
    windows = {row["window"]: pd.Timestamp(row["start"]) for row in data.report["windows"]}
    for window, start in windows.items():
        if window > 0:
            continue
        before = events[(events.time < start) & (events.time >= start - 182 * DAY)].user
        rows = pd.concat(
            pq.ParquetFile(file).read(["user"]).to_pandas()
            for file in (tmp_path / "default/out").glob(
                f"examples/split=train/sampling=active/window={window}/*.parquet"
            )
        )
        assert set(rows.user) <= set(before)
        assert sizes["default"][window] > sizes["ninety"][window]

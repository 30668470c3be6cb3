"""Counters as of a window's start; `benchmarks/fuzz_counters.py` counts those of random logs anew with pandas."""

import datetime

import ibis
import numpy as np
import pandas as pd
import pytest
from helpers.base_log import base, make_logs, prepared, read_examples
from typer.testing import CliRunner

from tfmtr import cli
from tfmtr.datasets.counters import Spans, parse_counters
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.discovery import Window
from tfmtr.datasets.logs import Calendar
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.preparing import buckets
from tfmtr.schema import PAIR

COUNTERS = ("title", "title,territory", "title,tab", "user", "user,genre")
FEW = {"counters": ("title,territory", "user", "user,genre")}
TASKS = {"click": "click", "buy": "buy:after=click", "watch": "seconds:regression"}
KEYS = ["user", "title", "window", "split", "sampling"]


def tables():
    events, users, titles = base()
    events["tab"] = np.random.default_rng(1).choice(["home", "search"], len(events))
    return events, users, titles


def made(folder, events, users, titles, *, options=None, **changes):
    options = {"counters": COUNTERS, "counter_days": (1, 7), "counter_prior": 5.0, **(options or {})}
    changes = {"tasks": TASKS, "context": {"tab": "tab"}, **changes}
    return prepared(folder, events, users, titles, options=options, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made(tmp_path_factory.mktemp("counters"), *tables())


def names_of(data):
    return [name for counter in data.report["counters"] for name in counter["features"]]


def test_features_their_roles_and_their_means(data):
    found = {feature.name: feature for feature in data.schema.features if feature.name in names_of(data)}
    assert list(found) == names_of(data)
    assert len(found) == 5 * 2 * 5
    assert {name for name, feature in found.items() if feature.role == "user"} == {
        f"{name}_{days}d"
        for days in (1, 7)
        for name in ("count_user_rows", "count_user_click", "rate_user_click", "count_user_buy", "rate_user_buy")
    }
    assert all(feature.role in ("user", PAIR) and feature.kind == "number" for feature in found.values())
    rows = read_examples(data)
    rows = rows[(rows.split == "train") & (rows.window <= 0)]
    for name, feature in found.items():
        np.testing.assert_allclose([feature.mean, feature.std], [rows[name].mean(), rows[name].std(ddof=0)], rtol=1e-4)
    assert "1 regression has no counters: ['watch']" in data.report["warnings"]


def test_a_counter_by_hand(data):
    events, *_ = tables()
    windows = {row["window"]: pd.Timestamp(row["start"]) for row in data.report["windows"]}
    row = read_examples(data).query("window == 1").iloc[3]
    before = events[(events.time < windows[1]) & (events.time >= windows[1] - pd.Timedelta(days=7))]
    own = before[(before.title == row.title) & (before.tab == row.tab)]
    assert row.count_title_tab_rows_7d == pytest.approx(np.log1p(len(own)), rel=1e-6)
    assert row.count_title_tab_click_7d == pytest.approx(np.log1p(own.click.sum()), rel=1e-6)
    rate = (own.buy.sum() + 5 * before.buy.mean()) / (len(own) + 5)
    assert row.rate_title_tab_buy_7d == pytest.approx(rate, rel=1e-6)


def test_a_span_has_its_first_moment_and_not_the_window_s():
    start, day, second = datetime.datetime(2024, 3, 5), datetime.timedelta(days=1), datetime.timedelta(seconds=1)
    spans = Spans([Window(number, start + (number - 1) * day, start + number * day) for number in (1, 2)], (2,))
    times = ibis.memtable({"time": [start - 2 * day - second, start - 2 * day, start - second, start, start + day]})
    slots = ibis.duckdb.connect().to_pyarrow(times.select(slot=spans.slot(times.time)))["slot"].to_numpy()
    bounds = {row["window"]: row for row in ibis.duckdb.connect().to_pyarrow(spans.table()).to_pylist()}
    is_in = [(slots > bounds[number]["before_2"]) & (slots <= bounds[number]["end"]) for number in (1, 2)]
    np.testing.assert_array_equal(is_in[0], [False, True, True, False, False])
    np.testing.assert_array_equal(is_in[1], [False, False, True, True, False])


def stored_before(data, name, window):
    """The stored counters of titles as of a window and of those before it."""
    table = pd.read_parquet(data.path / f"counters/{name}.parquet")
    return table[table.window <= window].reset_index(drop=True)


def test_other_events_from_a_window_s_start_on_leave_its_counters_as_they_are(data, tmp_path):
    events, users, titles = tables()
    late = events.time >= pd.Timestamp(next(row["start"] for row in data.report["windows"] if row["window"] == 1))
    other = made(tmp_path, events.assign(click=events.click | late, buy=events.buy | late), users, titles, options=FEW)
    pd.testing.assert_frame_equal(*(stored_before(one, "title_territory", 1) for one in (data, other)))
    assert not stored_before(data, "title_territory", 2).equals(stored_before(other, "title_territory", 2))
    rows = [read_examples(one).set_index(KEYS) for one in (data, other)]
    both = rows[0].index.intersection(rows[1].index)
    assert (both.get_level_values("window") == 1).sum() > 50
    pd.testing.assert_frame_equal(*(part.loc[both, names_of(other)] for part in rows))


def test_without_the_events_from_a_window_s_start_on_its_counters_are_the_same(data, tmp_path):
    """They are then the newest, which are served."""
    events, users, titles = tables()
    start = pd.Timestamp(next(row["start"] for row in data.report["windows"] if row["window"] == 1))
    calendar = Calendar(datetime.timedelta(days=7), num_train=2, num_test=0, end=start)
    early = made(tmp_path, events[events.time < start], users, titles, calendar=calendar, options=FEW)
    assert early.next_window == 1
    pd.testing.assert_frame_equal(*(stored_before(one, "title_territory", 1) for one in (data, early)))
    newest = pd.read_parquet(early.path / "users.parquet").set_index("user")
    rows = read_examples(data).query("window == 1").groupby("user").first()
    own = [name for name in names_of(data) if "_user_" in name and "_genre_" not in name]
    pd.testing.assert_frame_equal(rows[own], newest.loc[rows.index, own])


def test_buckets_change_no_counter(data, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_EVENTS", 2_000)
    many = made(tmp_path, *tables(), options=FEW)
    assert len(list((many.path / "examples/split=train/sampling=random/window=0").glob("*.parquet"))) == 2
    rows = [read_examples(each).drop_duplicates(KEYS).set_index(KEYS) for each in (data, many)]
    both = rows[0].index.intersection(rows[1].index)
    assert len(both) > 100
    pd.testing.assert_frame_equal(*(part.loc[both, names_of(many)] for part in rows))
    pd.testing.assert_frame_equal(*(stored_before(each, "title_territory", 2) for each in (data, many)))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"counters": ["genre"]}, r"`counters` must be title, user, title with columns .*Received: 'genre'"),
        ({"counters": ["user,title"]}, r"`counters` must be title, user, .*Received: 'user,title'"),
        ({"counters": ["title,"]}, r"`counters` must be title.* Received: 'title,'"),
        ({"counters": "title"}, r"`counters` must be a list of texts"),
        ({"counters": ["title", "title"]}, r"`counters` must name each of them once"),
        ({"counters": ["title,teritory"]}, r"`counters` of a title must be one of .*Did you mean 'territory'"),
        ({"counters": ["user,age"]}, r"`counters` of a user must be one of \['genre'\]"),
        ({"counter_days": (0, 7)}, r"`counter_days` must be an integer, from 1 to 10000. Received: counter_days=0"),
        ({"counter_days": ()}, r"`counter_days` must be one or more different numbers of days, such as 1,7,28"),
        ({"counter_prior": 0}, r"`counter_prior` must be a finite number, greater than 0. Received: counter_prior=0"),
    ],
)
def test_what_cannot_be_counted_is_refused(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        made(tmp_path, *tables(), options=options)


def test_a_column_that_has_the_name_of_a_counter_is_refused(tmp_path):
    events, users, titles = tables()
    with pytest.raises(ValueError, match=r"counter 'count_user_click_7d' must have another name: it is that of column"):
        made(tmp_path, events, users.assign(count_user_click_7d=1.0), titles)


def test_logs_without_windows_of_time_are_refused_by_name(tmp_path):
    events, users, titles = tables()
    calendar = Calendar()
    logs = make_logs(tmp_path, events.drop(columns="time"), users, titles, has_times=False, calendar=calendar,
                     columns={name: name for name in ("user", "title", "territory", "name")})  # fmt: skip
    with pytest.raises(ValueError, match=r"`counters` must be left out where there are no times \(`--no-times`\)"):
        prepare(logs, tmp_path / "out", counters=["title"], progress=False)
    events["part"] = "train"
    logs = make_logs(tmp_path, events, users, titles, split_column="part", calendar=calendar)
    with pytest.raises(ValueError, match=r"`counters` must be left out where `split_column` says which rows"):
        prepare(logs, tmp_path / "out", counters=["title"], progress=False)


def test_data_that_continue_others_count_the_same(data, tmp_path):
    with pytest.raises(ValueError, match=r"`counter_days` must be what they are in the data that .*: \[1, 7\]. Rec"):
        made(tmp_path, *tables(), options={"counter_days": (1,), "like": data})


def test_the_command(tmp_path):
    events, users, titles = tables()
    make_logs(tmp_path, events, users, titles)
    typed = ["prepare", "events", "--out", str(tmp_path / "data"), "--map", "user=user,title=title,time=time"]
    for name in ("events", "users", "titles"):
        typed += [f"--{name}", str(tmp_path / f"{name}.parquet")]
    typed += ["--task", "click=click", "--counters", "title", "--counters", "user,genre", "--counter-days", "3"]
    result = CliRunner().invoke(cli.app, typed)
    assert result.exit_code == 0, result.output
    data = Dataset(tmp_path / "data")
    assert [counter["columns"] for counter in data.report["counters"]] == [["title"], ["user", "genre"]]
    assert data.report["options"]["counters"] == [",".join(c.columns) for c in parse_counters(["title", "user,genre"])]
    assert data.report["counters"][0]["features"] == [
        "count_title_rows_3d", "count_title_click_3d", "rate_title_click_3d",
    ]  # fmt: skip

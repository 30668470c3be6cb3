import dataclasses
import datetime

import duckdb
import numpy as np
import pandas as pd
import pytest

from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.log_tables import parse_memory, read_tables
from tfmtr.datasets.names import inside
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.reading import read_table


@pytest.fixture
def engine():
    return DuckDB()


def check_refused(logs, message):
    """The table is refused when it is read or surveyed, with a message that matches."""
    with pytest.raises(ValueError, match=message):
        prepare(logs, logs.events.parent / "out", progress=False)


def test_tables_come_in_the_words_of_the_package(engine, make_logs, tables):
    events, users, titles = tables
    events["ok"] = events.index % 2 == 0
    found = read_tables(engine, make_logs(events, users, titles, tasks={"click": "ok", "watch": "ok:regression"}))
    assert found.events.columns == ("user", "title", "time", inside("click"), inside("watch"))
    assert found.users.columns == ("user", "territory", inside("device"), inside("age"))
    assert found.titles.columns == ("title", "name", inside("genres"))
    assert found.tasks == {"click": "binary", "watch": "regression"}
    rows = engine.con.execute(found.events.order_by("time"))
    assert (rows[inside("click")] == events.sort_values("ts", kind="stable").ok.to_numpy()).mean() > 0.99
    assert engine.execute(found.titles.name.first()) == "Story 0 of war"


def test_a_title_without_name_is_called_by_its_id(engine, make_logs, tables):
    events, users, titles = tables
    titles.loc[3, "title name"] = None
    logs = make_logs(events, users, titles)
    names = engine.con.execute(read_tables(engine, logs).titles.order_by("title")).name
    assert names[3] == "t03"
    assert names[4] == "Story 4 of war"


@pytest.mark.parametrize("unit", ["timestamp", "utc", "date", "seconds", "float"])
def test_times_are_read_in_utc(engine, make_logs, tables, unit):
    events, users, titles = tables
    events = events.head(3).assign(ts=pd.to_datetime(["2024-01-01 23:30", "2024-01-02 00:00", "2024-01-03 00:00"]))
    expected = events.ts.tolist()
    if unit == "utc":
        events["ts"] = events.ts.dt.tz_localize("UTC").dt.tz_convert("America/New_York")
    if unit == "date":
        events["ts"] = events.ts.dt.date
        expected = [datetime.datetime.combine(day, datetime.time()) for day in events.ts]
    if unit in ("seconds", "float"):
        events["ts"] = (events.ts - pd.Timestamp(0)).dt.total_seconds().astype("int64" if unit == "seconds" else float)
    times = engine.con.execute(read_tables(engine, make_logs(events, users, titles)).events).time
    assert sorted(times.tolist()) == expected


def test_times_become_those_of_the_territory_s_clock(engine, make_logs, tables, monkeypatch):
    events, users, titles = tables
    users.loc[users.uid == users.uid[0], "market"], users.loc[users.uid == users.uid[1], "market"] = "DE", "US"
    some = events.iloc[:3].copy()
    some["uid"] = [users.uid[0], users.uid[1], "nobody"]
    some["ts"] = pd.to_datetime(["2024-07-01 22:30"] * 3)
    later = some.assign(ts=pd.to_datetime(["2024-01-01 22:30"] * 3))
    zones = {"DE": "Europe/Berlin", "US": "America/New_York"}
    engine.con.raw_sql("SET TimeZone = 'Asia/Tokyo'")  # the session's own zone says nothing
    logs = make_logs(pd.concat([some, later]), users, titles, time_zones=zones)
    found = engine.con.execute(read_tables(engine, logs).events.order_by("user", "time"))
    clock = {user: [str(time)[5:16] for time in times] for user, times in found.groupby("user").time}
    assert clock["nobody"] == ["01-01 22:30", "07-01 22:30"]
    assert clock[str(users.uid[0])] == ["01-01 23:30", "07-02 00:30"]  # summer time; another day
    assert clock[str(users.uid[1])] == ["01-01 17:30", "07-01 18:30"]
    bad = make_logs(some, users, titles, time_zones={"DE": "Europe/Atlantis"})
    with pytest.raises(ValueError, match=r"names of the tz database.*Atlantis"):
        read_tables(engine, bad)


def test_missing_column_names_the_nearest(make_logs, tables):
    events, users, titles = tables
    message = r"`events` must have the column 'uid'.* Did you mean 'u_id'\? Received: columns=\['u_id', 'asin', 'ts'\]"
    check_refused(make_logs(events.rename(columns={"uid": "u_id"}), users, titles), message)
    check_refused(make_logs(events, users.drop(columns="market"), titles), "`users` must have the column 'market'")
    check_refused(make_logs(events, users, titles.drop(columns="title name")), "`titles` must have the column 'title n")
    check_refused(make_logs(*tables, tasks={"click": "clik"}), "`events` must have the column 'clik'")


def test_wrong_types(make_logs, tables):
    events, users, titles = tables
    message = "Column 'ts' of `events` must be a timestamp, a date or seconds since 1970.*Received: boolean"
    check_refused(make_logs(events.assign(ts=True), users, titles), message)
    message = "Column 'uid' of `users` must be text or a number; write it as text. Received: array<string>"
    check_refused(make_logs(events, users.assign(uid=[[uid] for uid in users.uid]), titles), message)
    message = (
        "Label column 'asin' of `events` must be a number or boolean; .* Received: string, such as .*'asin': 't04'"
    )
    check_refused(make_logs(*tables, tasks={"click": "asin"}), message)
    message = r"Task 'click' must be one of the kinds \['binary', 'regression'\], or 'after='.*Received: 'ts:rank'"
    check_refused(make_logs(*tables, tasks={"click": "ts:rank"}), message)
    message = r"`after` of task 'buy' must be one of \['click'\]. Did you mean 'click'\? Received: after='clik'"
    tasks = {"click": "ok", "buy": "ok:after=clik"}
    check_refused(make_logs(events.assign(ok=True), users, titles, tasks=tasks), message)
    message = r"`after` of task 'buy' must be left out, as there is nothing to choose from. Received: after='click'"
    check_refused(make_logs(events.assign(ok=True), users, titles, tasks={"buy": "ok:after=click"}), message)
    for kind in ("after=click:regression", "regression:after=click"):
        tasks = {"click": "ok", "buy": f"ok:{kind}"}
        message = f"Task 'buy' must have either ':regression' or ':after='.* Received: 'ok:{kind}'"
        check_refused(make_logs(events.assign(ok=True), users, titles, tasks=tasks), message)


def test_empty_tables(make_logs, tables, tmp_path):
    events, users, titles = tables
    check_refused(
        make_logs(events[:0], users, titles), r"`events` must have at least one row. Received: .*events.parquet"
    )
    empty = tmp_path / "empty.csv"
    empty.touch()
    logs = make_logs(*tables)
    check_refused(
        type(logs)(**{**vars(logs), "users": empty}), "`users` must not hold an empty file.*empty.csv of 0 bytes"
    )
    check_refused(make_logs(events.assign(ts=pd.NaT), users, titles), "`events` must have rows with a time.*900 rows")


def test_truncated_parquet_is_named(engine, tmp_path):
    for name in ("a", "b"):
        pd.DataFrame({"x": range(1000)}).to_parquet(tmp_path / f"{name}.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"`events` must be complete Parquet files.*b.parquet"):
        read_table(engine, tmp_path, "events")


def test_missing_files(engine, tmp_path):
    with pytest.raises(ValueError, match=r"`users` must be a Parquet or CSV file.*nowhere, which is missing"):
        read_table(engine, tmp_path / "nowhere", "users")
    with pytest.raises(ValueError, match=r"`users` must be a file or folder of .parquet, .csv.*which has none"):
        read_table(engine, tmp_path, "users")


def test_files_of_a_folder_must_agree(engine, tmp_path):
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"y": [1]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"`events` must have the same columns.*b.parquet differs .*\['x', 'y'\]"):
        read_table(engine, tmp_path, "events")


def test_a_csv_that_is_none(engine, tmp_path):
    (tmp_path / "a.csv").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(ValueError, match="`events` must be UTF-8"):
        read_table(engine, tmp_path / "a.csv", "events")


def test_index_columns_of_pandas_are_no_features(engine, tmp_path):
    pd.DataFrame({"x": [1, 2, 3]}).query("x > 1").to_parquet(tmp_path / "a.parquet")
    assert read_table(engine, tmp_path / "a.parquet", "users")[0].columns == ("x",)


def test_doubles(make_logs, tables):
    events, users, titles = tables
    doubled = pd.concat([users, users[10:15]])
    message = r"`users` must have one row for each user.* 5 users with several rows, first \['u10', 'u11', 'u12'\]"
    check_refused(make_logs(events, doubled, titles), message)
    message = r"`titles` must have one row for each title.* 1 titles with several rows, first \['t07'\]"
    check_refused(make_logs(events, users, pd.concat([titles, titles[7:8]])), message)


def test_labels_outside_their_range(make_logs, tables):
    events, users, titles = tables
    events["stars"] = 1.0
    events.loc[events.index[:4], "stars"] = 5.0
    message = "Labels of the binary task 'like' must be 0, 1 or null.*Received: 4 others, first .*'like': 5.0"
    check_refused(make_logs(events, users, titles, tasks={"like": "stars"}), message)
    events.loc[events.index[:4], "stars"] = np.inf
    message = "Labels of the regression task 'like' must be finite or null.* Received: 4 others"
    check_refused(make_logs(events, users, titles, tasks={"like": "stars:regression"}), message)


def test_columns_named_like_something_else(make_logs, tables):
    events, users, titles = tables
    message = "column 'event' of `users` must have another name: it is that of task 'event'"
    check_refused(make_logs(events, users.assign(event=1), titles), message)
    message = (
        "column 'user_row' of `titles` .* column 'window' of `titles` must have another name: the folders of the ex"
    )
    check_refused(make_logs(events, users, titles.assign(user_row=1, window=2)), message)
    message = (
        "column 'age' of `titles` must have another name: it is that of column 'age' of `users`; rename the column"
    )
    check_refused(make_logs(events, users, titles.assign(age=1)), message)
    message = "Column 'uid' of `users` is the user, so no other column may be called 'user'"
    check_refused(make_logs(events, users.assign(user=1), titles), message)


def test_stores_that_do_not_fit(make_logs, tables, tmp_path):
    logs = make_logs(*tables, title_vectors=tmp_path)
    check_refused(logs, "`title_vectors` must be a folder with vectors.npy and ids.parquet.*without vectors.npy")
    vectors = np.zeros((25, 3), "float32")
    np.save(tmp_path / "vectors.npy", vectors)
    pd.DataFrame({"id": tables[2].asin[:-1]}).to_parquet(tmp_path / "ids.parquet")
    check_refused(logs, r"`title_vectors` must have one id for each vector; .* Received: 24 ids and 25 vectors")
    pd.DataFrame({"id": tables[2].asin}).to_parquet(tmp_path / "ids.parquet")
    vectors[17, 1] = np.nan
    np.save(tmp_path / "vectors.npy", vectors)
    check_refused(logs, "`title_vectors` must hold finite numbers.*NaN or infinity in row 17")
    np.save(tmp_path / "vectors.npy", np.zeros((25, 3), "float32"))
    pd.DataFrame({"id": ["t00", *tables[2].asin[:-1]]}).to_parquet(tmp_path / "ids.parquet")
    check_refused(logs, r"`title_vectors` must have one row for each title.*first \['t00'\]")


@pytest.mark.parametrize(("text", "size"), [("4GB", 4e9), ("512 mb", 512e6), ("1.5GiB", 1.5e9)])
def test_parse_memory(text, size):
    assert parse_memory(text) == size


def test_ids_of_a_csv_stay_as_written(engine, tmp_path):
    (tmp_path / "a.csv").write_text("uid,score\n1e05,1.50\n2e07,2\n")
    table, _ = read_table(engine, tmp_path / "a.csv", "users", ids=["uid", "absent"])
    assert sorted(engine.con.execute(table.uid)) == ["1e05", "2e07"]
    assert table.score.type().is_floating()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, r"write others as text.* others, first \[0.5\] \(float64\)"),
        (True, "write it as text. Received: boolean"),
        (datetime.date(2024, 1, 1), "write it as text. Received: date"),
    ],
)
def test_names_that_are_no_text(engine, make_logs, tables, value, message):
    events, users, titles = tables
    with pytest.raises(ValueError, match=f"Column 'title name' of `titles` must be .*{message}"):
        read_tables(engine, make_logs(events, users, titles.assign(**{"title name": value})))
    with pytest.raises(ValueError, match=f"Column 'market' of `users` must be .*{message}"):
        read_tables(engine, make_logs(events, users.assign(market=value), titles))


def test_warnings_until_an_error_are_kept_with_it(make_logs, tables, tmp_path):
    events, users, titles = tables
    logs = make_logs(events, users.assign(empty=None), titles, tasks={"click": "clik"})
    with pytest.raises(ValueError, match="must have the column 'clik'") as caught:
        prepare(logs, tmp_path / "out", progress=False)
    assert caught.value.__notes__ == [
        "the column 'empty' of users holds nothing but nulls: a feature that is always missing"
    ]


def test_a_file_whose_name_is_not_utf_8(engine, tmp_path):
    (tmp_path / "\udcfc.csv").write_text("n,x\n1,2\n")
    with pytest.raises(ValueError, match=r"`events` must be files with names in UTF-8; rename it.*udcfc.csv"):
        read_table(engine, tmp_path, "events")


def test_too_little_memory_for_a_log_names_the_option(make_logs, tables, tmp_path, monkeypatch):
    def run_steps(_):
        raise ValueError("no table") from duckdb.OutOfMemoryException("0 bytes")

    monkeypatch.setattr("tfmtr.datasets.prepare.run_steps", run_steps)
    check_refused(make_logs(*tables), "`memory_limit` must be larger for this log. Received: memory_limit=4GB")


def test_a_csv_without_a_header_is_said_to_have_none(engine, make_logs, tables, tmp_path):
    events, logs = tables[0], make_logs(*tables)
    for name, table in (("one", events), ("two", events.assign(click=1, buy=1))):
        table.to_csv(tmp_path / f"{name}.csv", index=False, header=False)
        with pytest.raises(ValueError, match=r"`events` must have .* look like values: a CSV file must begin with"):
            read_tables(engine, dataclasses.replace(logs, events=tmp_path / f"{name}.csv"))

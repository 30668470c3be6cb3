"""Spark gives DuckDB's rows, and the same bytes of them, on a small log with all that a log may have."""

import dataclasses
import datetime
import json

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.labels import parse_label
from tfmtr.datasets.log_tables import check_labels, check_unique, read_tables
from tfmtr.datasets.logs import Calendar
from tfmtr.datasets.names import inside
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.preparing import buckets
from tfmtr.datasets.reading import read_table

pytest.importorskip("pyspark", reason="needs the extra `spark` and Java 17: pip install 'tfmtr[spark]'")
from pyspark.sql import SparkSession

from tfmtr.datasets.engines.spark import Spark

OPTIONS = {
    "alpha": 3.0,
    "discovery_lookback": datetime.timedelta(days=5),
    "activity_lookback": datetime.timedelta(days=4),
    "progress": False,
}


def prepare_twice(logs, folder, monkeypatch, *, passes=1, **options):
    """The same log prepared by both engines: in one bucket, or in three of which Spark takes two at once."""
    if passes == 2:
        monkeypatch.setattr(buckets, "BUCKET_EVENTS", 400)
        monkeypatch.setattr(Spark, "pass_buckets", 2)
    duckdb = prepare(logs, folder / "duckdb", **OPTIONS, **options)
    return duckdb, prepare(
        logs, folder / "my day=01 50%20" / "spark [1]", engine="spark", spark_master="local[2]", **OPTIONS, **options
    )


def check_same(duckdb, spark):
    """All tables, row for row, the stores, the schema and the report, and then every byte."""
    files = [
        {str(file.relative_to(data.path)): file for file in data.path.rglob("*") if file.is_file()}
        for data in (duckdb, spark)
    ]
    assert files[0].keys() == files[1].keys()
    for name, file in files[0].items():
        if file.suffix == ".parquet":
            found = [pq.ParquetFile(each[name]).read() for each in files]
            assert found[0].schema == found[1].schema, name
            pd.testing.assert_frame_equal(found[0].to_pandas(), found[1].to_pandas(), check_exact=True, obj=name)
        elif file.suffix == ".npy":
            np.testing.assert_array_equal(np.load(file), np.load(files[1][name]), err_msg=name)
        elif file.name != "prepare.json":
            assert file.read_bytes() == files[1][name].read_bytes(), name
    reports = [json.loads((data.path / "prepare.json").read_text()) for data in (duckdb, spark)]
    assert (reports[1]["options"].pop("engine"), reports[1]["options"].pop("spark_master")) == ("spark", "local[2]")
    assert (reports[0]["options"].pop("engine"), reports[0]["options"].pop("spark_master")) == ("duckdb", None)
    assert reports[1]["versions"].pop("pyspark").startswith("4.")
    assert reports[0] == reports[1]


def test_histories_zones_and_features_of_all_kinds(spark, make_logs, tables, tmp_path, monkeypatch):
    events, users, titles = tables
    users["uid"], events["uid"] = users.uid.str.replace("u1", "ü1"), events.uid.str.replace("u1", "ü1")
    users["height"] = np.where(users.index % 9 == 0, np.inf, users.index / 7.0)
    users.loc[3, "height"], users.loc[4, "device"], users.loc[5, "market"] = np.nan, None, None
    users["is_kid"] = [None if i % 11 == 0 else bool(i % 2) for i in range(len(users))]
    users["words"] = [None if i % 10 == 0 else ["é", "z", "a"][: i % 4] for i in range(len(users))]
    users["taste"] = [[float(i), 0.5] for i in range(len(users))]
    users["joined"] = datetime.date(2020, 1, 1)
    titles["image"] = [[1.0, i / 3.0] for i in range(len(titles))]
    titles.loc[2, "title name"] = None
    events = pd.concat([events, events.iloc[:7].assign(uid="nobody"), events.iloc[7:12].assign(asin="nothing")])
    zones = {"DE": "Europe/Berlin", "US": "America/New_York"}
    both = prepare_twice(make_logs(events, users, titles, time_zones=zones), tmp_path, monkeypatch, passes=2)
    check_same(*both)
    kinds = {feature.name: feature.kind for feature in both[1].schema.features}
    assert (kinds["is_kid"], kinds["height"], kinds["words"], kinds["user_vector"]) == ("id", "number", "set", "vector")


def test_impressions_stores_availability_and_csv(spark, make_logs, tables, tmp_path, monkeypatch):
    events, users, titles = tables
    rng = np.random.default_rng(0)
    events["click"] = (rng.random(len(events)) < 0.3).astype(float)
    events.loc[events.index[:5], "click"] = np.nan
    events["buy"] = events.click.fillna(0) * (rng.random(len(events)) < 0.5)
    events["seconds"] = np.where(events.click == 1, rng.random(len(events)) * 100, np.nan)
    events["place"], events["device"] = np.arange(len(events)) % 7, np.where(events.index % 2, "tv", "phone")
    events["ts"] = (events.ts - pd.Timestamp(0)).dt.total_seconds() + 0.25
    events["list"] = [None if i % 9 == 0 else f"r{i % 17}" for i in range(len(events))]
    offered = pd.DataFrame({"title": titles.asin[3:], "key": 0})
    offered = offered.merge(pd.DataFrame({"territory": ["DE", "FR", "US"], "key": 0})).drop(columns="key")
    offered["start"], offered["end"] = pd.Timestamp(2024, 1, 2).as_unit("ns"), pd.NaT  # which Spark does not have
    offered.loc[:9, "end"] = pd.Timestamp(2024, 1, 8, 12)
    offered.to_parquet(tmp_path / "offered.parquet")
    for name, ids in (("users", users.uid[::-1][3:]), ("titles", titles.asin[::-1])):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "vectors.npy", rng.normal(size=(len(ids), 5)).astype("float32"))
        pd.DataFrame({"id": ids}).to_parquet(tmp_path / name / "ids.parquet")
    users.rename(columns={"device": "Bucket"}).to_csv(tmp_path / "users.csv", index=False)
    logs = make_logs(
        events, users, titles,
        tasks={"click": "click", "watch": "seconds:regression", "purchase": "buy:after=click"},
        training={"rank": "place", "Draw": "device:id"},  # names of columns that the preparation has, too
        context={"screen": "device", "slot": "place:number"}, scenario=["screen", "territory"],
        availability=tmp_path / "offered.parquet",
        user_vectors=tmp_path / "users", title_vectors=tmp_path / "titles",
    )  # fmt: skip
    object.__setattr__(logs, "users", tmp_path / "users.csv")
    object.__setattr__(logs, "columns", {**logs.columns, "request": "list"})
    counters = {"counters": ["title,screen", "user", "user,genres"], "counter_days": [3]}
    options = {"missing_vectors": "zero", "examples": "impressions", **counters}
    both = prepare_twice(logs, tmp_path / "out", monkeypatch, **options)
    check_same(*both)
    assert both[1].rows_for("ranking", "train") != both[1].examples("train")
    assert any("3 users have no vector" in warning for warning in both[1].report["warnings"])


def test_bad_tables_are_refused_in_the_same_words(spark, make_logs, tables):
    events, users, titles = tables
    events["stars"] = np.where(events.index < 4, np.inf, 1.0)
    logs = make_logs(events, pd.concat([users, users[10:15]]), titles, tasks={"like": "stars:regression"})
    milliseconds = make_logs(events.assign(ts=1_704_067_200_000), users, titles)
    checks = [
        lambda engine: check_labels(engine, read_tables(engine, logs).events, {inside("like"): "regression"}),
        lambda engine: check_labels(engine, read_tables(engine, logs).events, {inside("like"): "binary"}),
        lambda engine: check_unique(engine, read_tables(engine, logs).users, "user", "users"),
        lambda engine: read_tables(engine, milliseconds),
    ]
    for check in checks:
        messages = []
        for engine in (DuckDB(), spark):
            with pytest.raises(ValueError, match=r"Received: ") as caught:
                check(engine)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_files_that_are_no_table(spark, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x,y\n1,\xff\xfe\x00\n")
    with pytest.raises(ValueError, match="`events` must be UTF-8"):
        read_table(spark, tmp_path / "a.csv", "events")
    with pytest.raises(spark.errors):
        spark.read_parquet([tmp_path / "none.parquet"])


def test_numbers_are_read_alike(spark, make_logs, tables):
    events, users, titles = tables
    users["uid"] = [i * 12_345_678.0 for i in range(len(users))]
    events["ts"] = ((events.ts - pd.Timestamp(0)).dt.total_seconds() + 0.0625).astype("float64")
    names, times = [], []
    for engine in (DuckDB(), spark):
        read = read_tables(engine, make_logs(events, users, titles))
        names.append(sorted(row["user"] for row in engine.rows(read.users)))
        times.append([row["time"] for row in engine.rows(read.events.order_by("time"))])
    assert names[0] == names[1]
    assert times[0] == times[1]
    assert {"0", "12345678"} < set(names[0])


def test_a_guest_does_not_end_spark(spark, tmp_path):
    Spark(tmp_path, 10**9).close()
    assert SparkSession.getActiveSession() is not None
    assert spark.execute(ibis.memtable({"x": [1]}).count()) == 1


@pytest.mark.parametrize(("kind", "label"), [("binary", np.nan), ("binary", 0.5), ("regression", np.nan)])
def test_nan_is_no_label(spark, kind, label):
    events = ibis.memtable({"user": ["u", "v", "w"], "title": ["t", "t", "t"], "like": [1.0, label, None]})
    events = events.mutate(like=(events.user == "w").ifelse(ibis.null("float64"), events.like))
    with pytest.raises(ValueError, match="Received: 1 others"):
        check_labels(spark, events, {"like": kind})


def test_a_sorted_table_in_many_files_stays_sorted(spark, tmp_path):
    numbers = ibis.memtable({"x": np.random.default_rng(0).permutation(1_000)})
    spark.session.conf.set("spark.sql.adaptive.enabled", "false")  # which makes one file of small ones
    try:
        files = [rows.column("x").to_pylist() for rows in spark.batches(numbers.order_by("x"))]
        spark.write(numbers.order_by(numbers.x.desc()), tmp_path / "numbers.parquet")
    finally:
        spark.session.conf.unset("spark.sql.adaptive.enabled")
    assert len(files) == 2
    assert [x for file in files for x in file] == list(range(1_000))
    assert pq.read_table(tmp_path / "numbers.parquet").column("x").to_pylist() == list(range(999, -1, -1))


def test_a_table_without_rows_keeps_its_columns(spark, tmp_path):
    table = ibis.memtable({"x": [1, 2], "bucket": [0, 1]})
    spark.partition(table.filter(table.x > 5), tmp_path / "parts", 2)
    assert spark.to_pyarrow(spark.read_buckets(tmp_path / "parts", range(2))).schema.names == ["x", "bucket"]
    before = set(spark.folder.iterdir())
    assert list(spark.stream(spark.store(table.filter(table.x > 5), tmp_path / "none"))) == []
    assert set(spark.folder.iterdir()) == before  # nothing is left of what `stream` needs


@pytest.mark.parametrize(("has_times", "is_given"), [(False, False), (True, True)])
def test_logs_without_times_and_of_a_given_split(spark, make_logs, tables, tmp_path, monkeypatch, has_times, is_given):
    events, users, titles = tables
    events["part"] = np.random.default_rng(0).choice(["train", "val", "test"], len(events), p=[0.6, 0.2, 0.2])
    changes = {"calendar": Calendar(), "has_times": has_times, "split_column": "part" if is_given else None}
    if is_given:  # and what is rated low is hidden
        events["stars"] = np.random.default_rng(0).integers(1, 6, len(events))
        changes["tasks"] = {"liked": "stars>3"}
    if not has_times:
        changes["columns"] = {"user": "uid", "title": "asin", "territory": "market", "name": "title name"}
    both = prepare_twice(make_logs(events, users, titles, **changes), tmp_path, monkeypatch)
    check_same(*both)
    assert {row["split"] for row in both[1].report["examples"]} == {"train", "validation", "test"}


def test_ratings_of_events_alone(spark, make_logs, tables, tmp_path, monkeypatch):
    """A threshold of a float32 column with nulls and NaN, territories of events, sampled beside logged negatives.

    Windows are chosen, and test users are a fold.
    """
    events, users, titles = tables
    rng = np.random.default_rng(0)
    stars = rng.choice([1.3, 2.3, 3.3, 4.3, None, np.nan], len(events)).astype("object")
    events["stars"] = pd.array(stars, dtype=pd.ArrowDtype(pa.float32()))
    events["market"] = rng.choice(["DE", "FR", "US", None], len(events))
    logs = make_logs(events, users, titles, tasks={"liked": "stars>=3.3", "loved": "stars > 4:after=liked"})
    columns = {name: column for name, column in logs.columns.items() if name != "name"}
    logs = dataclasses.replace(logs, users=None, titles=None, columns=columns, calendar=Calendar())
    options = {"low_ratings": "negatives", "seen": "impressions", "fold": "2/3"}
    both = prepare_twice(logs, tmp_path, monkeypatch, **options)
    check_same(*both)
    assert both[1].report["calendar"]["text"].startswith("3 of 2 days for training, 2 for the tests, after a warm-up")
    assert any("users have events in several territories" in text for text in both[1].report["warnings"])
    low = events.stars.astype("float64") < 3.2
    assert sum(row["low_rated"] for row in both[1].report["funnel"]) == low.sum()


def test_nan_is_no_rating(spark):
    rows = ibis.memtable({"row": [0, 1, 2], "rating": [5.0, np.nan, 1.0]})
    labels = rows.select("row", label=parse_label("liked", "rating>=4").of(rows.rating)).order_by("row")
    assert [row["label"] for row in spark.rows(labels)] == [1.0, None, 0.0]

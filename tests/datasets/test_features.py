import datetime

import ibis
import numpy as np
import pandas as pd
import pytest

from tfmtr.datasets import features
from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.features import as_feature, column_kind, count_missing, find_features
from tfmtr.datasets.names import inside


@pytest.fixture
def engine():
    return DuckDB()


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("string", "id"),
        ("boolean", "id"),
        ("int8", "number"),
        ("float32", "number"),
        ("decimal(9, 2)", "number"),
        ("array<string>", "set"),
        ("array<float32>", "vector"),
        ("array<int64>", None),
        ("date", None),
        ("timestamp", None),
        ("struct<a: string>", None),
    ],
)
def test_kinds_follow_types(dtype, kind):
    assert column_kind(ibis.dtype(dtype)) == kind


def test_features_of_a_table(engine, monkeypatch):
    monkeypatch.setattr(features, "MAX_VOCABULARY", 2)
    monkeypatch.setattr(features, "MAX_SET", 3)
    frame = pd.DataFrame(
        {
            "plan": ["b", "a", "a", "c", "c", None],
            "kids": [True, False, True, True, None, None],
            "age": [1.0, 2.0, 3.0, np.nan, np.inf, None],
            "same": 4,
            "tags": [["x", "y"], ["y"], None, [], ["a", "b", "c", "d"], ["x"]],
            "empty": pd.Series([None] * 6, dtype="string"),
        }
    )
    table = ibis.memtable(frame.rename(columns=inside))
    found = {f.name: f for f in find_features(engine, table, "user", list(frame.columns))}
    assert found["plan"].vocabulary == ("a", "c")
    assert found["kids"].vocabulary == ("true", "false")
    assert (found["age"].mean, found["age"].std) == (2.0, pytest.approx(np.std([1, 2, 3])))
    assert (found["same"].mean, found["same"].std) == (4.0, 1.0)
    assert (found["tags"].vocabulary, found["tags"].width) == (("x", "y"), 3)
    assert found["empty"].vocabulary == ()
    written = engine.con.execute(
        table.select(*(as_feature(table, found[name]) for name in ("plan", "kids", "age", "tags")))
    )
    assert written.plan.tolist()[-1] == ""
    assert written.kids.tolist()[:2] == ["true", "false"]
    assert written.age.tolist()[:3] == [1.0, 2.0, 3.0]
    assert written.age[3:].isna().all()  # whoever reads it takes the mean of a model
    assert list(written.tags[2]) == []


def test_missing_numbers_are_counted(engine, monkeypatch):
    frame = pd.DataFrame({"age": [1.0, np.nan, np.inf, None], "year": pd.array([1, 2, None, 4], "Int64"), "full": 3})
    table = ibis.memtable(frame.rename(columns=inside))
    start = "numbers are missing, for which a model takes the mean: of 4 users"
    assert count_missing(engine, table, "users", [*frame]) == [f"{start}, 'age' in 3, 'year' in 1"]
    assert count_missing(engine, table, "users", ["full"]) == count_missing(engine, table, "users", []) == []
    monkeypatch.setattr(features, "MOST_NAMES", 1)
    assert count_missing(engine, table, "users", [*frame]) == [f"{start}, 'age' in 3, and 1 other"]


def test_dates_are_no_features():
    table = ibis.memtable({"joined": [datetime.date(2020, 1, 1)]})
    assert column_kind(table.joined.type()) is None

import hashlib

import ibis
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets.engines import _engine
from tfmtr.datasets.engines.duckdb import DuckDB


@pytest.fixture
def engine(tmp_path):
    return DuckDB(tmp_path / "spill", 10**9)


@pytest.fixture
def numbers(engine, tmp_path):
    frame = pd.DataFrame({"x": range(1_000), "text": [f"t{i % 7}" for i in range(1_000)]})
    return engine.store(ibis.memtable(frame), tmp_path / "numbers.parquet")


def test_write_gives_sorted_rows_and_the_same_bytes(engine, numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(_engine, "ROW_GROUP", 300)
    for name in ("a", "b"):
        engine.write(numbers.order_by(numbers.x.desc()), tmp_path / f"{name}.parquet")
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert file.read().column("x").to_pylist() == list(range(999, -1, -1))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [300, 300, 300, 100]
    digests = {hashlib.sha256((tmp_path / f"{name}.parquet").read_bytes()).hexdigest() for name in ("a", "b")}
    assert len(digests) == 1


def test_write_parts_cuts_where_told(engine, numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(_engine, "ROW_GROUP", 128)
    paths = [tmp_path / f"{i}/part.parquet" for i in range(3)]
    engine.write_parts(numbers.order_by("x"), [5, 600, 395], paths)
    found = [pq.ParquetFile(path).read().column("x").to_pylist() for path in paths]
    assert found == [list(range(5)), list(range(5, 605)), list(range(605, 1_000))]
    files = [pq.read_metadata(path) for path in paths]
    groups = [[file.row_group(i).num_rows for i in range(file.num_row_groups)] for file in files]
    assert groups == [[5], [128, 128, 128, 128, 88], [128, 128, 128, 11]]


def test_partition_has_every_row_once_and_every_bucket(engine, numbers, tmp_path):
    bucketed = numbers.mutate(bucket=ibis.ifelse(numbers.x < 900, 0, 2).cast("int64"))
    engine.partition(bucketed, tmp_path / "parts", 4)
    counts = [engine.execute(engine.read_buckets(tmp_path / "parts", [bucket]).count()) for bucket in range(4)]
    assert counts == [900, 0, 100, 0]
    both = engine.read_buckets(tmp_path / "parts", range(1, 3))
    assert engine.rows(both.group_by("bucket").aggregate(rows=both.count())) == [{"bucket": 2, "rows": 100}]


@pytest.mark.parametrize(("memory_limit", "early"), [(2 * 10**8, "95.3 MiB"), (4 * 10**9, "152.5 MiB")])
def test_half_of_the_memory_is_for_the_engine_and_less_for_sorts(tmp_path, memory_limit, early):
    engine = DuckDB(tmp_path / "spill", memory_limit)
    setting = "SELECT current_setting('memory_limit')"
    assert engine.con.raw_sql(setting).fetchone()[0] == {2 * 10**8: "95.3 MiB", 4 * 10**9: "1.8 GiB"}[memory_limit]
    engine.sort_early()
    assert engine.con.raw_sql(setting).fetchone()[0] == early

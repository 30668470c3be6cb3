import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets import stores
from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.stores import MatrixWriter, StoreWriter, gather, list_matrix
from tfmtr.datasets.vector_store import VectorStore


def test_gather_gives_zero_for_negative_rows():
    vectors = np.arange(6, dtype="float64").reshape(3, 2)
    found = gather(vectors, np.array([2, -1, 0]))
    np.testing.assert_array_equal(found, [[4, 5], [0, 0], [0, 1]])
    assert found.dtype == np.float32


def test_lists_become_a_matrix():
    np.testing.assert_array_equal(list_matrix(pa.array([[1.0, 2.0], [3.0, 4.0]])[1:], "x"), [[3, 4]])


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[1.0], [1.0, 2.0]], "Vector column 'x' must have lists of one length in every row. Received: lengths="),
        ([[1.0], None], "Vector column 'x' must have lists of one length"),
        ([[1.0], [np.nan]], "Vector column 'x' must hold finite numbers"),
        ([[np.inf], [1.0]], "Vector column 'x' must hold finite numbers"),
    ],
)
def test_bad_lists(lists, message):
    with pytest.raises(ValueError, match=message):
        list_matrix(pa.array(lists, pa.list_(pa.float64())), "x")


def test_writer_makes_a_store(tmp_path):
    ids = pa.table({"user": ["a", "b", "c"]})
    writer = StoreWriter(tmp_path / "store", 3, 2, ids.schema)
    writer.append(np.full((1, 2), value) for value in (1.0, 2.0))
    writer.append([np.full((1, 2), 3.0)])
    writer.append_ids(ids)
    writer.close()
    store = VectorStore(tmp_path / "store")
    store.check("user_vectors")
    np.testing.assert_array_equal(store.vectors, [[1, 1], [2, 2], [3, 3]])
    assert pq.read_table(store.ids).column("user").to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize("dtype", ["float16", [("age", "i1"), ("taste", "f4", 3)]])
def test_matrix_is_what_was_appended(tmp_path, dtype):
    rows = np.zeros(10, dtype)
    rows["age" if rows.dtype.names else ...] = np.arange(10)
    (tmp_path / "a.npy").write_bytes(b"an older file")
    writer = MatrixWriter(tmp_path / "a.npy", rows.shape, dtype)
    for block in (rows[:6], rows[6:6], rows[6:]):
        writer.append(block)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), rows)


def test_the_file_of_ids_does_not_depend_on_how_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "ROW_GROUP", 3)
    ids = pa.table({"user": [f"u{i}" for i in range(8)]})
    for name, size in (("whole", 8), ("pieces", 2)):
        writer = StoreWriter(tmp_path / name, 8, 1, ids.schema)
        for start in range(0, 8, size):
            writer.append_ids(ids.slice(start, size))
        writer.close()
    files = [tmp_path / name / "ids.parquet" for name in ("whole", "pieces")]
    metadata = pq.read_metadata(files[1])
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [3, 3, 2]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vectors.npy", lambda file: file.write_bytes(file.read_bytes()[:-4]), "whole file of one matrix.*vectors.npy"),
        ("vectors.npy", lambda file: file.write_bytes(b""), "whole file of one matrix.*vectors.npy"),
        ("vectors.npy", lambda file: file.write_bytes(b"no matrix"), "whole file of one matrix.*vectors.npy"),
        ("vectors.npy", lambda file: np.save(file, np.array([["a"]], object)), "whole file of one matrix.*vectors.npy"),
        ("vectors.npy", lambda file: np.savez(file.open("wb"), np.ones((3, 2))), "whole file of one matrix.*vectors"),
        ("vectors.npy", lambda file: np.save(file, np.ones(3)), r"save it as float32.*shape=\(3,\).*vectors.npy"),
        ("vectors.npy", lambda file: np.save(file, np.ones((3, 2), int)), "save it as float32.*int64.*vectors.npy"),
        ("vectors.npy", lambda file: np.save(file, np.ones((4, 2))), "from the same rows.*3 ids and 4 vectors"),
        ("ids.parquet", lambda file: file.write_bytes(file.read_bytes()[:-4]), "complete Parquet files.*ids.parquet"),
        ("ids.parquet", lambda file: file.write_bytes(b""), "complete Parquet files.*ids.parquet"),
        (
            "ids.parquet",
            lambda file: pq.write_table(pa.table({"File_row_number": ["a", "b", "c"]}), file),
            "a column with another name.*'File_row_number' in .*ids.parquet",
        ),
    ],
)
def test_bad_files_of_a_store_are_named(tmp_path, name, change, message):
    np.save(tmp_path / "vectors.npy", np.ones((3, 2), "float32"))
    pq.write_table(pa.table({"user": ["a", "b", "c"]}), tmp_path / "ids.parquet")
    change(tmp_path / name)
    with pytest.raises(ValueError, match=f"`user_vectors` must .*{message}"):
        stores.open_store(DuckDB(), tmp_path, "user_vectors", "user")

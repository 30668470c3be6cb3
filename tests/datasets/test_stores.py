import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets import stores
from tfmtr.datasets.stores import MatrixWriter, StoreWriter, gather, list_matrix
from tfmtr.datasets.vectors import VectorStore


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

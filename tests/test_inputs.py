import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtr import inputs
from tfmtr.datasets.dataset import Dataset
from tfmtr.inputs.store_rows import CACHE_LINE
from tfmtr.schema import Feature, Scenario, Schema, Task


@pytest.fixture
def numbers(tmp_path):
    """Three files of 100 rows in row groups of 30."""
    for part in range(3):
        table = pa.table({"n": np.arange(100 * part, 100 * part + 100)})
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=30)
    return sorted(tmp_path.glob("*.parquet"))


def read(files, **options):
    return [table["n"].to_pylist() for table in inputs.read_tables(files, **options)]


def test_reads_every_row_once_in_batches(numbers):
    batches = read(numbers, rows=64)
    assert [len(batch) for batch in batches] == [64, 64, 64, 64, 44]
    assert list(itertools.chain(*batches)) == list(range(300))


def test_a_small_pool_still_reads_every_row_once_and_mixes_files(numbers):
    batches = read(numbers, rows=16, pool=4, rng=np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [16] * 18 + [12]
    assert sorted(itertools.chain(*batches)) == list(range(300))
    assert len({n // 100 for n in batches[0]}) > 1


def test_the_order_is_a_function_of_the_generator(numbers):
    orders = [read(numbers, rows=64, rng=np.random.default_rng([seed, epoch])) for seed, epoch in [(0, 0), (0, 0)]]
    assert orders[0] == orders[1]
    assert read(numbers, rows=64, rng=np.random.default_rng([0, 1])) != orders[0]
    assert read(numbers, rows=64, rng=np.random.default_rng([1, 0])) != orders[0]


def test_epochs_follow_one_another_and_can_be_repeated(tiny):
    data = Dataset(tiny)
    files = data.examples("train")

    def epochs(count, **options):
        dataset = inputs.batches(data, files, batch_size=500, **options)
        return [np.concatenate([x["title_vector"][:, 0] for x, _ in dataset]) for _ in range(count)]

    first, second = epochs(2, seed=3)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(epochs(1, seed=3, first_epoch=1)[0], second)
    np.testing.assert_array_equal(np.sort(first), np.sort(second))


def test_batches_of_arrays_have_every_row_once_in_a_new_order_each_epoch():
    x, y = {"n": np.arange(10)}, {"label": np.arange(10, dtype="float32") / 2}

    def epochs(**options):
        dataset = inputs.in_memory(x, y, batch_size=4, **options)
        return [[(a["n"].numpy().tolist(), b["label"].numpy().tolist()) for a, b in dataset] for _ in range(2)]

    first, again = epochs()
    assert first == again == [(list(rows), [n / 2 for n in rows]) for rows in ([*range(4)], [*range(4, 8)], [8, 9])]
    first, second = epochs(seed=1)
    assert epochs(seed=1) == [first, second]
    assert first != second
    for epoch in (first, second):
        assert sorted(n for rows, _ in epoch for n in rows) == list(range(10))
        assert all(label == n / 2 for rows, labels in epoch for n, label in zip(rows, labels, strict=True))


def test_memory_is_used_again_once_nobody_refers_to_it():
    empty = inputs.Recycled()
    held = [empty((4, 8)) for _ in range(3)]
    for i, array in enumerate(held):
        array[:] = i
        assert array.ctypes.data % CACHE_LINE == 0
    again = {id(array.base) for array in held}
    assert [array.min() for array in held] == [array.max() for array in held] == [0, 1, 2]
    view = held[1][0]
    del held, array
    new = [empty((4, 8)) for _ in range(3)]
    assert (view == 1).all()  # what is left of an array keeps its memory
    assert len(empty.memory) == 4
    assert len(again & {id(array.base) for array in new}) == 2
    assert empty((2, 8)).shape == (2, 8)


def test_batches_that_are_kept_are_not_overwritten(tiny):
    data = Dataset(tiny)
    options = {"batch_size": 64, "seed": 3}
    kept = [x["title_vector"] for x, _ in inputs.batches(data, data.examples("train"), **options)]
    once = (x["title_vector"].numpy().copy() for x, _ in inputs.batches(data, data.examples("train"), **options))
    for one, other in zip(kept, once, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_iterator_ends_without_waiting_for_its_tuning(tiny):
    data = Dataset(tiny)
    for dataset in (
        inputs.batches(data, data.examples("train")),
        inputs.in_memory({"n": np.ones(2)}, {"label": np.ones(2)}, batch_size=1),
    ):
        assert dataset.options().autotune.enabled is False


SCHEMA = Schema(
    [
        Feature("country", "user", "id", ["DE", "FR"]),
        Feature("age", "user", "number", mean=40.0, std=10.0),
        Feature("email", "user", "string", width=7),
        Feature("history", "user", "sequence", ["a", "b"], width=2),
        Feature("genres", "title", "set", ["a", "b"], width=2),
        Feature("title_vector", "title", "vector", width=2),
    ],
    [Task("click"), Task("watch", "seconds", kind="regression")],
    Scenario(["country", "tab"], {("DE", "home"): "x", ("FR", "home"): "y", ("FR", "search"): "x"}),
)
TABLE = pa.table(
    {
        "country": ["FR", "??", None, "DE"],
        "age": [50.0, None, 40.0, 20.0],
        "email": ["a@b", "c", None, "d"],
        "history": [["b", "a", "b"], [], None, ["zz"]],
        "genres": [["b", "a", "b"], [], None, ["zz"]],
        "tab": ["search", "home", None, "home"],
        "title_row": [1, 0, None, -1],
        "click": pa.array([1, 0, None, 1], pa.int8()),
        "seconds": [1.5, None, None, 0.0],
    }
)
STORES = {"title": np.asarray([[1.0, 2.0], [3.0, 4.0]])}


def test_encodes_known_unknown_and_missing_values():
    x = inputs.model_inputs(TABLE, SCHEMA, STORES)
    np.testing.assert_array_equal(x["country"], [2, 0, 0, 1])
    np.testing.assert_allclose(x["age"], [1.0, 0.0, 0.0, -2.0])
    np.testing.assert_array_equal(x["history"], [[2, 3], [0, 0], [0, 0], [1, 0]])  # the newest two
    np.testing.assert_array_equal(x["genres"], [[3, 2], [0, 0], [0, 0], [1, 0]])  # the first two
    np.testing.assert_array_equal(x["title_vector"], [[3, 4], [1, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(x["scenario"], [1, 0, 0, 1])
    assert {name: array.dtype.name for name, array in x.items()} == {
        "country": "int32", "age": "float32", "email": "int32", "history": "int32", "genres": "int32",
        "title_vector": "float32", "scenario": "int32",
    }  # fmt: skip


def test_sliced_tables_keep_their_lists():
    x = inputs.model_inputs(TABLE.slice(3), SCHEMA, STORES)
    np.testing.assert_array_equal(x["genres"], [[1, 0]])


def test_a_missing_list_is_empty_whatever_lies_under_it():
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 3]), pa.array(["b", "a", "a"]), mask=pa.array([True, False]))
    table = TABLE.slice(0, 2).set_column(TABLE.column_names.index("genres"), "genres", lists)
    np.testing.assert_array_equal(inputs.model_inputs(table, SCHEMA, STORES)["genres"], [[0, 0], [2, 0]])


def test_labels_that_were_not_observed_are_nan():
    y = inputs.labels(TABLE, SCHEMA)
    np.testing.assert_array_equal(y["click"], [1, 0, np.nan, 1])
    np.testing.assert_array_equal(y["seconds"], [1.5, np.nan, np.nan, 0])


def test_no_files_is_an_error_that_says_what_to_do(tiny):
    with pytest.raises(ValueError, match=r"at least one row .*run `tfmtr prepare`.* Received: 0 files"):
        inputs.batches(Dataset(tiny), [])


def test_a_first_file_without_rows_is_read_over(tiny, tmp_path):
    data = Dataset(tiny)
    (file,) = data.examples("validation")
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(file, partitioning=None).slice(0, 0), empty)
    assert len(list(inputs.batches(data, [empty, file], batch_size=500))) == 2

"""`tf.data` batches: of example files, a function of (seed, epoch), and of arrays in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tfmtr.inputs.encoder import Encoder, labels, row_weights
from tfmtr.inputs.parquet_rows import check_rows, num_rows, num_steps, read_tables
from tfmtr.inputs.store_rows import Recycled, open_stores, stored_vectors
from tfmtr.kinds import KINDS

if TYPE_CHECKING:
    import tensorflow as tf

    from tfmtr.datasets.dataset import Dataset
    from tfmtr.schema import Schema

WEIGHT = "row weight"  # beside features and labels; no column of the examples can be called so


def batches(
    prepared: Dataset,
    files: Sequence[Path],
    *,
    batch_size: int = 8192,
    seed: int | Sequence[int] | None = None,
    first_epoch: int = 0,
    schema: Schema | None = None,
    context: tf.distribute.InputContext | None = None,
    weights: str | None = None,
) -> tf.data.Dataset:
    """A `tf.data.Dataset` of `(features, labels)` batches over example files, with `weights` of `(.., .., weights)`.

    Each time the dataset is iterated, the next epoch begins: epoch e of seed s has the same order
    wherever and whenever it is read, so an interrupted run can repeat its epoch.

    Args:
        prepared: The `Dataset` directory the files are from.
        files: Example files, as `prepared.examples(...)` lists them.
        batch_size: Positive integer.
        seed: Integer, or several, to shuffle with, or `None` for the order on disk.
        first_epoch: Epoch of the first iteration.
        schema: A schema to use in place of the directory's own, with other territory groups for example.
        context: A `tf.distribute.InputContext`: `batch_size` is that of all replicas, and the batches are those of one
            worker's replicas, in turn. A worker reads its own part of the rows, one after the other on disk, in
            `num_steps` batches for each of its replicas, which differ by one row at most; so workers never wait for one
            that has more.
        weights: Name of a training-only number by which rows count; a row without one counts as 1.

    Returns:
        Dataset of `({name: tensor}, {label column: tensor of shape (batch,)})`, with `weights` a third tensor of shape
        `(batch,)`.

    Raises:
        ValueError: If there is no file, or a weight is negative.
    """
    import tensorflow as tf

    schema = schema or prepared.schema
    check_rows(prepared, files)
    stores = open_stores(prepared)
    epoch = iter(range(first_epoch, 1 << 31))
    steps, rows, span = num_steps(files, batch_size), batch_size, None
    if context is not None:
        total, workers = num_rows(files), context.num_input_pipelines
        if total < workers:
            raise ValueError(
                f"`files` must have a row for each worker; train with fewer. Received: {total} rows, {workers} workers"
            )
        span = [total * i // workers for i in (context.input_pipeline_id, context.input_pipeline_id + 1)]
        steps *= context.num_replicas_in_sync // workers
        rows = np.diff([(span[1] - span[0]) * i // steps for i in range(steps + 1)]).tolist()

    columns = [task.column for task in schema.tasks]
    columns += [f"{f.role}_row" if f.is_stored else f.name for f in schema.features]
    columns += [column for column in schema.scenario.columns if column not in columns]
    text = [f.name for f in schema.features if (k := KINDS[f.kind]).is_text and not k.is_wide] + list(
        schema.scenario.columns
    )
    encode = Encoder(schema)
    label_names = {task.column for task in schema.tasks}
    store_rows = sorted({f"{f.role}_row" for f in schema.features if f.is_stored})

    def encoded(table: pa.Table) -> pa.Table:
        """Numbers for a row group's text, so that what follows, for each row, is quick."""
        arrays = encode(table) | labels(table, schema)
        if weights is not None:
            arrays[WEIGHT] = row_weights(table, weights)
        arrays = {name: _as_column(array) for name, array in arrays.items()}
        return pa.table(arrays | {name: table[name] for name in store_rows})

    def split(table: pa.Table, empty: Recycled | None = None) -> tuple[dict[str, np.ndarray] | np.ndarray, ...]:
        x = {name: _as_array(table[name].combine_chunks()) for name in table.column_names if name not in store_rows}
        y = {name: x.pop(name) for name in label_names}
        weight = (x.pop(WEIGHT),) if weights is not None else ()
        return x | stored_vectors(table, schema, stores, empty=empty), y, *weight

    options = {"columns": columns, "dictionaries": text, "convert": encoded}

    def read() -> Iterator[tuple[dict[str, np.ndarray] | np.ndarray, ...]]:
        rng = None if seed is None else np.random.default_rng([*np.atleast_1d(seed), next(epoch)])
        empty = Recycled()  # of this epoch only
        for table in read_tables(files, rows=rows, rng=rng, span=span, **options):
            yield split(table, empty)

    def spec(array: np.ndarray) -> tf.TensorSpec:
        return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    signature = tf.nest.map_structure(spec, split(next(read_tables(files, rows=1, **options))))
    # TensorFlow never forgets a generator's function, which would keep vocabularies and files for good. So it is one
    # that forgets them with the dataset, which its iterators and descendants keep alive.
    source = {"read": read}
    dataset = tf.data.Dataset.from_generator(lambda: source["read"](), output_signature=signature)
    weakref.finalize(dataset, source.clear).atexit = False
    return without_autotune(dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4))


def in_memory(
    x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray], *, batch_size: int, seed: int | None = None
) -> tf.data.Dataset:
    """A `tf.data.Dataset` of `(features, labels)` batches of arrays that are in memory.

    Args:
        x: `{name: array}` of features.
        y: `{label column: array}`.
        batch_size: Positive integer; the last batch of an epoch is smaller.
        seed: Integer to shuffle with, anew in each epoch, or `None` for the order of the arrays.

    Returns:
        Dataset of `({name: tensor}, {label column: tensor of shape (batch,)})`.
    """
    import tensorflow as tf

    arrays = tf.nest.map_structure(tf.convert_to_tensor, (x, y))
    number = len(next(iter(y.values())))
    rows = tf.data.Dataset.range(number)
    rows = rows if seed is None else rows.shuffle(number, seed=seed)
    batches = rows.batch(batch_size).map(lambda chosen: tf.nest.map_structure(lambda a: tf.gather(a, chosen), arrays))
    return without_autotune(batches.prefetch(2))


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """A `tf.data.Dataset` that ends at once.

    TensorFlow 2.20 tunes datasets in a thread that sleeps for 10 ms, 20 ms, 40 ms and so on; often the end of an
    iterator, and so that of each `fit` and `predict`, waits until it wakes. An epoch of 6 s then takes 10.2 s.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _as_column(array: np.ndarray) -> pa.Array:
    """An array as a column of a table; one of two dimensions as lists."""
    flat = pa.array(array.reshape(-1))
    return flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _as_array(column: pa.Array) -> np.ndarray:
    """The array of a column that `_as_column` made."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy().reshape(-1, column.type.list_size)

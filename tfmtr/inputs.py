"""Examples (Parquet) to tf.data batches: streamed, shuffled as a function of (seed, epoch), prefetched."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.encoders.raw import SEPARATOR


def read_tables(files, *, rows, columns=None, rng=None, pool=16):
    """Yields Arrow tables of `rows` rows (the last one may be shorter), never holding more than a pool.

    Row groups are read in order, or, with `rng`, in random order into a pool of `pool * rows` rows that
    is permuted as a whole. Neighbours on disk so end up in different batches, and the order depends on
    nothing but `rng`.

    Args:
        files: Parquet files of one schema.
        rows: Positive integer.
        columns: Columns to read; all by default.
        rng: `numpy.random.Generator` that decides the order.
        pool: Batches in a pool.
    """
    groups = [(file, group) for file in files for group in range(pq.read_metadata(file).num_row_groups)]
    if rng is not None:
        rng.shuffle(groups)
    capacity = rows if rng is None else pool * rows
    pending, held = [], 0
    for position, (file, group) in enumerate(groups):
        table = pq.ParquetFile(file).read_row_group(group, columns=columns)
        pending.append(table)
        held += len(table)
        last = position == len(groups) - 1
        if held < capacity and not last:
            continue
        table = pa.concat_tables(pending).combine_chunks()
        if rng is not None:
            table = table.take(rng.permutation(len(table)))
        stop = len(table) if last else len(table) - len(table) % rows
        for start in range(0, stop, rows):
            yield table.slice(start, min(rows, stop - start))
        held = len(table) - stop
        pending = [table.take(np.arange(stop, len(table)))] if held else []  # a slice would keep the whole pool
        del table
        pa.default_memory_pool().release_unused()


def model_inputs(table, schema, stores):
    """Encoded features of an Arrow table, with the names, shapes and dtypes of `encode_inputs`.

    Args:
        table: Rows of the examples (or of the users or titles table).
        schema: The `Schema`; features whose role has no column in the table are left out.
        stores: `{role: VectorStore.vectors}`; row -1 of a store is the zero vector.

    Returns:
        `{name: array}` of int32 or float32.
    """
    arrays = {}
    for feature in schema.features:
        if feature.kind == "vector":
            if f"{feature.role}_row" in table.column_names:
                arrays[feature.name] = take_vectors(stores[feature.role], table[f"{feature.role}_row"])
            continue
        if feature.name not in table.column_names:
            continue
        column = table[feature.name].combine_chunks()
        if feature.kind == "number":
            values = pc.fill_null(column.cast(pa.float64()), feature.mean).to_numpy(zero_copy_only=False)
            arrays[feature.name] = ((values - feature.mean) / feature.std).astype("float32")
        elif feature.kind == "id":
            arrays[feature.name] = _index(column, feature.vocabulary) + 1
        elif feature.kind == "string":
            arrays[feature.name] = _hash(column, feature.width)
        else:
            arrays[feature.name] = _padded(column, feature)
    if set(schema.scenario.columns) <= set(table.column_names):
        arrays["scenario"] = scenario_index(table, schema.scenario)
    return arrays


def scenario_index(table, scenario):
    """Scenario of every row, int32 of shape `(rows,)`: 0 where no group lists it."""
    columns = [pc.fill_null(table[column].cast(pa.string()), "") for column in scenario.columns]
    key = columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, SEPARATOR)
    groups = np.asarray([0, *(scenario.names.index(group) + 1 for group in scenario.groups.values())], "int32")
    return groups[_index(key, [SEPARATOR.join(values) for values in scenario.groups]) + 1]


def labels(table, schema):
    """`{label column: float32 array of shape (rows,)}` with NaN where a label was not observed."""
    return {
        task.column: pc.fill_null(table[task.column].cast(pa.float32()), float("nan")).to_numpy(zero_copy_only=False)
        for task in schema.tasks
    }


def take_vectors(vectors, rows):
    """Rows of a memory-mapped matrix as float32; row -1 or null is the zero vector."""
    rows = np.asarray(pc.fill_null(rows, -1))
    taken = np.asarray(vectors[np.maximum(rows, 0)], "float32")
    taken[rows < 0] = 0.0
    return taken


def _index(column, vocabulary):
    """Position in the vocabulary, -1 where unknown, int32."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    found = pc.index_in(column.cast(pa.string()), value_set=pa.array(vocabulary, pa.string()), skip_nulls=True)
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype("int32")


def _hash(column, buckets):
    import keras

    values = pc.fill_null(column.cast(pa.string()), "").to_numpy(zero_copy_only=False)
    return np.asarray(keras.layers.Hashing(num_bins=buckets)(values), "int32")


def _padded(column, feature):
    """Indices of a list column, shape `(rows, width)`: 0 pads, 1 is unknown.

    Of longer lists a set keeps the first values, a sequence the newest.
    """
    offsets = column.offsets.to_numpy()
    lengths = np.where(np.asarray(column.is_valid()), np.diff(offsets), 0)
    kept = np.minimum(lengths, feature.width)
    start = offsets[:-1] + (lengths - kept if feature.kind == "sequence" else 0)
    values = _index(column.values, feature.vocabulary) + 2
    position = np.arange(feature.width)
    source = np.minimum(start[:, None] + position, max(len(values) - 1, 0))
    inside = position < kept[:, None]
    return np.where(inside, values[source] if len(values) else 0, 0).astype("int32")


def batches(prepared, files, *, batch_size=8192, seed=None, first_epoch=0, schema=None):
    """A `tf.data.Dataset` of `(features, labels)` batches over example files.

    Each time the dataset is iterated, the next epoch begins: epoch e of seed s has the same order
    wherever and whenever it is read, so an interrupted run can repeat its epoch.

    Args:
        prepared: The `Prepared` directory the files are from.
        files: Example files, as `prepared.examples(...)` lists them.
        batch_size: Positive integer.
        seed: Integer, or several, to shuffle with, or `None` for the order on disk.
        first_epoch: Epoch of the first iteration.
        schema: A schema to use in place of the directory's own, with other territory groups for example.

    Returns:
        Dataset of `({name: tensor}, {label column: tensor of shape (batch,)})`.

    Raises:
        ValueError: If there is no file.
    """
    import tensorflow as tf

    schema = schema or prepared.schema
    if not files:
        raise ValueError(
            f"`files` must name at least one file of examples in {prepared.path}; run `tfmtr prepare` with a longer "
            "log or other windows. Received: files=[]"
        )
    stores = open_stores(prepared)
    epoch = iter(range(first_epoch, 1 << 31))

    columns = [task.column for task in schema.tasks]
    columns += [f"{f.role}_row" if f.kind == "vector" else f.name for f in schema.features]
    columns += [column for column in schema.scenario.columns if column not in columns]

    def read():
        rng = None if seed is None else np.random.default_rng([*np.atleast_1d(seed), next(epoch)])
        for table in read_tables(files, rows=batch_size, columns=columns, rng=rng):
            yield model_inputs(table, schema, stores), labels(table, schema)

    def spec(array):
        return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    sample = next(read_tables(files[:1], rows=1))
    signature = tf.nest.map_structure(spec, (model_inputs(sample, schema, stores), labels(sample, schema)))
    steps = -(-sum(pq.read_metadata(file).num_rows for file in files) // batch_size)
    dataset = tf.data.Dataset.from_generator(read, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4)


def open_stores(prepared):
    """`{role: memory-mapped matrix}` of the vector features' stores."""
    return {f.role: prepared.vectors(f.role).vectors for f in prepared.schema.features if f.kind == "vector"}

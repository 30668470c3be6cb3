"""Examples (Parquet) to tf.data batches: streamed, shuffled as a function of (seed, epoch), prefetched."""

from __future__ import annotations

import contextlib
import itertools
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.encoders.raw import SEPARATOR
from tfmtr.kinds import KINDS, by_value, index

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

    from tfmtr.datasets.dataset import Dataset
    from tfmtr.schema import Feature, Schema

CACHE_LINE = 64
WEIGHT = "row weight"  # beside features and labels; no column of the examples can be called so
FREE = 3  # references to memory that nobody uses: of the list, of the loop over it, and of the question


def read_tables(
    files: Sequence[Path],
    *,
    rows: int | Iterable[int],
    columns: Sequence[str] | None = None,
    rng: np.random.Generator | None = None,
    pool: int = 16,
    span: Sequence[int] | None = None,
    dictionaries: Sequence[str] | None = None,
    convert: Callable[[pa.Table], pa.Table] | None = None,
) -> Iterator[pa.Table]:
    """Yields Arrow tables of `rows` rows (the last one may be shorter), never holding more than a pool.

    Row groups are read in order, or, with `rng`, in random order into a pool of `pool * rows` rows that
    is permuted as a whole. Neighbours on disk so end up in different batches, and the order depends on
    nothing but `rng`.

    Args:
        files: Parquet files of one schema.
        rows: Positive integer; or the number of rows of each table, which add up to all rows.
        columns: Columns to read; all by default.
        rng: `numpy.random.Generator` that decides the order.
        pool: Batches in a pool.
        span: `(first, stop)`: rows to read, as the files have them one after the other; all by default.
        dictionaries: Text columns to read as dictionaries.
        convert: Function of a row group's table, of which the rows of its result are read.
    """
    pieces = list(_pieces(files, *(span or (0, sys.maxsize))))
    if rng is not None:
        rng.shuffle(pieces)
    sizes = itertools.repeat(rows) if isinstance(rows, int) else iter(rows)
    size = next(sizes, 0)
    capacity = size if rng is None else pool * size
    pending, held = [], 0
    for position, (file, group, start, stop) in enumerate(pieces):
        source = pq.ParquetFile(file, read_dictionary=dictionaries)
        table = source.read_row_group(group, columns=columns).slice(start, stop - start)
        pending.append(convert(table) if convert else table)
        held += len(table)
        last = position == len(pieces) - 1
        if held < capacity and not last:
            continue
        table = pa.concat_tables(pending).combine_chunks()
        if rng is not None:
            table = table.take(rng.permutation(len(table)))
        done = 0
        while done + size <= len(table) or (last and done < len(table)):
            yield table.slice(done, min(size, len(table) - done))
            done += size
            size = next(sizes, len(table) + 1)
        held = len(table) - done
        pending = [table.take(np.arange(done, len(table)))] if held > 0 else []  # a slice would keep the whole pool
        del table
        pa.default_memory_pool().release_unused()


def _pieces(files: Iterable[Path], first: int, stop: int) -> Iterator[tuple[Path, int, int, int]]:
    """Row groups `(file, group, start, stop)`, cut to the rows from `first` to `stop` of all."""
    before = 0
    for file in files:
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            start, end = max(first - before, 0), min(stop - before, rows)
            if start < end:
                yield file, group, start, end
            before += rows


class Encoder:
    """Encodes the features of tables that are no vectors, with the names, shapes and dtypes of `encode_inputs`.

    Vocabularies are made into what looks values up once; encode tables of many rows with one encoder. Text columns are
    faster as dictionaries: a value is then looked up once, however many rows have it.

    Args:
        schema: The `Schema`.

    Call arguments:
        table: Arrow table of examples (or of users or titles); features that have no column in it are left out.

    Returns:
        `{name: array}` of int32 or float32.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.vocabularies = {f.name: pa.array(f.vocabulary, pa.string()) for f in schema.features if f.vocabulary}
        keys = [SEPARATOR.join(values) for values in schema.scenario.groups]
        self.scenario_keys = pa.array(keys, pa.string())
        numbers = [schema.scenario.names.index(group) + 1 for group in schema.scenario.groups.values()]
        self.groups = np.asarray([0, *numbers], "int32")

    def __call__(self, table: pa.Table) -> dict[str, np.ndarray]:
        """Encodes a table."""
        there = [f for f in self.schema.features if not f.is_stored and f.name in table.column_names]
        none, arrays = pa.array([], pa.string()), {}
        for feature in there:
            with _naming(feature.name):
                vocabulary = self.vocabularies.get(feature.name, none)
                column = table[feature.name].combine_chunks()
                arrays[feature.name] = KINDS[feature.kind].encode(column, feature, vocabulary)  # pyright: ignore[reportOptionalCall]
        if set(self.schema.scenario.columns) <= set(table.column_names):
            arrays["scenario"] = self._scenario(table)
        return arrays

    def _scenario(self, table: pa.Table) -> np.ndarray:
        """Scenario of every row: 0 where no group lists it."""
        columns = [table[column].combine_chunks() for column in self.schema.scenario.columns]
        if len(columns) == 1:
            found = by_value(columns[0], lambda values: index(pc.fill_null(values, ""), self.scenario_keys))
        else:
            columns = [pc.fill_null(column.cast(pa.string()), "") for column in columns]
            found = index(pc.binary_join_element_wise(*columns, SEPARATOR), self.scenario_keys)  # pyright: ignore[reportAttributeAccessIssue]
        return self.groups[found + 1]


def model_inputs(table: pa.Table, schema: Schema, stores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Encoded features of an Arrow table, vectors among them, as `encode_inputs` wants them.

    Args:
        table: Rows of the examples (or of the users or titles table).
        schema: The `Schema`; features whose role has no column in the table are left out.
        stores: `{role: VectorStore.vectors}`; row -1 of a store is the zero vector.

    Returns:
        `{name: array}` of int32 or float32.
    """
    return Encoder(schema)(table) | _vectors(table, schema, stores)


def _vectors(
    table: pa.Table, schema: Schema, stores: Mapping[str, np.ndarray], **options: Recycled | None
) -> dict[str, np.ndarray]:
    there = [f for f in schema.features if f.is_stored and f"{f.role}_row" in table.column_names]
    return {f.name: take_vectors(stores[f.role], table[f"{f.role}_row"], **options) for f in there}


def encode_frame(frame: pd.DataFrame, schema: Schema) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features and labels of a pandas DataFrame, as `fit` and `predict` of a joint model take them.

    Args:
        frame: Columns as the log has them: text for ids, numbers, lists for sets, sequences and vectors; the scenario's
            columns; and the label columns that there are.
        schema: The `Schema`.

    Returns:
        `({name: array}, {label column: float32 array with NaN where it is null})`.

    Raises:
        ValueError: If a feature or a column of the scenario is missing, a vector has another width, or a value is not
            of its feature's kind or not finite.
    """
    lacking = sorted({*(f.name for f in schema.features), *schema.scenario.columns} - set(frame.columns))
    training = {feature.name for feature in schema.by_role("training")}
    if lacking := [name for name in lacking if name not in training]:
        raise ValueError(
            f"`frame` must have a column for every feature and for the scenario. Received: none for {lacking}"
        )
    if not len(frame):
        raise ValueError("`frame` must have a row. Received: none")
    if twice := sorted({str(name) for name in frame.columns[frame.columns.duplicated()]}):
        raise ValueError(f"`frame` must have each column once. Received more than once: {twice}")
    vectors = {f.name: _matrix(frame[f.name], f) for f in schema.features if f.is_stored}  # pyright: ignore[reportArgumentType]
    tasks = [task for task in schema.tasks if task.column in frame.columns]
    known = {f.name for f in schema.features} | {task.column for task in tasks} | set(schema.scenario.columns)
    columns = {}
    for name in [name for name in frame.columns if name in known - set(vectors)]:
        with _naming(name):
            columns[name] = pa.array(frame[name], from_pandas=True)
    table = pa.table(columns)
    encoded = Encoder(schema)(table) | vectors
    for name, array in encoded.items():
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise ValueError(f"`{name}` must be finite or null. Received: NaN or infinity, as float32 of its scale")
    return encoded, labels(table, schema.replace(tasks=tasks)) if tasks else {}


def _matrix(column: pd.Series, feature: Feature) -> np.ndarray:
    """A column of lists as float32 of shape `(rows, width)`."""
    try:
        matrix = np.stack(column.tolist()).astype("float32")
    except (TypeError, ValueError) as error:  # null, or rows of different lengths
        raise ValueError(f"`{feature.name}` must have {feature.width} numbers in each row. Received: {error}") from None
    if matrix.shape[1:] != (feature.width,):
        raise ValueError(f"`{feature.name}` must have {feature.width} numbers in each row. Received: {matrix.shape}")
    return matrix


@contextlib.contextmanager
def _naming(column: str) -> Iterator[None]:
    """Turns what Arrow says of a column's values into a `ValueError` that names the column."""
    try:
        yield
    except pa.ArrowException as error:
        raise ValueError(f"`{column}` must have values of one kind, that of the schema. Received: {error}") from None


def as_arrays(x: Mapping[str, Any], y: Any, schema: Schema) -> tuple[Mapping[str, Any], dict[str, np.ndarray]]:
    """Encoded features as they are, and labels as float32 arrays, when a joint model can be fitted from them.

    Args:
        x: `{name: array}` as `encode_frame` makes it.
        y: `{label column: array of shape (rows,)}`, or a DataFrame with these columns.
        schema: The model's `Schema`.

    Returns:
        `(x, y)`.

    Raises:
        ValueError: If a feature or a label is missing, a feature is not encoded, a scenario is none of the schema's
            groups, a value is none of its vocabulary, there is no row, or not one of each for each of the others, or a
            label is not what its task can be.
    """
    names = [*(feature.name for feature in schema.features), "scenario"]
    x = {name: np.asarray(value) if isinstance(value, list | tuple) else value for name, value in x.items()}
    _check_encoded({name: np.asarray(x[name]).dtype.kind if name in x else "missing" for name in names})
    y, scenario = as_labels(y, schema), np.asarray(x["scenario"])
    if not len(scenario):
        raise ValueError("`x` must have a row. Received: none")
    given = {**{name: x[name] for name in names}, **{f"label {name}": y[name] for name in y}}
    if bad := {name: len(value) for name, value in given.items() if len(value) != len(scenario)}:
        raise ValueError(
            f"`x` and `y` must have one row for each of the {len(scenario)} of `scenario`. Received: {bad}"
        )
    for feature in schema.features:
        rows = KINDS[feature.kind].rows
        values = np.asarray(x[feature.name])
        if rows is not None and values.size and not 0 <= values.min() <= values.max() < rows(feature):
            raise ValueError(
                f"`{feature.name}` must have places in its vocabulary, from 0 to {rows(feature) - 1}, as "
                f"`tfmtr.inputs.encode_frame` makes them. Received: {values.min()} to {values.max()}"
            )
    if not 0 <= scenario.min() <= scenario.max() <= schema.scenario.num_groups:
        raise ValueError(
            f"`scenario` must be a group's number, from 0 to {schema.scenario.num_groups}; encode with the model's "
            f"schema, for a recipe with `groups` that is `recipe.adapt(schema)`. Received: {scenario.min()} to "
            f"{scenario.max()}"
        )
    return x, y


def _check_encoded(kinds: Mapping[str, str]) -> None:
    """Raises a `ValueError` unless features are there and are numbers, by the letters of their dtypes' kinds."""
    if bad := sorted(name for name, kind in kinds.items() if kind not in "biuf"):
        raise ValueError(
            "`x` must have encoded features, {name: array of numbers}, as `tfmtr.inputs.encode_frame` makes them; a "
            f"DataFrame may be given as it is. Received: {bad} missing or not encoded"
        )


def _name(value: Any) -> str:
    return "dict" if isinstance(value, Mapping) else type(value).__name__


def as_batches(batches: tf.data.Dataset, schema: Schema) -> tf.data.Dataset:
    """Batches `(x, y)` or `(x, y, weights)`, of which a joint model can be fitted, with labels as float32.

    Args:
        batches: The dataset; its features are encoded as `encode_frame` does it.
        schema: The model's `Schema`.

    Raises:
        ValueError: If the items are no such batches, or a feature or a label is missing or no number.
    """
    import tensorflow as tf

    parts: Any = batches.element_spec
    if not isinstance(parts, tuple) or len(parts) not in (2, 3) or not isinstance(parts[0], Mapping):
        items = f"{len(parts)} item{'s' * (len(parts) != 1)}" if isinstance(parts, tuple) else f"a {_name(parts)}"
        raise ValueError(
            "A dataset must have batches of (x, y) or (x, y, weights), where x and y are dictionaries by name. "
            f"Received: {items}"
        )
    x, y = parts[:2]
    names = [*(feature.name for feature in schema.features), "scenario"]
    _check_encoded({name: np.dtype(x[name].dtype.as_numpy_dtype).kind if name in x else "missing" for name in names})
    if bad := [name for name in names if x[name].shape.rank == 0]:
        raise ValueError(f"A dataset must have batches; `dataset.batch` makes them. Received: single rows of {bad}")
    columns = [task.column for task in schema.tasks]
    if not isinstance(y, Mapping) or not set(columns) <= set(y):
        raise ValueError(
            f"`y` must have the labels {columns} by name, {{column: array of shape (rows,)}}. Received: "
            f"{sorted(y) if isinstance(y, Mapping) else f'a {_name(y)}'}"
        )
    for name in columns:
        if np.dtype(y[name].dtype.as_numpy_dtype).kind not in "biuf":
            raise ValueError(f"`{name}` must be a label, numbers or null. Received: {y[name].dtype.name}")
    if all(y[name].dtype == tf.float32 for name in columns):
        return batches

    def cast(x: Any, y: Mapping[str, tf.Tensor], *weights: Any) -> tuple[Any, ...]:
        return x, {**y, **{name: tf.cast(y[name], tf.float32) for name in columns}}, *weights

    return batches.map(cast)


def as_labels(y: Any, schema: Schema, index: pd.Index | None = None) -> dict[str, np.ndarray]:
    """`{label column: float32 array}` with NaN where a label was not observed, of a dictionary or a DataFrame.

    Args:
        y: `{label column: array of shape (rows,)}`, or a DataFrame with these columns.
        schema: The `Schema`.
        index: Index that columns of pandas must have.

    Raises:
        ValueError: If a label is missing, has another index, is no number, or is not what its task can be.
    """
    columns = [task.column for task in schema.tasks]
    if not hasattr(y, "keys") or not set(columns) <= set(y.keys()):
        there = sorted(map(str, y.keys())) if hasattr(y, "keys") else type(y).__name__
        raise ValueError(
            f"`y` must have the labels {columns} by name, {{column: array of shape (rows,)}}, or be in the DataFrame. "
            f"Received: {there}"
        )
    found = {}
    for task in schema.tasks:
        values = y[task.column]
        if hasattr(values, "iloc"):  # a column of pandas
            if index is not None and not values.index.equals(index):
                raise ValueError(
                    f"`y` must have the index of `x`, row by row. Received: {task.column!r} with another index"
                )
            values = values.to_numpy(na_value=float("nan"))
        try:
            array = np.asarray(values, "float32")
        except (TypeError, ValueError) as error:
            raise ValueError(f"`{task.column}` must be a label, numbers or null. Received: {error}") from None
        is_possible = np.isin(array, (0.0, 1.0)) if task.kind == "binary" else ~np.isinf(array)
        if (bad := array[~(is_possible | np.isnan(array))]).size:
            must = "0, 1 or null" if task.kind == "binary" else "finite or null"
            raise ValueError(
                f"`{task.column}` must be {must}, as the task is {task.kind}. Received: {bad[0]:g} in {bad.size} of "
                f"{array.size} rows"
            )
        found[task.column] = array
    return found


def labels(table: pa.Table, schema: Schema) -> dict[str, np.ndarray]:
    """`{label column: float32 array of shape (rows,)}` with NaN where a label was not observed."""
    found = {}
    for task in schema.tasks:
        with _naming(task.column):  # pyright: ignore[reportArgumentType]
            values = pc.fill_null(table[task.column].cast(pa.float32()), float("nan"))
            found[task.column] = values.to_numpy(zero_copy_only=False)
    return found


def row_weights(table: pa.Table, name: str) -> np.ndarray:
    """Weights of rows, float32 of shape `(rows,)`: a column's, 1 where it is null, as it is of sampled negatives.

    Raises:
        ValueError: If a weight is negative or not finite.
    """
    weights = pc.fill_null(table[name].cast(pa.float32()), 1.0).to_numpy(zero_copy_only=False)
    if (bad := weights[~(np.isfinite(weights) & (weights >= 0))]).size:
        raise ValueError(
            f"`row_weights` must name a number that is finite and never negative. Received: {name!r} with {bad[0]:g}"
        )
    return weights


def check_row_weights(files: Iterable[Path], name: str) -> None:
    """Raises a `ValueError` unless the weights of example files are finite, not negative and somewhere positive."""
    weights = [row_weights(pq.read_table(file, columns=[name], partitioning=None), name) for file in files]  # pyright: ignore[reportArgumentType]
    if not any(part.any() for part in weights):
        raise ValueError(
            f"`row_weights` must name a number that is somewhere positive, or nothing is learnt. Received: {name!r}, "
            "which is 0 in every row"
        )


def take_vectors(vectors: np.ndarray, rows: pa.Array | pa.ChunkedArray, *, empty: Recycled | None = None) -> np.ndarray:
    """Rows of a memory-mapped matrix as float32; row -1 or null is the zero vector.

    Args:
        vectors: Matrix of shape `(number, width)`.
        rows: Arrow array of row numbers.
        empty: `Recycled` that gives the array for the result; new memory by default.

    Raises:
        ValueError: If there is no such row.
    """
    rows = np.asarray(pc.fill_null(rows, -1))
    if (last := rows.max(initial=-1)) >= len(vectors):
        raise ValueError(
            f"A store must have a vector for each row that is asked for; prepare the data anew. Received: row {last} "
            f"of {len(vectors)}"
        )
    if vectors.dtype != np.float32 or not len(vectors):
        taken = np.asarray(vectors[np.maximum(rows, 0)], "float32")
    else:
        taken = (empty or Recycled())((len(rows), vectors.shape[1]))
        np.take(np.asarray(vectors), rows, axis=0, out=taken, mode="clip")  # -1 is clipped to 0
    is_missing = rows < 0
    if is_missing.any():
        taken[is_missing] = 0.0
    return taken


class Recycled:
    """Makes uninitialised float32 arrays, in the memory of earlier ones that nobody refers to any more.

    The operating system clears new memory, which takes as long as filling it with a batch's vectors. Arrays start where
    a cache line does: TensorFlow copies others, and reads and refers to these where they are.

    Args:
        most: Number of arrays whose memory is kept; more at a time have memory of their own.

    Call arguments:
        shape: Of the array.

    Example:
    >>> empty = Recycled()
    >>> first, second = empty((2, 3)), empty((2, 3))
    >>> memory = second.base
    >>> del second
    >>> third = empty((2, 3))
    >>> third.base is memory, third.base is first.base
    (False, False)
    >>> del memory, third
    >>> fourth = empty((2, 3))
    >>> len(empty.memory)
    3
    """

    def __init__(self, most: int = 12) -> None:
        self.memory, self.most = [], most

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        """Makes an array."""
        size = 4 * int(np.prod(shape))
        for memory in self.memory:
            if memory.nbytes >= size + CACHE_LINE and sys.getrefcount(memory) == FREE:
                break
        else:
            memory = np.empty(size + CACHE_LINE, "uint8")
            if len(self.memory) < self.most:
                self.memory.append(memory)
        start = -memory.ctypes.data % CACHE_LINE
        return memory[start : start + size].view("float32").reshape(shape)


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
        return x | _vectors(table, schema, stores, empty=empty), y, *weight

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


def num_steps(files: Iterable[Path], batch_size: int) -> int:
    """Batches of an epoch, the last one smaller."""
    return -(-num_rows(files) // batch_size)


def check_rows(prepared: Dataset, files: Sequence[Path], purpose: str = "") -> None:
    """Raises a `ValueError` unless example files of a prepared directory have a row.

    Args:
        prepared: The `Dataset` directory.
        files: Its files.
        purpose: What for, such as `"validation"`.
    """
    if not num_rows(files):
        rows = f"{purpose} row" if purpose else "row"
        raise ValueError(
            f"`files` must have at least one {rows} of examples in {prepared.path}; run `tfmtr prepare` with a longer "
            f"log, other windows or other fractions. Received: {len(files)} files without a row"
        )


def num_rows(files: Iterable[Path]) -> int:
    """Rows of all files."""
    return sum(pq.read_metadata(file).num_rows for file in files)


def _as_column(array: np.ndarray) -> pa.Array:
    """An array as a column of a table; one of two dimensions as lists."""
    flat = pa.array(array.reshape(-1))
    return flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _as_array(column: pa.Array) -> np.ndarray:
    """The array of a column that `_as_column` made."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy().reshape(-1, column.type.list_size)


def open_stores(prepared: Dataset) -> dict[str, np.ndarray]:
    """`{role: memory-mapped matrix}` of the vector features' stores.

    Raises:
        ValueError: If one is not there.
    """
    stores = {f.role: prepared.vectors(f.role) for f in prepared.schema.features if f.is_stored}
    if missing := [f"vectors/{role}" for role, store in stores.items() if store is None]:
        raise ValueError(
            f"`{prepared.path}` must have the stores of its vector features; prepare the data anew. Received: no "
            f"{' and no '.join(missing)}"
        )
    return {role: store.vectors for role, store in stores.items()}  # pyright: ignore[reportOptionalMemberAccess]

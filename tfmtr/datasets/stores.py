"""Feature stores: checks what upstream vends and writes the stores of a prepared data set, by streaming."""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import DTypeLike

from tfmtr.datasets.engines._engine import ROW_GROUP, Engine
from tfmtr.datasets.ids import as_id
from tfmtr.datasets.vector_store import VectorStore

if TYPE_CHECKING:
    import ibis


def open_store(engine: Engine, path: str | os.PathLike, name: str, key: str) -> tuple[np.ndarray, ibis.Table]:
    """Opens and checks an upstream store.

    Args:
        engine: An `Engine`.
        path: Folder with `vectors.npy` and `ids.parquet`.
        name: What the store is called in messages.
        key: `"user"` or `"title"`: what its ids name.

    Returns:
        `(vectors, ids)`: the memory-mapped matrix and a table with `key` (text) and `store_row`.

    Raises:
        ValueError: If a file is missing or damaged, the matrix does not fit its ids or is not finite, or a column has
            the name that the engine gives the numbers of rows.
    """
    for file in ("vectors.npy", "ids.parquet"):
        if not Path(path, file).is_file():
            raise ValueError(
                f"`{name}` must be a folder with vectors.npy and ids.parquet. Received: {path} without {file}"
            )
    store = VectorStore(Path(path))
    store.check(name)
    if taken := [column for column in pq.read_schema(store.ids).names if column.lower() == "file_row_number"]:
        raise ValueError(
            f"`{name}` must have ids in a column with another name, such as {key!r}: the engine numbers rows by it. "
            f"Received: column {taken[0]!r} in {store.ids}"
        )
    ids = engine.read_numbered(store.ids)
    return store.vectors, ids.select(as_id(engine, ids, name, ids.columns[0]).name(key), store_row=ids.file_row_number)


def check_vectors_found(count: int, first: Sequence[str], key: str, missing_vectors: str) -> None:
    """Raises a `ValueError` if users or titles have no vector and zero vectors are not allowed.

    Args:
        count: How many have none.
        first: The first three of them.
        key: `"user"` or `"title"`.
        missing_vectors: `"error"` or `"zero"`.
    """
    if count and missing_vectors == "error":
        raise ValueError(
            f"`{key}_vectors` must have a vector for each {key}; "
            '`missing_vectors="zero"` gives the others the zero vector. '
            f"Received: {count} {key}s without one, first {first}"
        )


def gather(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Vectors of the given rows as float32; a negative row is the zero vector."""
    found = np.asarray(vectors[np.maximum(rows, 0)], "float32")
    found[rows < 0] = 0.0
    return found


def list_matrix(column: pa.Array, name: str) -> np.ndarray:
    """A list column of floats as a matrix.

    Args:
        column: Arrow list array.
        name: Of the column, for messages.

    Returns:
        Float32 matrix of shape `(rows, width)`.

    Raises:
        ValueError: If lists are null, differ in length or hold no finite numbers.
    """
    lengths = set(pc.list_value_length(column).unique().to_pylist())
    if len(lengths) > 1 or None in lengths:
        raise ValueError(
            f"Vector column {name!r} must have lists of one length in every row. Received: lengths={lengths}"
        )
    matrix = column.flatten().to_numpy(zero_copy_only=False).astype("float32").reshape(len(column), -1)
    if not np.isfinite(matrix).all():
        raise ValueError(f"Vector column {name!r} must hold finite numbers. Received: NaN or infinity")
    return matrix


class MatrixWriter:
    """Writes a `.npy` file front to back, neither held in memory nor mapped into it.

    Args:
        path: Of the file.
        shape: Of the array, rows first.
        dtype: Of the array.
    """

    def __init__(self, path: str | os.PathLike, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.path, self.dtype = Path(path), np.dtype(dtype)
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        with self.path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)

    def append(self, block: np.ndarray) -> None:
        """Appends rows."""
        with self.path.open("ab") as file:
            np.ascontiguousarray(block, self.dtype).tofile(file)


class StoreWriter:
    """Writes a `VectorStore` folder front to back, without holding it in memory.

    Args:
        path: Folder, made if missing.
        rows: Number of vectors.
        width: Of one vector.
        schema: Arrow schema of the ids.
        dtype: Of the vectors, `"float32"` or `"float16"`.
    """

    def __init__(
        self, path: str | os.PathLike, rows: int, width: int, schema: pa.Schema, dtype: DTypeLike = "float32"
    ) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        self.vectors = MatrixWriter(Path(path, "vectors.npy"), (rows, width), dtype)
        self.ids = pq.ParquetWriter(Path(path, "ids.parquet"), schema, compression="zstd")
        self.rows, self.waiting = 0, schema.empty_table()

    def append(self, blocks: Iterable[np.ndarray]) -> None:
        """Appends an iterable of float matrices of shape `(rows, width)`."""
        for block in blocks:
            self.vectors.append(block)
            self.rows += len(block)

    def append_ids(self, ids: pa.Table) -> None:
        """Appends an Arrow table of ids, one for each vector."""
        self.waiting = pa.concat_tables([self.waiting, ids.cast(self.ids.schema)])
        while self.waiting.num_rows >= ROW_GROUP:  # so that files do not depend on how ids come
            self.ids.write_table(self.waiting.slice(0, ROW_GROUP).combine_chunks())
            self.waiting = self.waiting.slice(ROW_GROUP)

    def close(self) -> None:
        """Finishes the ids; the vectors are all there."""
        if self.waiting.num_rows:
            self.ids.write_table(self.waiting.combine_chunks())
        self.ids.close()


def array_of(table: pa.Table, name: str) -> np.ndarray:
    """A column of an Arrow table as one NumPy array; null integers become -1."""
    return pc.fill_null(table.column(name), -1).to_numpy()

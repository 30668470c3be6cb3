"""Rows of memory-mapped vectors, in memory that is used again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.schema import Schema

CACHE_LINE = 64
FREE = 3  # references to memory that nobody uses: of the list, of the loop over it, and of the question


def stored_vectors(
    table: pa.Table, schema: Schema, stores: Mapping[str, np.ndarray], **options: Recycled | None
) -> dict[str, np.ndarray]:
    """`{feature: float32 matrix}` of the vector features whose role has a column of rows in a table."""
    features = [f for f in schema.features if f.is_stored and f"{f.role}_row" in table.column_names]
    return {f.name: take_vectors(stores[f.role], table[f"{f.role}_row"], **options) for f in features}


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

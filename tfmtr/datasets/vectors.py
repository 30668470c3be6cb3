"""The feature store: a memory-mapped matrix of vectors and the ids of its rows."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


@dataclasses.dataclass(frozen=True)
class VectorStore:
    """Vectors of users or titles as an upstream model vends them, never loaded whole.

    A store is a folder with `vectors.npy`, a float matrix of shape `(rows, width)` that is
    memory-mapped, and `ids.parquet`, whose first column names the row's user or title. Stores that hold
    one vector per user and window have a second column `window`: the vector is as of its start.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def vectors(self):
        """The memory-mapped matrix, shape `(rows, width)`."""
        return np.load(Path(self.path, "vectors.npy"), mmap_mode="r")

    @property
    def ids(self):
        """Path of the Parquet file that names the rows."""
        return Path(self.path, "ids.parquet")

    @property
    def width(self):
        """Width of one vector."""
        return self.vectors.shape[1]

    def check(self, name):
        """Raises a `ValueError` that names the store `name` unless the matrix fits its ids and is finite."""
        vectors = self.vectors
        if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
            raise ValueError(
                f"`{name}` must be a float matrix of shape (rows, width). "
                f"Received: shape={vectors.shape}, dtype={vectors.dtype} in {self.path}"
            )
        rows = pq.ParquetFile(self.ids).metadata.num_rows
        if rows != len(vectors):
            raise ValueError(
                f"`{name}` must have one id for each vector. "
                f"Received: {rows} ids and {len(vectors)} vectors in {self.path}"
            )
        for start in range(0, rows, 65_536):
            with np.errstate(over="ignore"):  # what is too large for float32 is refused
                finite = np.isfinite(vectors[start : start + 65_536].astype("float32")).all(axis=1)
            if not finite.all():
                row = start + int(np.argmin(finite))
                raise ValueError(
                    f"`{name}` must hold finite numbers; repair the upstream store or drop the row. "
                    f"Received: NaN or infinity in row {row} (as float32) of {self.path}"
                )

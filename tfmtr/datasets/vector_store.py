"""The feature store: a memory-mapped matrix of vectors and the ids of its rows."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tfmtr.datasets.column_types import naming


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
    def vectors(self) -> np.ndarray:
        """The memory-mapped matrix, shape `(rows, width)`."""
        return np.lib.format.open_memmap(Path(self.path, "vectors.npy"), mode="r")

    @property
    def ids(self) -> Path:
        """Path of the Parquet file that names the rows."""
        return Path(self.path, "ids.parquet")

    @property
    def width(self) -> int:
        """Width of one vector."""
        return self.vectors.shape[1]

    def check(self, name: str) -> None:
        """Raises a `ValueError` that names the store `name` unless its files are whole, fit and are finite."""
        try:
            vectors = self.vectors
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(
                f"`{name}` must have a whole file of one matrix, as `numpy.save` writes it; copy or write the file "
                f"again. Received: {Path(self.path, 'vectors.npy')}: {error}"
            ) from error
        if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
            raise ValueError(
                f"`{name}` must be a float matrix of shape (rows, width); save it as float32. "
                f"Received: shape={vectors.shape}, dtype={vectors.dtype} in {Path(self.path, 'vectors.npy')}"
            )
        with naming(self.ids, name), pq.ParquetFile(self.ids) as opened:
            rows = opened.metadata.num_rows
        if rows != len(vectors):
            raise ValueError(
                f"`{name}` must have one id for each vector; write ids.parquet and vectors.npy from the same rows. "
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

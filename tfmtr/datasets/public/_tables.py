"""What converters of public data sets share: find a file, read its columns, write a table."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr.checks import nearest


def read_columns(source: str | os.PathLike, file: str, columns: Sequence[str]) -> pa.Table:
    """The columns of a Parquet file.

    Args:
        source: Its folder, or the file itself.
        file: Name of the file in the folder.
        columns: Names of the columns.

    Returns:
        Arrow table of these columns.

    Raises:
        ValueError: If there is no such file, it is no Parquet file, has no rows or lacks a column.
    """
    path = Path(source)
    path = path / file if path.is_dir() else path
    if not path.is_file():
        there = sorted(found.name for found in path.parent.iterdir()) if path.parent.is_dir() else "no such folder"
        raise ValueError(f"`source` must be {file}, or a folder with it. Received: {source}; there is {there}")
    try:
        there = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise ValueError(f"`source` must be a Parquet file; fetch it again. Received: {path}: {error}") from error
    for column in columns:
        if column not in there:
            raise ValueError(
                f"{file} must have the column {column!r}.{nearest(column, there)} Received: {there} in {path}"
            )
    table = pq.read_table(path, columns=list(columns))
    if not len(table):
        raise ValueError(f"{file} must have rows. Received: none in {path}")
    return table


def write_table(table: pa.Table, folder: str | os.PathLike, name: str) -> Path:
    """Writes an Arrow table as `<folder>/<name>.parquet`, the folder made if missing; returns the path."""
    path = Path(folder) / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")
    return path


def lists_by(keys: Iterable[Any], values: Iterable[Any], ids: Iterable[Any]) -> pa.Array:
    """The values of each id as a list, in the order of `ids`: an Arrow list column.

    Args:
        keys: Arrow or NumPy column of ids, one a value.
        values: Column of the values, texts or what becomes texts.
        ids: The ids that lists are wanted of, each once.

    Example:
    >>> lists_by(["b", "a", "b"], ["x", "y", "z"], ["a", "b", "c"]).to_pylist()
    [['y'], ['x', 'z'], []]
    """
    found = {key: [] for key in ids}
    for key, value in zip(keys, values, strict=True):
        if key in found:
            found[key].append(str(value))
    return pa.array(found.values(), pa.list_(pa.string()))

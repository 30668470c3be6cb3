"""Rows of example files (Parquet): streamed, shuffled within a pool, counted."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from tfmtr.datasets.dataset import Dataset


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

"""Titles that lists leave out, and those that users had."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import TYPE_CHECKING

from tfmtr.datasets.engines.duckdb import read_files

if TYPE_CHECKING:
    import ibis
    from ibis.backends.duckdb import Backend

    from tfmtr.datasets.dataset import Dataset


def seen_pairs(con: Backend, data: Dataset) -> ibis.Table:
    """Which titles lists of which user leave out, over the whole log: those of all rows of `events.parquet`.

    Args:
        con: An Ibis connection to DuckDB.
        data: A `Dataset`.

    Returns:
        Table `user`, `title`, each pair once.
    """
    return _rows(con, data).select("user", "title").distinct()


def had_pairs(con: Backend, data: Dataset) -> ibis.Table:
    """Which user had which title, over the whole log: the pairs of `seen_pairs` that are of an event.

    Args:
        con: An Ibis connection to DuckDB.
        data: A `Dataset`.

    Returns:
        Table `user`, `title`, each pair once.
    """
    rows = _rows(con, data)
    rows = rows.filter(rows.is_event) if "is_event" in rows.columns else rows
    return rows.select("user", "title").distinct()


def _rows(con: Backend, data: Dataset) -> ibis.Table:
    """Rows of what users had or saw; versions before `events.parquet` wrote the pairs alone."""
    files = (data.path / name for name in ("events.parquet", "seen.parquet"))
    return read_files(con, [next(file for file in files if file.is_file())])

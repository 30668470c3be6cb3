"""Titles that users had, which lists leave out."""

from tfmtr.datasets.engines.duckdb import read_files


def seen_pairs(con, data):
    """Which user had which title, over the whole log.

    Args:
        con: An Ibis connection to DuckDB.
        data: A `Prepared`.

    Returns:
        Table `user`, `title`, each pair once.
    """
    events = data.path / "events.parquet"
    if not events.is_file():  # prepared by a version before this file
        return read_files(con, [data.path / "seen.parquet"]).select("user", "title")
    return read_files(con, [events]).select("user", "title").distinct()

"""Titles that lists leave out, and those that users had."""

from tfmtr.datasets.engines.duckdb import read_files


def seen_pairs(con, data):
    """Which titles lists of which user leave out, over the whole log: those of all rows of `events.parquet`.

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


def had_pairs(con, data):
    """Which user had which title, over the whole log: the pairs of `seen_pairs` that are of an event.

    Args:
        con: An Ibis connection to DuckDB.
        data: A `Prepared`.

    Returns:
        Table `user`, `title`, each pair once.
    """
    events = data.path / "events.parquet"
    if not events.is_file():
        return seen_pairs(con, data)
    rows = read_files(con, [events])
    rows = rows.filter(rows.is_event) if "is_event" in rows.columns else rows
    return rows.select("user", "title").distinct()

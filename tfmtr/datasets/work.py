"""Runs Ibis expressions on DuckDB in bounded memory, and writes what they give, the same bytes every time."""

from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 65_536
NUM_THREADS = 2
SORT_MEMORY = 160_000_000
FLUSH_ROWS = 8_192  # rows that a partitioned write holds back for each partition


def connect(folder, memory_limit):
    """A DuckDB connection that spills into `folder`.

    Args:
        folder: Folder for temporary files.
        memory_limit: Bytes for the whole process; DuckDB gets half of it, the rest is for Arrow and NumPy.

    Returns:
        Ibis connection.
    """
    return ibis.duckdb.connect(
        threads=NUM_THREADS,
        memory_limit=f"{memory_limit // 2_000_000}MB",
        temp_directory=str(folder),
        preserve_insertion_order=False,
        partitioned_write_flush_threshold=FLUSH_ROWS,
    )


def spill_early(con, memory_limit):
    """Lets the connection of `connect` hold `SORT_MEMORY` bytes at most: sorts of whole tables go to disk."""
    con.raw_sql(f"SET memory_limit = '{min(SORT_MEMORY, memory_limit // 2) // 1_000_000}MB'")


def store(con, table, path):
    """Runs a table once, into a Parquet file, and returns the file as a table."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    con.to_parquet(table, path)
    return con.read_parquet(path)


def partition(con, table, folder, num_buckets):
    """Writes a table in one pass as one folder of Parquet files for each value of its column `bucket`."""
    con.to_parquet(table, folder, partition_by="bucket")
    empty = table.drop("bucket").schema().to_pyarrow().empty_table()
    for bucket in range(num_buckets):
        path = Path(folder, f"bucket={bucket}")
        if not path.is_dir():
            path.mkdir(parents=True)
            pq.write_table(empty, path / "empty.parquet")


def read_bucket(con, folder, bucket):
    """One bucket that `partition` wrote, with its column `bucket`."""
    table = con.read_parquet(str(Path(folder, f"bucket={bucket}", "*.parquet")), hive_partitioning=False)
    return table.mutate(bucket=ibis.literal(bucket, "int64"))


def stream(con, table):
    """Yields the rows of a sorted table as Arrow tables of `ROW_GROUP` rows, the last one smaller."""
    schema = table.schema().to_pyarrow()
    waiting, rows = [], 0
    for batch in con.con.sql(con.compile(table)).to_arrow_reader(ROW_GROUP):
        waiting.append(pa.Table.from_batches([batch]).cast(schema))
        rows += batch.num_rows
        while rows >= ROW_GROUP:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, ROW_GROUP).combine_chunks()
            waiting, rows = [joined.slice(ROW_GROUP)], rows - ROW_GROUP
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


def write(con, table, path):
    """Writes a sorted table as one Parquet file: the same rows give the same bytes."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, table.schema().to_pyarrow(), compression="zstd") as writer:
        for rows in stream(con, table):
            writer.write_table(rows, row_group_size=ROW_GROUP)


def write_parts(con, table, parts, paths):
    """Writes a sorted table as several Parquet files, cut after given numbers of rows.

    Args:
        con: Ibis connection.
        table: Sorted Ibis table.
        parts: Number of rows of each file, in the order of the table.
        paths: Path of each file.
    """
    schema = table.schema().to_pyarrow()
    source = stream(con, table)
    rows = schema.empty_table()
    for wanted, path in zip(parts, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            while wanted:
                if not rows.num_rows:
                    rows = next(source)
                piece = rows.slice(0, wanted)
                writer.write_table(piece, row_group_size=ROW_GROUP)
                rows, wanted = rows.slice(piece.num_rows), wanted - piece.num_rows

"""DuckDB: one machine, bounded memory, work beyond it on disk."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import ibis
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.sql.datatypes import DuckDBType

from tfmtr.datasets.csv_files import as_pattern, literal, quoted
from tfmtr.datasets.engines._engine import ROW_GROUP, Engine

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend

NUM_THREADS = 2
SORT_MEMORY = 160_000_000
FLUSH_ROWS = 8_192  # rows that a partitioned write holds back for each partition


@ibis.udf.scalar.builtin(name="timezone")
def _moment(zone: str, time: dt.Timestamp()) -> dt.Timestamp(timezone="UTC"):  # pyright: ignore[reportInvalidTypeForm]
    """DuckDB's own: the moment at which the clock of a zone shows a time."""


@ibis.udf.scalar.builtin(name="timezone")
def _local_time(zone: str, time: dt.Timestamp(timezone="UTC")) -> dt.Timestamp():  # pyright: ignore[reportInvalidTypeForm]
    """DuckDB's own: the clock of a zone at a moment."""


class DuckDB(Engine):
    """DuckDB in this process.

    Args:
        folder: Folder for temporary files; `None` for one of its own.
        memory_limit: Bytes for the whole process; DuckDB gets half of it, the rest is for Arrow and NumPy. `None` for
            small tables: no limit, and rows stay in the order of their files.
    """

    con: "Backend"
    errors = (duckdb.Error,)
    pass_buckets = 1

    def __init__(self, folder: Path | None = None, memory_limit: int | None = None) -> None:
        options, self.temporary, self.views = {}, None, []
        if folder is None:
            self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(folder or self.temporary.name)
        if memory_limit is not None:
            self.memory = memory_limit // 2
            options = {
                "threads": NUM_THREADS,
                "memory_limit": f"{self.memory // 1_000_000}MB",
                "temp_directory": str(folder),
                "preserve_insertion_order": False,
                "partitioned_write_flush_threshold": FLUSH_ROWS,
            }
        self.con = ibis.duckdb.connect(**options)

    def close(self) -> None:
        """Ends the connection."""
        self.con.disconnect()
        if self.temporary is not None:
            self.temporary.cleanup()

    def sort_early(self) -> None:
        """Leaves `SORT_MEMORY` bytes at most, so that sorts of whole tables go to disk, below the buckets' memory."""
        self.con.raw_sql(f"SET memory_limit = '{min(SORT_MEMORY, self.memory) // 1_000_000}MB'")

    def keep_order(self) -> None:
        """Leaves rows in the order of their files, which takes some more memory while they are written."""
        self.con.raw_sql("SET preserve_insertion_order = true")

    def read_parquet(self, paths: Sequence[Path], root: Path | None = None) -> ibis.Table:
        """Parquet files as one table, nanoseconds of a zone as microseconds in UTC: Ibis does not know that type."""
        table = read_files(self.con, paths, has_partitions=root is not None)
        names = [f.name for f in pq.read_schema(paths[0]) if pa.types.is_timestamp(f.type) and f.type.tz]
        names = [quoted(name) for name in names if not table[name].type().is_timestamp()]
        if not names:
            return table
        columns = ", ".join(f"{name}::TIMESTAMPTZ::TIMESTAMP AS {name}" for name in names)
        view = ibis.util.gen_name("utc")
        self.con.raw_sql(
            f"CREATE TEMP VIEW {quoted(view)} AS SELECT * REPLACE ({columns}) FROM {quoted(table.get_name())}"
        )
        return self.con.table(view)

    @contextlib.contextmanager
    def local(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The engine's own connection."""
        yield self.con.con

    def read_numbered(self, path: Path) -> ibis.Table:
        """A Parquet file with its row numbers."""
        return read_files(self.con, [path], file_row_number=True)

    def local_time(self, zone: ir.Value, time: ir.Value) -> ir.Value:
        """By DuckDB's function `timezone`, twice."""
        return _local_time(zone, _moment("UTC", time))

    def save(self, table: ibis.Table, path: Path) -> None:
        """One Parquet file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with as_built():
            self.con.to_parquet(table, path)

    def store(self, table: ibis.Table, path: Path) -> ibis.Table:
        """One Parquet file."""
        self.save(table, path)
        return self.read_parquet([path])

    def view(self, table: ibis.Table) -> ibis.Table:
        """A view, which DuckDB plans as if it were written out."""
        self.views.append(table)  # Ibis forgets tables in memory when nobody has them
        self.con._run_pre_execute_hooks(table)
        with as_built():
            query = self.con.compile(table)
        name = ibis.util.gen_name("view")
        self.con.con.execute(f"CREATE TEMP VIEW {quoted(name)} AS {query}")
        return named(self.con, name, table.schema())

    def partition(self, table: ibis.Table, folder: Path, num_buckets: int) -> None:
        """One folder for each bucket, with a file without rows where a bucket has none."""
        with as_built():
            self.con.to_parquet(table, folder, partition_by="bucket")
        empty = table.drop("bucket").schema().to_pyarrow().empty_table()
        for bucket in range(num_buckets):
            path = Path(folder, f"bucket={bucket}")
            if not path.is_dir():
                path.mkdir(parents=True)
                pq.write_table(empty, path / "empty.parquet")

    def read_buckets(self, folder: Path, buckets: range) -> ibis.Table:
        """The buckets' folders."""
        paths = [path for bucket in buckets for path in sorted(Path(folder, f"bucket={bucket}").glob("*.parquet"))]
        table = self.read_parquet(paths, folder)
        return table.mutate(bucket=table.bucket.cast("int64"))

    def to_pyarrow(self, table: ibis.Table) -> pa.Table:
        """A table that fits in memory."""
        with as_built():
            return self.con.to_pyarrow(table)

    def execute(self, value: ir.Scalar) -> Any:
        """One Ibis value as a Python value, by way of no data frame."""
        with as_built():
            return self.con.to_pyarrow(value).as_py()

    def batches(self, table: ibis.Table) -> Iterator[pa.Table]:
        """Batches as they come, without holding what went before."""
        with as_built():
            query = self.con.compile(table)
        for batch in self.con.con.sql(query).to_arrow_reader(ROW_GROUP):
            yield pa.Table.from_batches([batch])


@contextlib.contextmanager
def as_built() -> Iterator[None]:
    """Ibis leaves projections and filters as they were built: DuckDB merges them itself, in far less time."""
    before = ibis.options.sql.fuse_selects
    ibis.options.sql.fuse_selects = False
    try:
        yield
    finally:
        ibis.options.sql.fuse_selects = before


def read_files(
    con: "Backend", paths: Iterable[str | os.PathLike], *, has_partitions: bool = False, **options: Any
) -> ibis.Table:
    """Parquet files as an Ibis table, just as they are: no path is a pattern, and no folder above them is a column.

    Args:
        con: An Ibis connection to DuckDB.
        paths: Of the files.
        has_partitions: Whether folders `column=value` are columns, of text.
        **options: Further ones of DuckDB's `read_parquet`.
    """
    if has_partitions:
        options["hive_types_autocast"] = False
    files = ", ".join(literal(as_pattern(path)) for path in paths)
    options["hive_partitioning"] = has_partitions
    settings = "".join(f", {name} = {value}" for name, value in options.items())
    view = ibis.util.gen_name("read_parquet")
    # Not by `con.read_parquet`, which builds and prints both statements: nearly all of what small files take.
    con.con.execute(f"CREATE TEMP VIEW {quoted(view)} AS SELECT * FROM read_parquet([{files}]{settings})")
    columns = con.con.execute(f"DESCRIBE {quoted(view)}").fetchall()
    return named(con, view, ibis.schema({name: type_called(text) for name, text, *_ in columns}))


def named(con: "Backend", name: str, schema: ibis.Schema) -> ibis.Table:
    """What a connection knows under a name, whose columns need not be asked for."""
    return ops.DatabaseTable(name, schema=schema, source=con, namespace=ops.Namespace()).to_expr()


@functools.cache
def type_called(text: str) -> dt.DataType:
    """The Ibis type of a type's name in DuckDB's words."""
    return DuckDBType.from_string(text)

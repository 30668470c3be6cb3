"""Spark: the same rows as DuckDB's, from the processes that a Spark master has.

Spark joins, counts and sorts. What `prepare` leaves on disk is still written by this process alone, from the sorted
files that Spark wrote before, so that the bytes are the same, too; the folder must be one that Spark's processes see
under the same path.
"""

import contextlib
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.engines.duckdb import DuckDB

try:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.functions import expr
except ImportError as error:
    raise ImportError("The engine Spark needs pyspark and Java 17: pip install 'tfmtr[spark]'") from error


@ibis.udf.scalar.builtin(name="from_utc_timestamp")
def _local_time(time: dt.Timestamp(), zone: str) -> dt.Timestamp():  # pyright: ignore[reportInvalidTypeForm]
    """Spark's own: the clock of a zone at a time in UTC."""


class Spark(Engine):
    """A session of its own in the Spark application of this process, which is started if there is none.

    Everything but the master is a matter of Spark's own configuration, `spark.driver.memory` for one:
    `spark-defaults.conf` in `SPARK_CONF_DIR`, or `PYSPARK_SUBMIT_ARGS`.

    Args:
        folder: Folder for what is not needed any longer when the engine is closed.
        memory_limit: Bytes for reading CSV files, which DuckDB does, so that their columns get the same types.
        master: URL of the master, such as `"local[2]"` or `"spark://host:7077"`; `None` for that of the configuration,
            or all cores of this machine.

    Raises:
        ValueError: If Spark does not start.
    """

    pass_buckets = 16  # a query of Spark costs a large part of a second, however little it does

    def __init__(self, folder: Path, memory_limit: int, master: str | None = None) -> None:
        self.folder, self.memory_limit, self.partitions, self.views = Path(folder), memory_limit, {}, []
        session = SparkSession.getActiveSession()
        self.is_guest = session is not None
        self.interrupt = signal.getsignal(signal.SIGINT)
        self.session = (session or start(master)).newSession()
        self.session.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
        self.session.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")  # else it refuses such files
        self.errors = (*DuckDB.errors, PySparkException)
        self.con = ibis.pyspark.connect(self.session)  # times are in UTC from here on

    def close(self) -> None:
        """Ends the application, unless it was there before, and with it what PySpark does at Ctrl-C."""
        if not self.is_guest:
            self.con.disconnect()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, self.interrupt)

    def read_parquet(self, paths: Sequence[Path], root: Path | None = None) -> ibis.Table:
        """Parquet files as one table, nanoseconds as microseconds, which is what Spark has."""
        paths, root = self._readable(paths, root)
        reader = self.session.read
        if root is not None:
            reader = reader.option("basePath", location(root))
        rows = reader.parquet(*map(pattern, paths))
        if Path(paths[0]).is_file():
            for field in pq.read_schema(paths[0]):
                if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
                    rows = rows.withColumn(field.name, expr(f"timestamp_micros(`{field.name}` div 1000)"))
        return self._table(rows)

    def _readable(self, paths: Sequence[Path], root: Path | None) -> tuple[Sequence[Path], Path | None]:
        """The files, or copies of those that Spark cannot read: it knows no floats of 16 bits."""
        if names := [path for path in paths if ":" in Path(path).name]:
            raise ValueError(
                "Spark reads no files whose names have a colon; rename them, or use the engine duckdb. Received: "
                f"{names[0]}"
            )
        for field in pq.read_schema(paths[0]) if Path(paths[0]).is_file() else ():
            if is_unreadable(field.type):
                raise ValueError(
                    "Spark reads no times of day, no UUIDs and no lists of 16-bit floats; write the column as another "
                    f"type, or use the engine duckdb. Received: column {field.name!r} is {field.type} in {paths[0]}"
                )
        if not Path(paths[0]).is_file() or pa.float16() not in pq.read_schema(paths[0]).types:
            return paths, root
        base, copies = root or Path(paths[0]).parent, []
        folder = self.scratch()
        for number, path in enumerate(paths):
            with pq.ParquetFile(path) as file:
                fields = [f.with_type(pa.float32()) if f.type == pa.float16() else f for f in file.schema_arrow]
                copies.append(folder / Path(path).relative_to(base).parent / f"part-{number}.parquet")
                copies[-1].parent.mkdir(parents=True, exist_ok=True)
                with pq.ParquetWriter(copies[-1], pa.schema(fields)) as writer:
                    for batch in file.iter_batches():
                        writer.write_table(pa.Table.from_batches([batch]).cast(pa.schema(fields)))
        return copies, folder if root is not None else None

    @contextlib.contextmanager
    def local(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own."""
        engine = DuckDB(self.folder / "spill", self.memory_limit)
        with contextlib.closing(engine):
            yield engine.con.con

    def read_numbered(self, path: Path) -> ibis.Table:
        """A Parquet file with its row numbers."""
        rows = self.session.read.parquet(pattern(path))
        number = rows.metadataColumn("_metadata").getField("row_index")  # whatever the file's columns are called
        return self._table(rows.select("*", number.alias("file_row_number")))

    def local_time(self, zone: ir.Value, time: ir.Value) -> ir.Value:
        """By Spark's function `from_utc_timestamp`."""
        return _local_time(time, zone)

    def save(self, table: ibis.Table, path: Path) -> None:
        """A folder of Parquet files."""
        self.con.to_parquet(table, location(path))

    def store(self, table: ibis.Table, path: Path) -> ibis.Table:
        """A folder of Parquet files."""
        return self._write(table, path)

    def view(self, table: ibis.Table) -> ibis.Table:
        """A view of the session."""
        self.views.append(table)  # Ibis forgets tables in memory when nobody has them
        self.con._run_pre_execute_hooks(table)
        name = ibis.util.gen_name("view")
        self.session.sql(self.con.compile(table)).createOrReplaceTempView(name)
        return ops.DatabaseTable(name, schema=table.schema(), source=self.con, namespace=ops.Namespace()).to_expr()

    def partition(self, table: ibis.Table, folder: Path, num_buckets: int) -> None:
        """One folder of Parquet files for each bucket that has rows; sorted before, for few files in each."""
        self.partitions[folder] = self._write(table.order_by("bucket"), folder, partitionBy="bucket")

    def read_buckets(self, folder: Path, buckets: range) -> ibis.Table:
        """The rows of these buckets; Spark opens no other folder."""
        table = self.partitions[folder]
        return table.filter(table.bucket.between(buckets[0], buckets[-1]))

    def rows(self, table: ibis.Table) -> list[dict[str, Any]]:
        """A small table as a list of dictionaries, by way of no file."""
        return self.con.to_pyarrow(table).to_pylist()

    def batches(self, table: ibis.Table) -> Iterator[pa.Table]:
        """What Spark writes, read file after file: the files of a sorted table are in its order."""
        folder = self.scratch() / "rows"
        self.con.to_parquet(table, location(folder))
        for path in sorted(folder.glob("*.parquet")):
            with pq.ParquetFile(path) as file:
                for row_group in range(file.num_row_groups):
                    yield file.read_row_group(row_group)
        shutil.rmtree(folder.parent)

    def _write(self, table: ibis.Table, folder: Path, **options: Any) -> ibis.Table:
        """Writes a table and returns what is there; its columns are known, so that Spark need not look for them."""
        self.con.to_parquet(table, location(folder), **options)
        columns = self.session.sql(self.con.compile(table)).schema
        return self._table(self.session.read.schema(columns).parquet(pattern(folder)))

    def _table(self, rows: DataFrame) -> ibis.Table:
        name = ibis.util.gen_name("prepare")
        rows.createOrReplaceTempView(name)
        return self.con.table(name)


def start(master: str | None) -> SparkSession:
    """Starts Spark and returns its session."""
    builder = SparkSession.builder.appName("tfmtr prepare").config("spark.ui.showConsoleProgress", "false")
    try:
        session = (builder if master is None else builder.master(master)).getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise ValueError(
            f"`spark_master` must be the URL of a master that can be reached, such as local[2]; Spark needs Java 17. "
            f"Received: spark_master={master}: {error}"
        ) from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def is_unreadable(dtype: pa.DataType) -> bool:
    """Whether Spark refuses files with a column of this Arrow type, or of a type with this one inside.

    >>> [is_unreadable(dtype) for dtype in (pa.list_(pa.time64("us")), pa.uuid(), pa.list_(pa.string()))]
    [True, True, False]
    """
    inside = [dtype.field(place).type for place in range(dtype.num_fields)]
    is_refused = pa.types.is_time(dtype) or isinstance(dtype, pa.UuidType)
    return is_refused or any(is_unreadable(each) or pa.types.is_float16(each) for each in inside)


def location(path: str | os.PathLike) -> str:
    """A path of this machine as Spark takes it, whatever its default file system is."""
    return f"file:{Path(path).absolute()}"


def pattern(path: str | os.PathLike) -> str:
    """The same where Spark reads, which takes names as patterns: one that matches this path alone."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", location(path))

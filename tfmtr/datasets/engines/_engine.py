"""What `prepare` asks of a query engine, and how rows become files: the same rows give the same bytes."""

from __future__ import annotations

import abc
import contextlib
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import duckdb
    import ibis
    import ibis.expr.types as ir
    from ibis.backends.sql import SQLBackend

ROW_GROUP = 65_536


class Engine(abc.ABC):
    """Runs Ibis expressions and keeps what they give in Parquet files.

    Whatever an engine needs to be told in its own words is here; the expressions are the same for all.

    Attributes:
        con: The Ibis connection.
        folder: Path of the folder for temporary files.
        errors: Exceptions that files which are no table raise when they are opened.
        pass_buckets: Number of buckets that the engine does well to take at once.
    """

    con: SQLBackend
    folder: Path
    errors: tuple[type[Exception], ...]
    pass_buckets: int

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the connection."""

    @abc.abstractmethod
    def read_parquet(self, paths: Sequence[Path], root: Path | None = None) -> ibis.Table:
        """Parquet files of the same columns and types, or what `store` has written, as one table.

        Args:
            paths: Of the files; they are no patterns.
            root: Folder under which the names of folders, `column=value`, are columns of text; `None` for none.
        """

    @abc.abstractmethod
    def local(self) -> contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]:
        """A context that gives a connection of DuckDB in this process, which reads CSV files for every engine."""

    @abc.abstractmethod
    def read_numbered(self, path: Path) -> ibis.Table:
        """A Parquet file as a table with the number of each row, 0, 1, ..., as `file_row_number`."""

    @abc.abstractmethod
    def local_time(self, zone: ir.Value, time: ir.Value) -> ir.Value:
        """The time that the clock of a time zone shows at a time in UTC, both without a zone; Ibis values."""

    @abc.abstractmethod
    def save(self, table: ibis.Table, path: Path) -> None:
        """Runs a table once and writes it to `path`, which `read_parquet` reads."""

    @abc.abstractmethod
    def store(self, table: ibis.Table, path: Path) -> ibis.Table:
        """Runs a table once, writes it to `path` and returns what is there as a table."""

    @abc.abstractmethod
    def view(self, table: ibis.Table) -> ibis.Table:
        """The same table under a name, so that what is asked of it is not compiled with all that it is made of."""

    @abc.abstractmethod
    def partition(self, table: ibis.Table, folder: Path, num_buckets: int) -> None:
        """Writes a table in one pass as one folder of Parquet files for each value of its column `bucket`."""

    @abc.abstractmethod
    def read_buckets(self, folder: Path, buckets: range) -> ibis.Table:
        """Some neighbouring buckets that `partition` wrote, with their column `bucket`."""

    @abc.abstractmethod
    def batches(self, table: ibis.Table) -> Iterator[pa.Table]:
        """Yields the rows of a table as Arrow tables of any size, in its order if it is sorted."""

    def scratch(self) -> Path:
        """A new folder for files that are needed until the engine is closed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self.folder.absolute()))

    def sort_early(self) -> None:  # noqa: B027, most engines need no hint
        """Says that whole tables are sorted from now on."""

    def execute(self, value: ir.Scalar) -> Any:
        """One Ibis value as a Python value."""
        return self.con.execute(value)

    def to_pyarrow(self, table: ibis.Table) -> pa.Table:
        """A table that fits in memory."""
        schema = table.schema().to_pyarrow()
        return pa.concat_tables([schema.empty_table(), *(rows.cast(schema) for rows in self.batches(table))])

    def rows(self, table: ibis.Table) -> list[dict[str, Any]]:
        """A small table as a list of dictionaries."""
        return self.to_pyarrow(table).to_pylist()

    def stream(self, table: ibis.Table) -> Generator[pa.Table, None, None]:
        """Yields the rows of a sorted table as Arrow tables of `ROW_GROUP` rows, the last one smaller."""
        schema = table.schema().to_pyarrow()
        waiting, count = [], 0
        for rows in self.batches(table):
            waiting.append(rows.cast(schema))
            count += rows.num_rows
            while count >= ROW_GROUP:
                joined = pa.concat_tables(waiting)
                yield joined.slice(0, ROW_GROUP).combine_chunks()
                waiting, count = [joined.slice(ROW_GROUP)], count - ROW_GROUP
        if count:
            yield pa.concat_tables(waiting).combine_chunks()

    def write(self, table: ibis.Table, path: Path) -> None:
        """Writes a sorted table as one Parquet file: the same rows give the same bytes."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, table.schema().to_pyarrow(), compression="zstd") as writer:
            for rows in self.stream(table):
                writer.write_table(rows, row_group_size=ROW_GROUP)

    def write_parts(self, table: ibis.Table, parts: Sequence[int], paths: Sequence[Path]) -> None:
        """Writes a sorted table as several Parquet files, cut after given numbers of rows.

        Args:
            table: Sorted Ibis table.
            parts: Number of rows of each file, in the order of the table.
            paths: Path of each file.
        """
        schema = table.schema().to_pyarrow()
        rows = schema.empty_table()
        with contextlib.closing(self.stream(table)) as source:
            for wanted, path in zip(parts, paths, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                    while wanted:
                        size = min(wanted, ROW_GROUP)
                        while rows.num_rows < size:  # so that row groups do not depend on what comes before the part
                            rows = pa.concat_tables([rows, next(source)])
                        writer.write_table(rows.slice(0, size).combine_chunks(), row_group_size=ROW_GROUP)
                        rows, wanted = rows.slice(size), wanted - size

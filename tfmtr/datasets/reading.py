"""Files to one Ibis table, whose columns have one type each, on any engine."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false

import datetime
import os
import re
import urllib.parse
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import ibis
import ibis.expr.datatypes as dt
import pyarrow as pa
from ibis.formats.pyarrow import PyArrowType

from tfmtr.datasets.column_types import TIME, WHOLE, check_spelling, needs_bound, unify
from tfmtr.datasets.csv_files import csv_to_parquet
from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.files import TableFiles, find_files
from tfmtr.datasets.names import TABLES
from tfmtr.datasets.report import counted

FEW = 3  # names that a message shows


def read_table(
    engine: Engine, path: str | os.PathLike, argument: str, *, ids: Collection[str] = ()
) -> tuple[ibis.Table, list[str]]:
    """One Parquet or CSV file, or a folder of them, as an Ibis table.

    Each column has one type over all files of the folder and all lines of a CSV file: the common type that loses
    nothing. Folders `column=value` make a column.

    Args:
        engine: An `Engine`.
        path: File or folder.
        argument: What the table is called in messages.
        ids: Columns that are ids: a CSV must not turn them into numbers (`007` stays `007`), and they may be numbers in
            one file and text in another.

    Returns:
        `(table, warnings)`: an Ibis table and a list of text.

    Raises:
        ValueError: If there is no such file, it is empty or it cannot be read, or the types of a column have no common
            one.
    """
    found = find_files(path, argument)
    warnings = []
    if found.left_out:
        names = ", ".join(str(file.relative_to(found.root)) for file in found.left_out[:FEW])
        warnings.append(
            counted(len(found.left_out), f"files in {path} are not of a table and were left out, such as {names}")
        )
    if found.is_csv:
        file = engine.scratch() / "csv.parquet"
        with engine.local() as con:
            warnings += csv_to_parquet(con, found, file, argument, ids)
        found = TableFiles(found.root, [file], is_csv=False, partitions={})
    types, parts = unify(found.files, argument, ids=ids)
    spans = [name for name, dtype in types.items() if pa.types.is_duration(dtype) or pa.types.is_time(dtype)]
    for name in spans:  # engines read them as numbers, whatever their unit
        warnings.append(
            f"the column {name!r} of {argument} is a {types.pop(name)} and was left out; write it as a number"
        )
    for name, dtype in types.items():
        if pa.types.is_null(dtype):
            rest = ": a feature that is always missing" if argument in TABLES and name not in ids else ""
            warnings.append(f"the column {name!r} of {argument} holds nothing but nulls{rest}")
            types[name] = pa.float64()
    check_spelling([*types, *found.partitions], argument, found.root)
    root = found.root if found.partitions else None
    try:
        tables = [
            _cast(engine, engine.read_parquet(paths, root), own, types, found.partitions, argument, paths[0])
            for own, paths in parts
        ]
        table = tables[0] if len(tables) == 1 else engine.view(_join(tables))
        is_empty = engine.execute(table.limit(1).count()) == 0
    except engine.errors as error:
        raise ValueError(f"`{argument}` must be readable as one table. Received: {path}: {error}") from error
    if is_empty:
        raise ValueError(f"`{argument}` must have at least one row. Received: {path} with 0 rows")
    table = table.drop(*(name for name in table.columns if re.fullmatch(r"__index_level_\d+__", name)))  # of pandas
    return table.mutate(
        **{n: table[n].cast(kind_of(texts, n in ids)) for n, texts in found.partitions.items()}
    ), warnings


def _cast(
    engine: Engine,
    table: ibis.Table,
    own: Mapping[str, pa.DataType],
    types: Mapping[str, pa.DataType],
    partitions: Iterable[str],
    argument: str,
    file: Path,
) -> ibis.Table:
    """The table of some files with the columns, in the order and of the types of all.

    Raises:
        ValueError: If a whole number is too large to be exact in the common type.
    """
    columns = {}
    for name, target in types.items():
        source = own[name]
        value = table[name]
        if pa.types.is_null(source):
            value = ibis.null(PyArrowType.to_ibis(target))
        elif source != target:
            if needs_bound(source, target):
                _check_bound(engine, table, name, argument, source, target, file)
            value = value.cast("timestamp" if target == TIME else PyArrowType.to_ibis(target))
        columns[name] = value
    named = {urllib.parse.unquote(name): table[name] for name in table.columns if name not in own}
    return table.select(**columns, **{name: named[name] for name in partitions})


def _join(tables: Sequence[ibis.Table]) -> ibis.Table:
    """Several tables below one another; engines may call one type by several names."""
    first, *others = tables
    if not others:
        return first
    schema = first.schema()
    return ibis.union(
        first, *(table.cast({n: schema[n] for n in schema if table[n].type() != schema[n]}) for table in others)
    )


def _check_bound(
    engine: Engine, table: ibis.Table, name: str, argument: str, source: pa.DataType, target: pa.DataType, file: Path
) -> None:
    value = table[name]
    if engine.execute(((value > WHOLE) | (value < -WHOLE)).sum()):
        raise ValueError(
            f"`{argument}` must have one type for each column; write the column alike in all files. Received: column "
            f"{name!r} is {source} in {file}, with numbers above 2**53, and {target} in another file"
        )


def kind_of(texts: Iterable[str | None], is_id: bool) -> dt.DataType:
    """The Ibis type of the values in the names of folders: whole numbers and dates if all are, text otherwise.

    >>> [str(kind_of(texts, False)) for texts in (["1", None], ["01"], ["2024-03-01"])]
    ['int64', 'string', 'date']
    """
    known = [text for text in texts if text is not None]
    if is_id or not known:
        return dt.string
    if all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", text) for text in known):
        return dt.int64
    if all(_is_date(text) for text in known):
        return dt.date
    return dt.string


def _is_date(text: str) -> bool:
    try:
        return text == datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        return False

"""CSV files as one Parquet file: columns by their names, types by all lines.

A CSV file has no types. All values are read as text, and a column gets the narrowest type that every one of them has:
no type is guessed from the first lines. That takes one more pass, which looks only for types that the first lines
have not ruled out; the values are then written once as Parquet, and all later passes read that.
With 3 million lines of seven columns on 2 cores the pass takes 0.65 s and writing 1.0 s, where one reading of the file
with guessed types takes 0.45 s, and `prepare` read it seven times.
"""

import csv
import dataclasses
import gzip
import io
import os
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import duckdb

from tfmtr.datasets.column_types import check_spelling
from tfmtr.datasets.files import TableFiles
from tfmtr.datasets.report import counted

DELIMITERS = ",\t;|"
HEAD = 1 << 20  # characters in which a header and the way of quoting are looked for
SAMPLE = 10_000  # lines that may rule types out before all are looked at
UNNAMED = "\x1f"  # begins the name of a column that has none, such as the row numbers that pandas writes
MOSTLY = 0.5  # a text column is worth a warning if so large a share of its values are numbers

# Conditions on a value under which it is of a type, the narrowest first. A whole number is written as DuckDB writes it:
# "007", "+7" and "7.0" are not. A float may have neither a leading zero, which a code has, such as a postcode, nor 17
# digits before the point, which would not be exact.
NUMBER = "try_cast({0} AS DOUBLE)"
CONDITIONS = {
    "BIGINT": "try_cast({0} AS BIGINT)::VARCHAR = trim({0})",
    "DOUBLE": NUMBER + " IS NOT NULL AND NOT regexp_matches({0}, '^\\s*[+-]?(0[0-9]|[0-9]{{17}})|_')",
    "BOOLEAN": "lower({0}) IN ('true', 'false')",
    "DATE": "try_cast({0} AS DATE) IS NOT NULL AND regexp_full_match({0}, '\\d{{4}}-\\d{{2}}-\\d{{2}}')",
    "TIMESTAMP": "try_cast({0} AS TIMESTAMPTZ) IS NOT NULL AND regexp_matches({0}, '^\\d{{4}}[-/]')",
}
WHOLE = "regexp_full_match({0}, '-?([1-9][0-9]*|0|([1-9][0-9]{{0,14}}|0)[.]0)')"  # pandas writes 7.0 beside a null


@dataclasses.dataclass(frozen=True)
class Form:
    """How a file is written.

    Args:
        delimiter: Between the values.
        escape: Before a quote inside quotes: a quote or a backslash.
        columns: Names in the header.
    """

    delimiter: str
    escape: str
    columns: tuple[str, ...]


def csv_to_parquet(
    con: duckdb.DuckDBPyConnection, found: TableFiles, out: Path, argument: str, ids: Collection[str]
) -> list[str]:
    """Writes the CSV files of a table as one Parquet file.

    Args:
        con: A DuckDB connection.
        found: A `TableFiles` of CSV files.
        out: Path of the Parquet file.
        argument: What the table is called in messages.
        ids: Columns that are ids: their values stay as they are written, but whole floats.

    Returns:
        Warnings, a list of text.

    Raises:
        ValueError: If a file is not UTF-8, a line has another number of values than the header, or files have other
            columns.
    """
    forms = {}
    for file in found.files:
        forms.setdefault(read_form(file, argument), []).append(file)
    names = _names(forms, found, argument)
    rows = " UNION ALL ".join(
        f"SELECT {', '.join(map(quoted, names))} FROM {scan(form, files, bool(found.partitions))}"
        for form, files in forms.items()
    )
    try:
        types = decide_types(con, rows, names, ids)
        columns = [f"{_cast(name, dtype)} AS {quoted(name)}" for name, dtype in types.items()]
        con.execute(f"COPY (SELECT {', '.join(columns)} FROM ({rows})) TO {literal(out)} (FORMAT parquet)")
    except duckdb.Error as error:
        raise ValueError(_message(error, found, argument)) from error
    texts = [name for name, dtype in types.items() if dtype == "VARCHAR" and name not in ids]
    floats = [name for name, dtype in types.items() if dtype == "WHOLE"]
    return (
        _unnamed(forms)
        + _almost_numbers(con, rows, texts, forms, argument)
        + _whole_floats(con, rows, floats, argument)
    )


def read_form(file: Path, argument: str) -> Form:
    """The `Form` of a file, from its header: the delimiter that parts it into most columns.

    Raises:
        ValueError: If the file is not UTF-8, or has no header.
    """
    try:
        with open_text(file) as text:
            head = text.read(HEAD)
    except UnicodeDecodeError as error:
        raise ValueError(f"`{argument}` must be UTF-8; write the file so. Received: {file}: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"`{argument}` must be readable; write the file again. Received: {file}: {error}") from error
    if "\0" in head:
        raise ValueError(f"`{argument}` must be UTF-8; write the file so. Received: {file}, which has null characters")
    try:
        headers = {one: next(csv.reader(io.StringIO(head), delimiter=one), []) for one in DELIMITERS}
    except csv.Error as error:
        raise ValueError(
            f"`{argument}` must have a header and lines that end in a line feed. Received: {file}: {error}"
        ) from error
    if not any(headers.values()):
        raise ValueError(f"`{argument}` must have the names of its columns in the first line. Received: {file}")
    delimiter = max(DELIMITERS, key=lambda one: len(headers[one]))
    columns = [name if name.strip() else f"{UNNAMED}{place}" for place, name in enumerate(headers[delimiter])]
    return Form(delimiter, "\\" if re.search(r'[^"]\\"', head) and '""' not in head else '"', tuple(columns))


def open_text(file: Path) -> TextIO:
    """Opens a file, also a compressed one, as UTF-8 without its byte order mark."""
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    return opened(file, "rt", encoding="utf-8-sig", newline="")


def scan(form: Form, files: Iterable[Path], has_partitions: bool) -> str:
    """DuckDB's expression that reads files as text."""
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in form.columns)
    return (
        f"read_csv([{', '.join(literal(as_pattern(file)) for file in files)}], auto_detect = false, header = true, "
        f"delim = {literal(form.delimiter)}, quote = '\"', escape = {literal(form.escape)}, columns = {{{columns}}}, "
        f"hive_partitioning = {str(has_partitions).lower()}"
        + (", hive_types_autocast = false)" if has_partitions else ")")
    )


def decide_types(
    con: duckdb.DuckDBPyConnection, rows: str, names: Sequence[str], ids: Collection[str]
) -> dict[str, str]:
    """`{column: DuckDB's type}`: the first of `CONDITIONS` that all values of a column meet, text if there is none.

    Ids are text, or `"WHOLE"` where all are whole numbers, some perhaps written as floats.
    """
    candidates = {name: [] if name in ids else list(CONDITIONS) for name in names}
    for limit in (f" LIMIT {SAMPLE}", ""):
        checks = [(name, dtype) for name, dtypes in candidates.items() for dtype in dtypes]
        checks += [(name, None) for name in names if name in ids]
        parts = [
            "coalesce(bool_and({0} IS NULL OR coalesce({1}, false)), true), count({0})".format(
                quoted(name), (CONDITIONS[dtype] if dtype else WHOLE).format(quoted(name))
            )
            for name, dtype in checks
        ]
        query = f"SELECT {', '.join(parts)} FROM (SELECT * FROM ({rows}){limit})"
        result = con.execute(query).fetchone() if parts else ()
        met = dict(zip(checks, zip(result[::2], result[1::2], strict=True), strict=True))
        candidates = {name: [dtype for dtype in dtypes if met[name, dtype][0]] for name, dtypes in candidates.items()}
    types = {}
    for name in names:
        if name in ids:
            holds, count = met[name, None]
            types[name] = "WHOLE" if holds and count else "VARCHAR"
        else:  # a column without a value has them all, and is text
            left = candidates[name]
            types[name] = left[0] if left and met[name, left[0]][1] else "VARCHAR"
    return types


def quoted(name: str) -> str:
    """A name in DuckDB's quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """A text in DuckDB's quotes."""
    return "'" + str(text).replace("'", "''") + "'"


def as_pattern(path: str | os.PathLike) -> str:
    """A path as DuckDB takes it, which reads names as patterns: one that matches this path alone."""
    return re.sub(r"[\[*?]", r"[\g<0>]", str(path))


def _names(forms: Mapping[Form, list[Path]], found: TableFiles, argument: str) -> list[str]:
    """Columns of all files, in the order of the first one."""
    (first, (file, *_)), *others = forms.items()
    for form, (other, *_) in others:
        if names := set(form.columns) ^ set(first.columns):
            headless = file if any(map(_is_number, first.columns)) else other
            is_like = set(form.columns) & set(first.columns)
            hint = "" if is_like else f"; the header line of {headless} seems to be missing"
            raise ValueError(
                f"`{argument}` must have the same columns in every file. Received: {other} differs from {file} in "
                f"{sorted(names)}{hint}"
            )
    for form, (other, *_) in forms.items():
        check_spelling(form.columns, argument, other)
    check_spelling([*first.columns, *found.partitions], argument, found.root)
    return [name for name in [*first.columns, *found.partitions] if not name.startswith(UNNAMED)]


def _unnamed(forms: Mapping[Form, list[Path]]) -> list[str]:
    count = sum(name.startswith(UNNAMED) for name in next(iter(forms)).columns)
    return [counted(count, "columns without a name were left out")] if count else []


def _cast(name: str, dtype: str) -> str:
    if dtype == "TIMESTAMP":  # what has an offset becomes UTC
        return f"({quoted(name)}::TIMESTAMPTZ AT TIME ZONE 'UTC')::TIMESTAMP"
    if dtype == "WHOLE":
        return f"regexp_replace({quoted(name)}, '[.]0$', '')"
    return f"{quoted(name)}::{dtype}"


def _message(error: duckdb.Error, found: TableFiles, argument: str) -> str:
    """DuckDB's error about a line, in one."""
    text = str(error)
    line, file = re.search(r"CSV Error on Line: (\d+)", text), re.search(r"^\s*file = (.+)$", text, re.M)
    what = re.search(r"^(Expected Number of Columns.*|.*unicode.*|.*unterminated.*)$", text, re.M | re.IGNORECASE)
    if not line:
        return f"`{argument}` must be readable as one table. Received: {found.root}: {text}"
    where = f"line {line[1]} of {file[1] if file else found.root}"
    return (
        f"`{argument}` must have as many values in each line as the header, in UTF-8, with values that hold the "
        f"delimiter in double quotes. Received: {where}: {what[0].strip() if what else text.splitlines()[0]}"
    )


def _almost_numbers(
    con: duckdb.DuckDBPyConnection, rows: str, names: Sequence[str], forms: Mapping[Form, list[Path]], argument: str
) -> list[str]:
    """Warnings about text columns most of whose values are numbers: the first value that is none, and its place."""
    if not names:
        return []
    parts = [f"count({quoted(name)}), count({NUMBER.format(quoted(name))})" for name in names]
    counts = con.execute(f"SELECT {', '.join(parts)} FROM ({rows})").fetchone()
    return [
        f"{count - numbers} of {count} values of the column {name!r} of {argument} are no numbers, so it is text: "
        f"{_first_text(name, forms)}"
        for name, count, numbers in zip(names, counts[::2], counts[1::2], strict=True)
        if MOSTLY * count <= numbers < count
    ]


def _whole_floats(con: duckdb.DuckDBPyConnection, rows: str, names: Iterable[str], argument: str) -> list[str]:
    """Warnings about ids that were written as floats."""
    warnings = []
    for name in names:
        query = f"SELECT count(*), min({quoted(name)}) FROM ({rows}) WHERE {quoted(name)} LIKE '%.0'"
        [(count, first)] = con.execute(query).fetchall()
        if count:
            warnings.append(counted(count, f"ids of the column {name!r} of {argument} lost the .0, such as {first}"))
    return warnings


def _first_text(name: str, forms: Mapping[Form, list[Path]]) -> str:
    """`"'unknown' in line 7 of a.csv"`: the first value of a column that is no number."""
    for form, files in forms.items():
        for file in files:
            with open_text(file) as text:
                options: dict[str, Any] = {"delimiter": form.delimiter}
                if form.escape == "\\":
                    options |= {"escapechar": "\\", "doublequote": False}
                place, lines = form.columns.index(name), csv.reader(text, **options)
                next(lines)
                for line in lines:
                    if len(line) > place and line[place] and not _is_number(line[place]):
                        return f"{line[place]!r} in line {lines.line_num} of {file}"
    return "in the name of a folder"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

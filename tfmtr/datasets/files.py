"""Which files a table is made of, and what the names of their folders say."""

import dataclasses
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SUFFIXES = {"parquet": (".parquet",), "csv": (".csv", ".csv.gz")}
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # how Hive and Spark write a null in the name of a folder


@dataclasses.dataclass(frozen=True)
class TableFiles:
    """The files of one table.

    Args:
        root: What was named: a file, or the folder that `files` lie under.
        files: Paths, sorted; at least one.
        is_csv: Whether they are CSV files; Parquet files otherwise.
        partitions: `{column: its texts, None for a null}` of folders that are named `column=value`.
        left_out: Files under `root` that are no tables, by their names; hidden ones are not counted.
    """

    root: Path
    files: Sequence[Path]
    is_csv: bool
    partitions: Mapping[str, Sequence[str | None]]
    left_out: Sequence[Path] = ()


def find_files(path: str | os.PathLike, argument: str) -> TableFiles:
    """The files of a table: one file, or all of a folder and of the folders in it.

    Files and folders whose names begin with a dot or an underscore are left out, as Hive and Spark leave them out: they
    are not committed, or no data. A folder `_column=value` is a partition and stays.

    Args:
        path: File or folder.
        argument: What the table is called in messages.

    Returns:
        A `TableFiles`.

    Raises:
        ValueError: If there is no file, a file is empty, the files are of two formats, or folders disagree about the
            columns in their names.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(
            f"`{argument}` must be a Parquet or CSV file or a folder of them. Received: {path}, which is missing"
        )
    inside = [path] if path.is_file() else sorted(_walk(path, argument))
    found = {kind: [f for f in inside if f.name.lower().endswith(suffixes)] for kind, suffixes in SUFFIXES.items()}
    if path.is_file() and not any(found.values()):
        raise ValueError(f"`{argument}` must be a file or folder of .parquet, .csv or .csv.gz. Received: {path}")
    if not any(found.values()):
        raise ValueError(
            f"`{argument}` must be a file or folder of .parquet, .csv or .csv.gz; names that begin with a dot or an "
            f"underscore do not count. Received: {path}, which has none"
        )
    if all(found.values()):
        raise ValueError(
            f"`{argument}` must be of one format; move the files of the other one away. Received: "
            f"{found['parquet'][0]} and {found['csv'][0]}"
        )
    files = found["parquet"] or found["csv"]
    for file in files:
        if str(file).encode(errors="replace").decode() != str(file):
            raise ValueError(f"`{argument}` must be files with names in UTF-8; rename it. Received: {str(file)!r}")
        if file.stat().st_size == 0:
            raise ValueError(
                f"`{argument}` must not hold an empty file; delete or rewrite it. Received: {file} of 0 bytes"
            )
    partitions = {} if path.is_file() else _partitions(path, files, argument)
    return TableFiles(path, files, bool(found["csv"]), partitions, [f for f in inside if f not in set(files)])


def _walk(root: Path, argument: str) -> Iterator[Path]:
    """All files under a folder that are not hidden, also of linked folders.

    Raises:
        ValueError: If a link leads nowhere, or to what is there already.
    """
    seen = {}
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden(Path(name))]
        for path in (Path(folder, name) for name in [".", *names]):
            if _is_hidden(Path(path.name)):
                continue
            real = path.resolve()
            if not real.exists():
                raise ValueError(f"`{argument}` must hold no link that leads nowhere; remove it. Received: {path}")
            if real in seen:
                raise ValueError(
                    f"`{argument}` must hold every file once; remove the link. Received: {path}, which is {seen[real]}"
                )
            seen[real] = path
            if real.is_file():
                yield path


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in path.parts)


def _partitions(root: Path, files: Sequence[Path], argument: str) -> dict[str, list[str | None]]:
    values, columns = {}, None
    for file in files:
        own = {}
        for part in file.relative_to(root).parts[:-1]:
            column, equals, text = part.partition("=")
            if equals and column:
                if urllib.parse.unquote(column) in own:
                    raise ValueError(
                        f"`{argument}` must have folders of different names above a file. Received: {file}, with "
                        f"{column} twice"
                    )
                own[urllib.parse.unquote(column)] = None if text == NO_VALUE else urllib.parse.unquote(text)
        columns = list(own) if columns is None else columns
        if list(own) != columns:
            raise ValueError(
                f"`{argument}` must have folders of the same names in the same order, such as day=2024-03-01, or none. "
                f"Received: {files[0]} with {columns}, {file} with {list(own)}"
            )
        for column, text in own.items():
            values.setdefault(column, {})[text] = None
    return {column: list(texts) for column, texts in values.items()}

"""Folders that one step leaves and the next one takes: their paths, and the format they are written in."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmtr.checks import check_path

# What this version writes. An older folder without a number is of format 1, and is read as far as it goes.
FORMATS = {"data": 2, "run": 3, "version": 2, "service": 2, "search": 2}
MADE_BY = {
    "data": "tfmtr prepare",
    "run": "tfmtr train",
    "version": "tfmtr export",
    "service": "tfmtr daily --start",
    "search": "tfmtr tune",
}
MARKS = {
    "data": "prepare.json",
    "run": "run.json",
    "version": "saved_model.pb",
    "service": "service.json",
    "search": "search.json",
}
KEYS: dict[str, dict[str, type]] = {  # without which nothing can be done with a folder, and what they are
    "data": {"fingerprint": str, "windows": list},
    "run": {"recipe": dict, "fingerprint": str, "run_id": str, "data": str},
    "version": {"run_id": str, "fingerprint": str},
    "service": {},
    "search": {"study": str, "fingerprint": str},
}
OTHERS: dict[str, dict[str, type]] = {"run": {"stages": dict, "versions": dict, "windows": list, "listwise": dict}}


def as_path(kind: str, path: str | os.PathLike) -> Path:
    """The path of a folder of a kind of `MARKS`.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"`{kind}` must be a directory made by `{MADE_BY[kind]}`. Received: {kind}={path!r}")
    return check_path(kind, path)


class Folder(os.PathLike):
    """What has a path: it can stand wherever the path can.

    Attributes:
        path: The directory.
    """

    path: Path

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.path.absolute() == self.path.absolute()

    def __hash__(self) -> int:
        return hash(self.path.absolute())

    def __truediv__(self, name: str | os.PathLike) -> Path:
        return self.path / name

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.path.name

    @property
    def parent(self) -> Path:
        """The directory that it is in."""
        return self.path.parent


def check_format(kind: str, document: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Raises a `ValueError` if a folder is of a newer version of this package, or its document is not what it must be.

    Args:
        kind: Key of `FORMATS`.
        document: The folder's document; without `format` it is of format 1.
        path: The folder.

    Example:
    >>> check_format("version", {"run_id": "a", "fingerprint": "b"}, "saved_models/a/1")
    >>> check_format("run", {"format": 9}, "runs/a")
    Traceback (most recent call last):
    ValueError: `runs/a` must be of format 3 or older, which this version reads: install a newer tfmtr, or make it
    anew with `tfmtr train`. Received: format 9
    """
    stored_format = document.get("format", 1)
    if not isinstance(stored_format, int) or isinstance(stored_format, bool) or not 1 <= stored_format <= FORMATS[kind]:
        raise ValueError(
            f"`{os.fspath(path)}` must be of format {FORMATS[kind]} or older, which this version reads: install a "
            f"newer tfmtr, or make it anew with `{MADE_BY[kind]}`. Received: format {stored_format}"
        )
    if missing := [key for key in KEYS[kind] if key not in document]:
        raise ValueError(
            f"`{os.fspath(path)}` must be a folder as `{MADE_BY[kind]}` leaves it; make it anew. Received: a document "
            f"without {missing}"
        )
    kinds = KEYS[kind] | OTHERS.get(kind, {})
    wrong = [key for key, of in kinds.items() if key in document and not isinstance(document[key], of)]
    if wrong:
        raise ValueError(
            f"`{os.fspath(path)}` must be a folder as `{MADE_BY[kind]}` leaves it; make it anew. Received: "
            f"{', '.join(f'{key}={document[key]!r}' for key in wrong)}"
        )


def check_out(path: str | os.PathLike, kind: str | None = None) -> None:
    """Raises a `ValueError` if there is a folder of another kind where a step is to write.

    Args:
        path: The folder; may not exist.
        kind: Key of `MARKS` that it may be of.
    """
    for other, mark in MARKS.items():
        if other != kind and Path(path, mark).exists():
            raise ValueError(
                f"`out` must be a folder of its own, for what is there would be overwritten or mixed with the new; "
                f"choose another one. Received: {os.fspath(path)}, which `{MADE_BY[other]}` made (it has {mark})"
            )

"""JSON files that are there as a whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def read_json(file: Path) -> dict[str, Any] | None:
    """A JSON document, or `None` where there is no such file.

    Raises:
        ValueError: If the file is no JSON object; the message has its path.
    """
    if not file.is_file():
        return None
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # also of bytes that are no UTF-8
        raise ValueError(f"`{file}` must be a whole JSON document; make it again. Received: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"`{file}` must hold a JSON object; make it again. Received: {json.dumps(document)[:80]}")
    return document


def read_facts(version: Path) -> dict[str, Any] | None:
    """What `tfmtr export` wrote about a version, from the version's directory; `None` for another tool's SavedModel."""
    return read_json(version / "assets.extra" / "tfmtr.json")


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    """Writes a JSON document under a temporary name and renames it."""
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a temporary path beside a file, which takes the file's place at the end; it is removed if there is none."""
    temporary = file.with_suffix(".tmp")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, file)

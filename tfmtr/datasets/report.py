"""What `prepare` tells about its work: counts, warnings, label means, and the fingerprint of what it wrote."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmtr.folders import FORMATS
from tfmtr.schema import Task

if TYPE_CHECKING:
    from tfmtr.datasets.discovery import Window
    from tfmtr.datasets.logs import Logs

PARTITIONS = ("split", "sampling", "window")
SINGULAR = {"are": "is", "were": "was", "have": "has", "live": "lives", "lie": "lies"}
PACKAGES = ("duckdb", "ibis-framework", "numpy", "pyarrow", "scikit-learn")


def counted(number: int, text: str) -> str:
    """A number and a text that begins with a noun in the plural: for 1, noun and verbs are in the singular.

    Verbs are those of `SINGULAR`, between blanks, before the first colon and not in a clause `that ...`.

    >>> counted(1, "events of titles that are not in the table were dropped"), counted(2, "users")
    ('1 event of titles that are not in the table was dropped', '2 users')
    """
    if number != 1:
        return f"{number} {text}"
    head, colon, tail = text.partition(":")
    noun, blank, rest = head.partition(" ")
    noun = noun.removesuffix("ies") + "y" if noun.endswith("ies") else noun.removesuffix("s")
    verb = rf"(?<![^ ])(?<!that )({'|'.join(SINGULAR)})(?= )"
    return f"1 {noun}{blank}{re.sub(verb, lambda match: SINGULAR[match[0]], rest)}{colon}{tail}"


def sum_counts(counts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Adds up the counts of all buckets.

    Args:
        counts: List of dictionaries with `PARTITIONS` and numbers.

    Returns:
        One dictionary for each split, sampling and window, sorted.

    Example:
    >>> part = {"split": "test", "sampling": "random", "window": 1}
    >>> sum_counts([{**part, "rows": 11}, {**part, "rows": 22}])
    [{'split': 'test', 'sampling': 'random', 'window': 1, 'rows': 33}]
    """
    sums = collections.defaultdict(collections.Counter)
    for row in counts:
        key = tuple(row[name] for name in PARTITIONS)
        sums[key].update({name: value or 0 for name, value in row.items() if name not in PARTITIONS})
    return [{**dict(zip(PARTITIONS, key, strict=True)), **sums[key]} for key in sorted(sums)]


def shortfall(counts: Sequence[Mapping[str, Any]], negatives: str) -> list[str]:
    """A warning about the negatives that could not be found.

    Args:
        counts: List from `sum_counts` with `rows`, `positives` and `wanted`.
        negatives: The option of `prepare`.

    Returns:
        List of one text, or an empty list.

    Example:
    >>> part = {"split": "test", "sampling": "random", "window": 1, "positives": 2, "wanted": 20}
    >>> shortfall([{**part, "rows": 22}, {**part, "rows": 10, "window": 2}], "both")
    ['12 of 40 negatives could not be found (worst: test/random/2, 12 of 20); ask for fewer with `--alpha`']
    """
    lacking = [(row["wanted"] - row["rows"] + row["positives"], row) for row in counts]
    count, wanted = sum(max(0, number) for number, _ in lacking), sum(row["wanted"] for row in counts)
    if not count:
        return []
    most, row = max(lacking, key=lambda pair: pair[0])
    worst = f"{'/'.join(str(row[name]) for name in PARTITIONS)}, {most} of {row['wanted']}"
    hint = "ask for fewer with `--alpha`"
    if negatives == "logged":
        hint = "`--negatives both` fills them up with sampled ones"
    return [f"{count} of {wanted} negatives could not be found (worst: {worst}); {hint}"]


def check_negatives(counts: Sequence[Mapping[str, Any]], negatives: str, num_titles: int) -> None:
    """Raises a `ValueError` that says what to do if no training row is a negative.

    Args:
        counts: List from `sum_counts` with `rows` and `positives`.
        negatives: The option of `prepare`.
        num_titles: Number of titles.
    """
    training = [row for row in counts if row["split"] == "train" and row["window"] <= 0]
    if any(row["rows"] > row["positives"] for row in training):
        return
    hint = "say in `availability` (`--availability`) which more titles users could have had"
    if negatives == "logged":
        hint = 'log what was shown, or pass `negatives="both"` (`--negatives both`)'
    raise ValueError(
        "`events` must leave titles that users did not have, or there are no negatives in the training windows to "
        f"learn from; {hint}. Received: {sum(row['positives'] for row in training)} positives, of {num_titles} titles"
    )


def describe_tasks(
    tasks: Mapping[str, str], after: Mapping[str, str], counts: Sequence[Mapping[str, Any]]
) -> list[Task]:
    """The tasks with the mean label of the random training rows.

    Args:
        tasks: `{task: kind}`.
        after: `{task: the task it follows}`.
        counts: List from `sum_counts` with `sum_<task>` and `known_<task>`.

    Returns:
        List of `Task`.
    """
    training = [r for r in counts if r["split"] == "train" and r["sampling"] == "random" and r["window"] <= 0]
    described = []
    for task, kind in tasks.items():
        total, known = (sum(row[f"{what}_{task}"] for row in training) for what in ("sum", "known"))
        mean = float(f"{total / known:.9g}") if known else (0.5 if kind == "binary" else 0.0)
        described.append(Task(task, kind=kind, mean=mean, after=after.get(task)))  # pyright: ignore[reportArgumentType]
    return described


def build_report(
    logs: Logs,
    options: Mapping[str, Any],
    windows: Sequence[Window],
    counts: Sequence[Mapping[str, Any]],
    territories: Mapping[str, Mapping[str, Any]],
    num_titles: int,
    warnings: list[str],
) -> dict[str, Any]:
    """The document `prepare.json`, but for the fingerprint.

    Args:
        logs: The `Logs`.
        options: Options of `prepare`.
        windows: List of `Window`.
        counts: List from `sum_counts`.
        territories: `{territory: {"group":, "users":, "events":, "positives":}}`.
        num_titles: Number of titles.
        warnings: List of text.

    Returns:
        Dictionary that JSON can hold.
    """
    packages = [*PACKAGES, *(["pyspark"] if options["engine"] == "spark" else [])]
    return {
        "format": FORMATS["data"],
        "windows": [{"window": w.number, "start": w.start.isoformat(), "end": w.end.isoformat()} for w in windows],
        "examples": count_examples(counts),
        "statistics": {
            "users": sum(row["users"] for row in territories.values()),
            "titles": num_titles,
            "events": sum(row["events"] for row in territories.values()),
            "territories": dict(sorted(territories.items())),
        },
        "warnings": warnings,
        "seed": options["seed"],
        "options": as_json(options),
        "logs": as_json(dataclasses.replace(logs, **{name: path.absolute() for name, path in logs.paths().items()})),
        "versions": {"python": sys.version.split()[0], **{name: metadata.version(name) for name in packages}},
    }


def count_examples(counts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What `prepare.json` says of rows from `sum_counts`: rows, positives and users of each split and window."""
    return [{name: row[name] for name in (*PARTITIONS, "rows", "positives", "users")} for row in counts]


def as_json(value: Any) -> Any:
    """Options as JSON can hold them: times and paths as text."""
    if dataclasses.is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (datetime.timedelta, datetime.datetime, Path)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    return value


def fingerprint(folder: Path) -> str:
    """SHA-256 over the sorted relative paths and the contents of all files of a folder but prepare.json.

    Args:
        folder: A prepared folder.

    Returns:
        64 hex digits.
    """
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "prepare.json"):
        with file.open("rb") as opened:
            total.update(
                f"{file.relative_to(folder).as_posix()}\n{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode()
            )
    return total.hexdigest()

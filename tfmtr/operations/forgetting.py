"""Removes a user from what this package wrote, and says what it cannot remove."""

# PyArrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import replacing, write_json
from tfmtr.operations.day_ranking import CANDIDATES, LATE_CANDIDATES
from tfmtr.operations.service import owned, read_live, read_service
from tfmtr.version import RANKING

LATE_ROWS = {"data": "late", CANDIDATES: LATE_CANDIDATES}  # of a day's folders
TABLES = ("users.parquet", "events.parquet", "seen.parquet")  # the last one of versions before `events.parquet`


def forget(
    user: str,
    *,
    service: str | os.PathLike | None = None,
    data: Sequence[str | os.PathLike] = (),
    embeddings: Sequence[str | os.PathLike] = (),
) -> list[str]:
    """Removes a user's rows from prepared directories and from written vectors.

    Of a store the row stays where others stand by their places, as zeros without an id. A file is replaced as a whole,
    so a second call after an interruption goes on. A prepared directory keeps its fingerprint, by which runs know it.

    Args:
        user: The user's id.
        service: Directory of a service: its days and the data that it began with.
        data: Further directories made by `tfmtr prepare`.
        embeddings: Directories made by `tfmtr embeddings`.

    Returns:
        Lines of text: what was removed, and what may still hold something of the user: models that were trained on the
        rows, and the log itself.

    Raises:
        ValueError: If nothing is named, or a directory is not what it must be.
    """
    user = str(user)
    if service is not None:
        read_service(service)
    with owned(Path(service)) if service is not None else contextlib.nullcontext():
        return _forget(user, service, data, embeddings)


def _forget(
    user: str,
    service: str | os.PathLike | None,
    data: Sequence[str | os.PathLike],
    embeddings: Sequence[str | os.PathLike],
) -> list[str]:
    folders = [Path(folder) for folder in data]
    if service is not None:
        settings = read_service(service)
        folders += [Path(settings["data"])]
        if RANKING in settings and settings[RANKING]["lists"] is not None:
            folders.append(Path(settings[RANKING]["data"]))
        days = Path(service)
        folders += [*sorted(days.glob("days/*/data*")), *sorted(days.glob(f"days/*/{CANDIDATES}"))]
    if not folders and not embeddings:
        raise ValueError("Name what to forget in: --service, --data or --embeddings. Received: none of them")
    lines, trained, known, logs = [], [], [], set()
    for folder in folders:
        prepared = Dataset(folder)
        count, learnt = _forget_prepared(user, prepared)
        lines.append(f"{folder}: {count} rows removed")
        if learnt:
            trained.append(folder)
        if any(user in feature.vocabulary for feature in prepared.schema.by_role("user") if feature.name == "user"):
            known.append(folder)
        tables = (prepared.report["logs"][name] for name in ("events", "users"))
        logs |= {str(Path(table).absolute()) for table in tables if table is not None}
    for folder in embeddings:
        files = sorted(Path(folder, "users").glob("*.parquet"))
        if not files:
            raise ValueError(f"`embeddings` must be made by `tfmtr embeddings`. Received: {folder}, which has no users")
        lines.append(f"{folder}: {sum(_drop(file, user) for file in files)} vectors removed; load the database again")
    if known:
        lines.append(
            f"ids: the user's id is a value of the feature 'user' in {', '.join(map(str, known))}; schema.json, runs "
            "and versions have it until the data are prepared and the model is trained anew"
        )
    return [*lines, *_remains(trained, service, logs)]


def _remains(trained: Sequence[Path], service: str | os.PathLike | None, logs: Iterable[str]) -> Iterator[str]:
    """What may still hold something of the user."""
    if trained:
        yield (
            f"models: rows of the user were trained on in {', '.join(map(str, trained))}; these models and all that "
            "went on from them may hold traces in their weights. Only a model trained anew without the rows holds none"
        )
        yield (
            "lists: versions that were exported before count the user's events in what is popular and what goes with "
            "what; the next day's version, and what `tfmtr index` makes, count without them"
        )
    if service is not None:
        live = read_live(service)
        began = min((folder.parent.name for folder in trained if folder.parent.parent.name == "days"), default="")
        if trained and (live["day"] or "") >= began:
            yield f"served: version {live['version']} of {live['day'] or 'the first run'} is one of them"
    for path in sorted(logs):
        yield f"log: remove the user from {path} too, or the next `tfmtr prepare` brings the rows back"


def _forget_prepared(user: str, prepared: Dataset) -> tuple[int, bool]:
    """Number of rows removed, and whether some of them were trained on."""
    count, learnt = 0, False
    late = sorted(prepared.path.parent.glob(f"{LATE_ROWS.get(prepared.path.name, 'no')}/*.parquet"))
    for file in [*prepared.path.glob("*/split=*/sampling=*/window=*/*.parquet"), *late]:
        dropped = _drop(file, user)
        count += dropped
        learnt |= bool(dropped) and ("split=train" in file.parts or file in late)
    count += sum(_drop(prepared.path / name, user) for name in TABLES if (prepared.path / name).is_file())
    folder = prepared.path / "vectors" / "user"
    if folder.is_dir():
        count += _clear(folder, user)
    if count:
        report = prepared.report
        write_json(prepared.path / "prepare.json", {**report, "forgotten": report.get("forgotten", 0) + 1})
    return count, learnt


def _drop(file: Path, user: str) -> int:
    """Removes a user's rows from a Parquet file, row group by row group; returns how many there were."""
    source = pq.ParquetFile(file)
    place = source.schema_arrow.names.index("user")
    statistics = [source.metadata.row_group(i).column(place).statistics for i in range(source.num_row_groups)]
    if all(s is not None and s.has_min_max and not s.min <= user <= s.max for s in statistics):
        return 0
    if not any(pc.any(pc.equal(batch["user"], user)).as_py() for batch in source.iter_batches(columns=["user"])):
        return 0
    count = 0
    with (
        replacing(file) as temporary,
        pq.ParquetWriter(temporary, source.schema_arrow, compression="zstd") as writer,
    ):
        for i in range(source.num_row_groups):
            table = source.read_row_group(i)
            kept = table.filter(pc.not_equal(table["user"], user))
            count += len(table) - len(kept)
            if len(kept):
                writer.write_table(kept, row_group_size=len(kept))
    return count


def _clear(folder: Path, user: str) -> int:
    """Makes a user's rows of a store zeros without an id; returns how many there were."""
    ids = pq.read_table(folder / "ids.parquet")
    rows = np.flatnonzero(pc.equal(ids["user"], user).to_numpy(zero_copy_only=False))
    if not len(rows):
        return 0
    vectors = np.load(folder / "vectors.npy", mmap_mode="r+")
    vectors[rows] = 0
    vectors.flush()
    column = pc.if_else(pc.equal(ids["user"], user), pa.scalar(None, pa.string()), ids["user"])
    with replacing(folder / "ids.parquet") as temporary:
        pq.write_table(ids.set_column(ids.column_names.index("user"), "user", column), temporary, compression="zstd")
    return len(rows)

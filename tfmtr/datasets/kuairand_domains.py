"""KuaiRand-Pure as three domains and two tasks: the app's tab 0, tab 1 and all others; click and long view.

A like is a third task on demand.

A row is one impression of the standard log. What happened after it (`long_view`, `play_time_ms`, the stay times,
every `is_*`) is a label or nothing, never an input. The video statistics table is not read at all: its
counts cover an undated period that may hold the test rows. Inputs are ids, the user's coded features (`onehot_feat*`
and `*_range`), author, kinds of video, upload and music, the first tag, the video's duration and the domain.

The published figures for this data set cannot be reproduced from a part of the log. Their Table 1 has 2,507,666
rows, more than the whole standard log (1,436,609), so it must hold rows of the random log too.

Reference: Gao et al., KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos, CIKM
2022, https://doi.org/10.1145/3511808.3557624, https://kuairand.com/; domains and tasks as in Zhang et al., M3oE,
SIGIR 2024, https://doi.org/10.1145/3626772.3657686.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtr.datasets.domains import Protocol, look_up, split_rows, write_rows
from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.labels import parse_label
from tfmtr.datasets.log_tables import check_columns
from tfmtr.datasets.logs import Logs
from tfmtr.datasets.reading import read_table

DOMAINS = {0: "1", 1: "2"}  # tab -> domain, numbered as in the paper: the second is by far the largest
OTHERS = "3"
TASKS = {"click": "is_click", "long_view": "long_view"}
LIKE = {"like": "is_like"}  # too rare for a figure of each domain
USER = ("follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range")
USER += tuple(f"onehot_feat{i}" for i in range(18))
VIDEO = ("author_id", "video_type", "upload_type", "music_type", "tag")

# Table -> pattern of its files and the columns that we take.
TABLES = {
    "log": ("log_standard*_pure.*", ("user_id", "video_id", "time_ms", "tab", "duration_ms")),
    "users": ("user_features_pure.*", ("user_id", *USER)),
    "videos": ("video_features_basic_pure.*", ("video_id", *VIDEO)),
}


def kuairand(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    protocol: Protocol = "time",
    seed: int = 0,
    tasks: Mapping[str, str] = MappingProxyType(TASKS),
) -> Logs:
    """Writes KuaiRand-Pure as labelled rows of three domains.

    Rows that repeat an earlier one are kept, as in the published log; a random split puts some of them on both sides.

    Args:
        source: Folder with the standard log and the tables of users and videos under their published names, Parquet
            or CSV; several files of the log are read in the order of their names.
        out: Folder for `rows.parquet` (in file order: `user`, `title`, `domain`, the label columns and `split`),
            `users.parquet` (`user` and the coded features) and `titles.parquet` (`title`, the videos' kinds and
            `duration_ms`); made if missing.
        protocol: Order in which rows are split 8:1:1; as for `split_rows`.
        seed: Of the random split.
        tasks: Labels of the log as `Logs` has them, `{task: "column"}` or `{task: "column:after=task"}`;
            `{**TASKS, **LIKE}` for three tasks.

    Returns:
        The `Logs`, for `tfmtr.prepare_rows`.

    Raises:
        ValueError: If a table or one of its columns is missing, a video has several durations, or `protocol` is
            unknown.
    """
    labels = [parse_label(task, text, tasks).column for task, text in tasks.items()]
    log = _read(Path(source), "log", labels)
    users, videos = (_read(Path(source), name) for name in ("users", "videos"))
    domain = pc.fill_null(pc.index_in(log["tab"], value_set=pa.array(DOMAINS, log["tab"].type)), len(DOMAINS))
    rows = {
        "user": _text(log["user_id"]),
        "title": _text(log["video_id"]),
        "domain": pa.array([*DOMAINS.values(), OTHERS]).take(domain),
        **{column: log[column].cast(pa.int8()) for column in labels},
        "split": split_rows(len(log), protocol=protocol, time=np.asarray(log["time_ms"]), seed=seed),
    }
    watchers, shown = pc.unique(log["user_id"]), pc.unique(log["video_id"])
    user, video = look_up(users, "user_id", watchers), look_up(videos, "video_id", shown)
    people = pa.table({"user": _text(watchers), **{name: _text(user[name]) for name in USER}})
    titles = {"title": _text(shown), **{name: _text(video[name]) for name in VIDEO}}
    titles["tag"] = pc.list_element(pc.split_pattern(titles["tag"], ","), 0)
    titles["duration_ms"] = _durations(log, shown)
    return write_rows(out, pa.table(rows), people, pa.table(titles), tasks)


def _durations(log: pa.Table, shown: pa.Array) -> pa.ChunkedArray:
    """The duration of each video that was shown, which every row of it says alike."""
    spans = log.group_by("video_id").aggregate([("duration_ms", "min"), ("duration_ms", "max")])
    wrong = spans.filter(pc.not_equal(spans["duration_ms_min"], spans["duration_ms_max"]))
    if len(wrong):
        raise ValueError(
            f"A video must have one duration. Received: {len(wrong)} with several, such as {wrong['video_id'][0]}"
        )
    return look_up(spans, "video_id", shown)["duration_ms_min"].cast(pa.float64())


def _read(folder: Path, name: str, more: Iterable[str] = ()) -> pa.Table:
    """The wanted columns of one table and more, rows in file order."""
    pattern, columns = TABLES[name]
    columns = (*columns, *more)
    files = sorted(folder.glob(pattern))
    if not files:
        there = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else "no such folder"
        raise ValueError(f"`source` must be a folder with {pattern} (.parquet or .csv). Received: {folder}: {there}")
    engine, parts = DuckDB(), []
    for file in files:
        part, _ = read_table(engine, file, name)
        for column in columns:
            check_columns(part, name, [column])
        parts.append(engine.to_pyarrow(part.select(*columns)))
    return pa.concat_tables(parts, promote_options="permissive")


def _text(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Codes as text; whole numbers without a decimal point, however the file stores them, and null as empty text."""
    if pa.types.is_floating(column.type):
        column = column.cast(pa.int64())
    return pc.fill_null(column.cast(pa.string()), "")

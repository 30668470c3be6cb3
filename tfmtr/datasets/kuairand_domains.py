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

from tfmtr.datasets.domains import Protocol, describe, look_up, split_rows
from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.log_tables import check_columns
from tfmtr.datasets.reading import read_table
from tfmtr.schema import Schema

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
    *,
    protocol: Protocol = "time",
    seed: int = 0,
    tasks: Mapping[str, str] = MappingProxyType(TASKS),
) -> tuple[pa.Table, Schema]:
    """Reads KuaiRand-Pure as one table of three domains.

    Rows that repeat an earlier one are kept, as in the published log; a random split puts some of them on both sides.

    Args:
        source: Folder with the standard log and the tables of users and videos under their published names, Parquet
            or CSV; several files of the log are read in the order of their names.
        protocol: Order in which rows are split 8:1:1; as for `split_rows`.
        seed: Of the random split.
        tasks: Label columns of the log by the tasks' names, `{task: column}`; `{**TASKS, **LIKE}` for three.

    Returns:
        `(table, schema)`: an Arrow table in file order with `user`, `title`, the coded features, `duration_ms`,
        `domain`, the label columns, and `split`; and its `Schema`.

    Raises:
        ValueError: If a table or one of its columns is missing, or `protocol` is unknown.
    """
    log = _read(Path(source), "log", tasks.values())
    users, videos = (_read(Path(source), name) for name in ("users", "videos"))
    user, video = look_up(users, "user_id", log["user_id"]), look_up(videos, "video_id", log["video_id"])
    domain = pc.fill_null(pc.index_in(log["tab"], value_set=pa.array(DOMAINS, log["tab"].type)), len(DOMAINS))
    columns = {
        "user": _text(log["user_id"]),
        **{name: _text(user[name]) for name in USER},
        "title": _text(log["video_id"]),
        **{name: _text(video[name]) for name in VIDEO},
        "duration_ms": log["duration_ms"].cast(pa.float64()),
        "domain": pa.array([*DOMAINS.values(), OTHERS]).take(domain),
        **{column: log[column].cast(pa.int8()) for column in tasks.values()},
    }
    columns["tag"] = pc.list_element(pc.split_pattern(columns["tag"], ","), 0)
    time = np.asarray(log["time_ms"])
    table = pa.table({**columns, "split": split_rows(len(log), protocol=protocol, time=time, seed=seed)})
    schema = describe(
        table,
        user=("user", *USER),
        title=("title", *VIDEO, "duration_ms"),
        numbers=("duration_ms",),
        tasks=tasks,
    )
    return table, schema


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


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Codes as text; whole numbers without a decimal point, however the file stores them, and null as empty text."""
    if pa.types.is_floating(column.type):
        column = column.cast(pa.int64())
    return pc.fill_null(column.cast(pa.string()), "")

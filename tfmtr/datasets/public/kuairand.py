"""KuaiRand-Pure: impressions of a short-video app, watched to the end or not.

A row of the standard log is an impression; the first task is `long_view`, so what was shown and not watched is a
logged negative. There are no territories. What happened after an impression (`play_time_ms`, the stay times, every
`is_*`) is a label or nothing, never an input; the table of video statistics, whose period is not dated, is not read.

Reference: Gao et al., KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos, CIKM
2022, https://doi.org/10.1145/3511808.3557624; https://kuairand.com/.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tfmtr.datasets.logs import Logs
from tfmtr.datasets.public._tables import read_columns, write_table

TASKS = {"long_view": "long_view", "click": "is_click", "like": "is_like", "follow": "is_follow"}
USER = ("follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range")
USER += tuple(f"onehot_feat{i}" for i in range(18))
VIDEO = ("author_id", "video_type", "upload_type", "music_type", "video_duration", "tag")


def kuairand(source: str | os.PathLike, out: str | os.PathLike) -> Logs:
    """Writes the three tables of KuaiRand-Pure and describes them.

    Args:
        source: Folder with the standard log (`log_standard*_pure.parquet`, one file or more),
            `user_features_pure.parquet` and `video_features_basic_pure.parquet`.
        out: Folder for `events.parquet`, `users.parquet` and `titles.parquet`; made if missing.

    Returns:
        The `Logs`, with the tasks `long_view`, `click`, `like` and `follow`, and windows that cover the log.

    Raises:
        ValueError: If a table is missing, damaged or empty, or lacks a column.
    """
    files = sorted(file.name for file in Path(source).glob("log_standard*_pure.parquet"))
    wanted = ("user_id", "video_id", "time_ms", *TASKS.values())
    log = pa.concat_tables(read_columns(source, file, wanted) for file in files or ["log_standard*_pure.parquet"])
    time = log["time_ms"].cast(pa.timestamp("ms"))
    users = read_columns(source, "user_features_pure.parquet", ("user_id", *USER))
    videos = read_columns(source, "video_features_basic_pure.parquet", ("video_id", *VIDEO))
    users = pa.table({"user_id": users["user_id"], **{name: _code(users[name]) for name in USER}})
    titles = {"video_id": videos["video_id"], **{name: _code(videos[name]) for name in VIDEO if name != "tag"}}
    titles["video_duration"] = videos["video_duration"].cast(pa.float64())
    titles["tag"] = pc.split_pattern(pc.fill_null(videos["tag"].cast(pa.string()), ""), ",")
    return Logs(
        events=write_table(log.drop_columns("time_ms").append_column("time", time), out, "events"),
        users=write_table(users, out, "users"),
        titles=write_table(pa.table(titles), out, "titles"),
        columns={"user": "user_id", "title": "video_id", "time": "time"},
        tasks=TASKS,
    )


def _code(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A code as text; whole numbers without a decimal point, however the file stores them."""
    if pa.types.is_floating(column.type):
        column = column.cast(pa.int64())
    return column.cast(pa.string())

"""What the multi-domain data sets have in common: labelled rows split in three, for `tfmtr.prepare_rows`.

Such a data set is a table of rows, an impression or rating each, with one label column a task, `domain` (what selects
a row's branch) and `split`, and the tables of users and titles. Ids are features, too.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtr.checks import check_choice
from tfmtr.datasets.logs import Logs
from tfmtr.datasets.public._tables import write_table

PROTOCOLS = ("time", "random", "row")
SPLITS = ("train", "validation", "test")
Protocol = Literal["time", "random", "row"]


def split_rows(num_rows: int, *, protocol: Protocol, time: np.ndarray | None = None, seed: int = 0) -> pa.Array:
    """Splits rows 8:1:1 into train, validation and test.

    The order of the rows decides everything that a result says: by `time`, test rows come after all training
    rows and some users are new; at `random`, nearly every test user is known; by `row`, in the order of the file,
    whole users are new where the file lists one user after the other.

    Args:
        num_rows: Number of rows.
        protocol: `"time"` (a stable sort: ties stay in file order), `"random"` or `"row"`.
        time: Array of shape `(num_rows,)`; used by `"time"` only.
        seed: Of the random order.

    Returns:
        Arrow array of text: `"train"`, `"validation"` or `"test"` for every row, in file order.

    Raises:
        ValueError: If `protocol` is unknown, or `"time"` without one time a row.

    Example:
    >>> split_rows(10, protocol="row").value_counts().to_pylist()[1]
    {'values': 'validation', 'counts': 1}
    """
    check_choice("protocol", protocol, PROTOCOLS)
    if protocol == "time":
        times = np.asarray(time)
        if times.shape != (num_rows,):
            raise ValueError(
                f'`time` must have one value a row, shape ({num_rows},), for protocol="time". '
                f"Received: time.shape={times.shape}"
            )
        order = np.argsort(times, kind="stable")
    elif protocol == "random":
        order = np.random.default_rng(seed).permutation(num_rows)
    else:
        order = np.arange(num_rows)
    split = np.zeros(num_rows, "int32")
    split[order[-(-8 * num_rows // 10) :]] = 1
    split[order[-(-9 * num_rows // 10) :]] = 2
    return pa.DictionaryArray.from_arrays(split, list(SPLITS)).cast(pa.string())


def look_up(table: pa.Table, column: str, keys: pa.ChunkedArray) -> pa.Table:
    """The rows of `table` whose `column` has the given keys, in the keys' order; null where there is none."""
    return table.take(pc.index_in(keys, value_set=table[column].combine_chunks()))


def write_rows(
    out: str | os.PathLike, rows: pa.Table, users: pa.Table, titles: pa.Table, tasks: Mapping[str, str]
) -> Logs:
    """Writes the tables of a multi-domain data set and describes them.

    Args:
        out: Folder for `rows.parquet`, `users.parquet` and `titles.parquet`; made if missing.
        rows: Table `user`, `title`, `domain`, `split` and the label columns.
        users: Table `user` and features; one row a user.
        titles: Table `title` and features; one row a title.
        tasks: Labels as `Logs` has them, `{task: text}`.

    Returns:
        The `Logs` for `tfmtr.prepare_rows`, whose scenario, and only feature of the context, is `domain`.
    """
    return Logs(
        events=write_table(rows, out, "rows"),
        users=write_table(users, out, "users"),
        titles=write_table(titles, out, "titles"),
        columns={"user": "user", "title": "title"},
        tasks=tasks,
        context={"domain": "domain"},
        scenario=["domain"],
        id_features={"user": "top", "title": "top"},
        split_column="split",
    )

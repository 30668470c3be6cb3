"""What the multi-domain data sets have in common: rows split in three, columns described, tables looked up.

Such a data set is one Arrow table, a row an impression or rating, with the features' raw values, one label
column a task, `domain` (what selects a row's branch) and `split`, and the `Schema` of the training rows.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtr.schema import Feature, Scenario, Schema, Task, check_choice

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


def describe(
    table: pa.Table,
    *,
    user: Iterable[str],
    title: Iterable[str],
    numbers: Collection[str] = (),
    tasks: Mapping[str, str],
) -> Schema:
    """The schema of a table of this kind: vocabularies, means and label means are those of the training rows.

    Args:
        table: Table with `domain` and `split`.
        user: Columns that are features of the user.
        title: Columns that are features of the title.
        numbers: Those of them that are numbers; all others are categories.
        tasks: Label columns by the tasks' names, `{task: column}`.

    Returns:
        A `Schema` whose scenario, and only feature of the context, is `domain`.
    """
    train = table.filter(pc.equal(table["split"], "train"))
    features = []
    roles: list[tuple[str, Literal["user", "title", "context"]]]
    roles = [*((name, "user") for name in user), *((name, "title") for name in title), ("domain", "context")]
    for name, role in roles:
        if name in numbers:
            mean, std = pc.mean(train[name]).as_py(), pc.stddev(train[name]).as_py()
            features.append(Feature(name, role, "number", mean=mean, std=std or 1.0))
        else:
            features.append(Feature(name, role, "id", _vocabulary(train[name])))
    domains = pc.unique(table["domain"]).to_pylist()
    return Schema(
        features,
        [Task(task, column, mean=pc.mean(train[column]).as_py()) for task, column in tasks.items()],
        Scenario(["domain"], {(domain,): domain for domain in domains}),
        slices=["domain"],
    )


def _vocabulary(column: pa.ChunkedArray) -> list[str]:
    """All values, most frequent first, ties in order of the text; null and empty text left out."""
    counts = pa.Table.from_struct_array(pc.value_counts(column.combine_chunks()))
    counts = counts.sort_by([("counts", "descending"), ("values", "ascending")])
    return [value for value in counts["values"].to_pylist() if value]

"""Taobao behaviours: purchases of 15,449 users with a given split, without times, territories and text.

The benchmark of multi-behaviour systems (MB-CGCN, MuLe, CascadingRank). The task is the purchase: 92,180 for training,
of which the last one of a user may be set aside for validation, and one a user for the test.

**82 % of the test purchases are among the user's own views, and without times nobody can tell whether the view came
before the purchase.** Ranking what the user viewed or carted first, with nothing learnt, has an NDCG@10 of 0.148 there
(popularity 0.005): every table on this set must show that rule. Views and carts are not read here.

Reference: Cheng et al., Multi-Behavior Recommendation with Cascading Graph Convolution Networks, WWW 2023,
https://doi.org/10.1145/3543507.3583439; https://github.com/SS-00-SS/MBCGCN.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtr.datasets.logs import Logs
from tfmtr.datasets.public._tables import read_columns, write_table


def taobao(source: str | os.PathLike, out: str | os.PathLike) -> Logs:
    """Writes the purchases of Taobao behaviours and describes them.

    Args:
        source: Folder with `interactions.parquet` (`user`, `item`, `behavior`, `split`) and `valid.parquet`, one pair a
            user that leaves the training part; without the second there is no validation part.
        out: Folder for `events.parquet`; made if missing.

    Returns:
        The `Logs`, with the task `buy`, the given split and no times.

    Raises:
        ValueError: If a table is missing, damaged or empty, or lacks a column.
    """
    rows = read_columns(source, "interactions.parquet", ("user", "item", "behavior", "split"))
    bought = rows.filter(pc.equal(rows["behavior"], "buy"))
    split = np.asarray(bought["split"].to_pylist(), object)
    if Path(source, "valid.parquet").is_file():
        held = read_columns(source, "valid.parquet", ("user", "item"))
        pairs = set(zip(held["user"].to_pylist(), held["item"].to_pylist(), strict=True))
        bought_pairs = zip(bought["user"].to_pylist(), bought["item"].to_pylist(), strict=True)
        is_held = np.asarray([pair in pairs for pair in bought_pairs])
        split[is_held & (split == "train")] = "validation"
    events = pa.table(
        {"user": bought["user"], "item": bought["item"], "split": split, "buy": np.ones(len(bought), "int8")}
    )
    return Logs(
        events=write_table(events, out, "events"),
        columns={"user": "user", "title": "item"},
        tasks={"buy": "buy"},
        split_column="split",
        has_times=False,
    )

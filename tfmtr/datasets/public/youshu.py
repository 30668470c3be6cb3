"""Youshu: which user of a book site has which book list, with a given split, without times, territories and text.

A title is a list (bundle), whose books are a feature of kind set; what the user has of single books is one of the user.

**Popularity of the list among the training pairs has a Recall@20 of 0.203 and an NDCG@20 of 0.114**: every table on
this set must show that row.

Reference: Chang et al., Bundle Recommendation with Graph Convolutional Networks, SIGIR 2020,
https://doi.org/10.1145/3397271.3401198; https://github.com/hoangpanda/CrossCBR.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtr.datasets.logs import Logs
from tfmtr.datasets.public._tables import lists_by, read_columns, write_table


def youshu(source: str | os.PathLike, out: str | os.PathLike) -> Logs:
    """Writes the tables of Youshu and describes them.

    Args:
        source: Folder with `user_bundle.parquet` (`user`, `bundle`, `split`), `bundle_item.parquet` (`bundle`, `item`)
            and `user_item.parquet` (`user`, `item`).
        out: Folder for `events.parquet`, `users.parquet` and `titles.parquet`; made if missing.

    Returns:
        The `Logs`, with the task `have`, the given split and no times.

    Raises:
        ValueError: If a table is missing, damaged or empty, or lacks a column.
    """
    rows = read_columns(source, "user_bundle.parquet", ("user", "bundle", "split"))
    tables = {}
    for name, file, key in (("users", "user_item", "user"), ("titles", "bundle_item", "bundle")):
        books = read_columns(source, f"{file}.parquet", (key, "item"))
        ids = pc.unique(pa.chunked_array([*rows[key].chunks, *books[key].chunks])).sort()
        lists = lists_by(books[key].to_pylist(), books["item"].to_pylist(), ids.to_pylist())
        tables[name] = write_table(pa.table({key: ids, f"books_of_{key}": lists}), out, name)
    events = rows.append_column("have", pa.array(np.ones(len(rows), "int8")))
    return Logs(
        events=write_table(events, out, "events"),
        **tables,
        columns={"user": "user", "title": "bundle"},
        tasks={"have": "have"},
        split_column="split",
        has_times=False,
    )

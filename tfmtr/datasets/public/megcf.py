"""MEGCF: purchases with what pictures, titles and reviews mention, as numbered entities; a given split, no times.

Three sets, `beauty`, `art` and `taobao`. Entities of a source are a feature of kind set; their words were not
published.

**Every published validation pair is a training pair, too: it leaves the training part here. In `art` 23.5 % of the
test pairs are training pairs**, so figures of that set are flattered. Reviews may be of the test purchase itself:
compare with `reviews=False`.

Reference: Liu et al., MEGCF: Multimodal Entity Graph Collaborative Filtering for Personalized Recommendation, TOIS
2022, https://doi.org/10.1145/3544106; https://github.com/hfutmars/MEGCF.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtr.datasets.logs import Logs
from tfmtr.datasets.public._tables import lists_by, read_columns, write_table
from tfmtr.schema import check_choice

PARTS = ("beauty", "art", "taobao")


def megcf(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    part: Annotated[str, "Which of the three sets: beauty, art or taobao."] = "beauty",
    reviews: Annotated[bool, "Read the entities of reviews, too, one of which may be the test purchase's own."] = True,
) -> Logs:
    """Writes the tables of one of MEGCF's sets and describes them.

    Args:
        source: Folder with `<part>_interactions.parquet` (`user`, `item`, `split`) and `<part>_item_entities.parquet`
            (`item`, `entity`, `source`).
        out: Folder for `events.parquet` and `titles.parquet`; made if missing.
        part: `beauty`, `art` or `taobao`.
        reviews: Whether titles have the entities of reviews.

    Returns:
        The `Logs`, with the task `purchase`, the given split and no times.

    Raises:
        ValueError: If `part` is unknown, a table is missing, damaged or empty, or lacks a column.
    """
    check_choice("part", part, PARTS)
    rows = read_columns(source, f"{part}_interactions.parquet", ("user", "item", "split"))
    entities = read_columns(source, f"{part}_item_entities.parquet", ("item", "entity", "source"))
    items = pc.unique(pa.chunked_array([*rows["item"].chunks, *entities["item"].chunks])).sort()
    titles = {"item": items}
    for name in sorted(pc.unique(entities["source"]).to_pylist()):
        if name != "review" or reviews:
            own = entities.filter(pc.equal(entities["source"], name))
            titles[f"{name}_entities"] = lists_by(own["item"].to_pylist(), own["entity"].to_pylist(), items.to_pylist())
    events = rows.append_column("purchase", pa.array(np.ones(len(rows), "int8")))
    return Logs(
        events=write_table(events, out, "events"),
        titles=write_table(pa.table(titles), out, "titles"),
        columns={"user": "user", "title": "item"},
        tasks={"purchase": "purchase"},
        split_column="split",
        has_times=False,
    )

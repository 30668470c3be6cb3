"""XMarket Electronics: Amazon ratings of seven national markets, the same titles in several of them.

A rating is an event, and a positive from 4 stars on; what is rated lower is had and not liked. The market is the
territory. A customer of two markets (there are two) is two users, so that a home market never looks ahead. Titles have
no text.

**The published files are 5-core: users and titles with fewer than five ratings over the whole period were left out, so
what is in them looked into the future.** Figures are fair between models, and flatter all of them.

Reference: Bonab et al., Cross-Market Product Recommendation, CIKM 2021, https://doi.org/10.1145/3459637.3482493;
https://xmrec.github.io/.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os

import pyarrow as pa
import pyarrow.compute as pc

from tfmtr.datasets.logs import Logs
from tfmtr.datasets.public._tables import read_columns, write_table

FILE = "ratings_5core.parquet"


def xmarket(source: str | os.PathLike, out: str | os.PathLike) -> Logs:
    """Writes the three tables of XMarket Electronics and describes them.

    Args:
        source: `ratings_5core.parquet` with `market`, `userId`, `itemId`, `rate` and `date`, or its folder.
        out: Folder for `events.parquet` and `users.parquet`; made if missing.

    Returns:
        The `Logs`, with the task `liked` and windows that cover the log.

    Raises:
        ValueError: If the file is missing, damaged or empty, or lacks a column.
    """
    ratings = read_columns(source, FILE, ("market", "userId", "itemId", "rate", "date"))
    user = pc.binary_join_element_wise(*(ratings[name].cast(pa.string()) for name in ("market", "userId")), "-")
    events = ratings.append_column("user", user)
    users = events.select(["user", "market"]).group_by(["user", "market"], use_threads=False).aggregate([])
    return Logs(
        events=write_table(events.select(["user", "itemId", "rate", "date"]), out, "events"),
        users=write_table(users.sort_by("user"), out, "users"),
        columns={"user": "user", "title": "itemId", "territory": "market", "time": "date"},
        tasks={"liked": "rate>=4"},
    )

"""What is known of titles before a test: how popular they are, and which are local."""

import dataclasses

import ibis
import numpy as np
import pyarrow.parquet as pq

from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.discovery import is_event
from tfmtr.datasets.engines.duckdb import read_files

LOCAL_SHARE = 0.3


@dataclasses.dataclass(frozen=True, eq=False)
class TitleFacts:
    """Facts about the titles of a prepared directory, in the order of the title store.

    Args:
        ids: Text of shape `(titles,)`.
        popularity: Integer array of shape `(titles,)`: positives of the primary task in the training rows.
        rate: Float array of shape `(titles,)`: their share of the training rows, NaN for a title without rows.
        local: Boolean array of shape `(titles,)`.
        territories: `{territory: positives in the training rows}`.
    """

    ids: np.ndarray
    popularity: np.ndarray
    rate: np.ndarray
    local: np.ndarray
    territories: dict[str, int]


def title_facts(data: Dataset, *, local_share: float = LOCAL_SHARE) -> TitleFacts:
    """Popularity, rate and locality of the titles of a prepared directory; no label of a test row is read.

    Popularity counts the random users' rows of the training windows, so that it is the same for models with and
    without upsampling. **A title is local if at most `local_share` of the territories have it in the first catalogue
    that has it**, in which everything is known before the window starts: for most titles that of the first test
    window, which is the catalogue when training ended; for a title that came later the one it came with. A territory's
    share of the positives would be no measure: where one territory has half of all positives, it has half of most
    titles' too.

    Args:
        data: The `Dataset` directory.
        local_share: From 0 to 1. In the simulator titles of one territory or culture are in up to 29 % of 24
            territories, 95 % of the global ones in more.

    Returns:
        `TitleFacts`.

    Raises:
        ValueError: If `local_share` is not in [0, 1].
    """
    if not 0 <= local_share <= 1:
        raise ValueError(
            f"`local_share` must be a share of the territories in [0, 1]. Received: local_share={local_share}"
        )
    con = ibis.duckdb.connect()
    rows = read_files(con, data.discoveries("train"))
    positive = is_event(rows, data.schema.tasks[0].column).cast("int64")
    rows = rows.select("title_row", "territory", positive=positive)  # no feature that may be called `Positive`
    counts = con.to_pyarrow(rows.group_by("title_row").aggregate(rows=rows.count(), positives=rows.positive.sum()))  # pyright: ignore[reportAttributeAccessIssue]
    positives = rows.filter(rows.positive == 1)
    of_territory = con.to_pyarrow(positives.group_by("territory").aggregate(positives=positives.count()))

    catalogue = read_files(con, [data.path / "availability.parquet"]).filter(lambda t: t.window > 0)  # pyright: ignore[reportArgumentType]
    reach = catalogue.group_by("title", "window").aggregate(territories=catalogue.territory.nunique())
    reach = con.to_pandas(reach.group_by("title").aggregate(first=reach.territories.argmin(reach.window)))
    ids = pq.read_table(data.path / "titles.parquet", columns=["title"])["title"].to_numpy()
    first = reach.set_index("title")["first"].reindex(ids).to_numpy(np.float64)  # NaN: never offered
    popularity, offered = (
        np.bincount(counts["title_row"], counts[name], len(ids)).astype(np.int64) for name in ("positives", "rows")
    )
    return TitleFacts(
        ids=ids,
        popularity=popularity,
        rate=popularity / np.where(offered, offered, np.nan),
        local=first / con.execute(catalogue.territory.nunique()) <= local_share,
        territories=dict(
            sorted(zip(*(of_territory[name].to_pylist() for name in of_territory.column_names), strict=True))
        ),
    )

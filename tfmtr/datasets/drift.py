"""Whether two prepared directories speak of the same titles and users: what changed from the one to the other."""

# Arrow makes its functions when it is imported, and Ibis says less of its columns than they can do:
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from collections.abc import Mapping

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.engines.duckdb import read_files
from tfmtr.kinds import KINDS
from tfmtr.schema import Schema

MOST = 20_000  # rows that are compared
BLOCK = 65_536


def changed_vectors(data: Dataset, before: Dataset) -> tuple[int, int]:
    """How many title vectors differ, of titles that are in both with a vector and have not changed otherwise.

    An upstream store, or a text encoder, gives an unchanged title the vector that it had. If it does not, it is another
    model's store, and vectors of the same width mean something else.

    Args:
        data: A `Dataset`.
        before: The `Dataset` that a model was trained on.

    Returns:
        `(compared, changed)`, numbers of titles.
    """
    tables = [_titles(one) for one in (data, before)]
    both = pc.unique(tables[0]["title"].filter(pc.is_in(tables[0]["title"], value_set=tables[1]["title"])))
    both = both.take(pc.sort_indices(both))[:MOST]
    same = [name for name in tables[1].column_names if name in tables[0].column_names and name != "row"]
    frames = [
        table.filter(pc.is_in(table["title"], value_set=both)).select([*same, "row"]).to_pandas() for table in tables
    ]
    for frame in frames:  # lists have no hash
        frame[same] = frame[same].map(str)
    pairs = frames[0].merge(frames[1], on=same, suffixes=("", "_before"))
    stores = [one.vectors("title").vectors for one in (data, before)]
    if not len(pairs) or stores[0].shape[1] != stores[1].shape[1]:
        return len(pairs), len(pairs)
    now, then = (
        np.asarray(s[pairs[name].to_numpy()], "float32") for s, name in zip(stores, ("row", "row_before"), strict=True)
    )
    there = now.any(axis=1) & then.any(axis=1)  # a missing vector is the zero vector
    is_same = np.isclose(now, then, rtol=1e-3, atol=1e-4).all(axis=1)
    return int(np.sum(there)), int(np.sum(there & ~is_same))


def _titles(data: Dataset) -> pa.Table:
    table = pq.read_table(data.path / "titles.parquet")
    return table.append_column("row", pa.array(np.arange(len(table))))


def similarity_of_users(data: Dataset, before: Dataset) -> float | None:
    """Median cosine between a user's vector and the one that the user had before; `None` where none can be compared.

    Users' vectors move with what they watch, so they may change; those of another model have nothing to do with the old
    ones.
    """
    con, stores = ibis.duckdb.connect(), [one.vectors("user") for one in (data, before)]
    if None in stores:
        return None
    now, then = (read_files(con, [one.path / "users.parquet"]).select("user", "user_row") for one in (data, before))
    pairs = now.inner_join(then.rename(row_before="user_row"), "user")
    pairs = pairs.filter(pairs.user_row >= 0, pairs.row_before >= 0).order_by("user").limit(MOST).to_pyarrow()
    two = [
        np.asarray(store.vectors[pairs[name].to_numpy()], "float32")
        for store, name in zip(stores, ("user_row", "row_before"), strict=True)
    ]
    norms = np.linalg.norm(two[0], axis=1) * np.linalg.norm(two[1], axis=1)
    return float(np.median((two[0] * two[1]).sum(axis=1)[norms > 0] / norms[norms > 0])) if (norms > 0).any() else None


def moved_users(data: Dataset, before: Dataset) -> dict[tuple[str, str], int]:
    """`{(territory before, territory now): number of users}` of users who are in both, most users first."""
    con = ibis.duckdb.connect()
    now, then = (read_files(con, [one.path / "users.parquet"]).select("user", "territory") for one in (data, before))
    pairs = now.inner_join(then.rename(before="territory"), "user")
    moved = pairs.filter(pairs.before != pairs.territory).group_by("before", "territory")
    rows = moved.aggregate(users=lambda t: t.count()).order_by(ibis.desc("users"), "before", "territory").to_pyarrow()
    return {(row["before"], row["territory"]): row["users"] for row in rows.to_pylist()}


def users_of_both(data: Dataset, before: Dataset) -> int:
    """Number of users who are in both."""
    con = ibis.duckdb.connect()
    now, then = (read_files(con, [one.path / "users.parquet"]).select("user") for one in (data, before))
    return int(con.execute(now.semi_join(then, "user").count()))


def silent_shares(data: Dataset, *, most: int, sure: int) -> dict[str, float]:
    """How much of the log the territories have that have no event on a day, by the last windows of a day.

    On some days of the week a market may be closed.

    Args:
        data: A `Dataset`; one without `events.parquet`, or with windows of another length, has no such days.
        most: Number of days.
        sure: Events that a territory should have had, so that none is no chance.

    Returns:
        `{date: share}`, from 0 to 1.
    """
    windows = {row["window"]: row["start"][:10] for row in data.report["windows"][-most:] if is_a_day(row)}
    file = data.path / "events.parquet"
    if not windows or not file.is_file():
        return {}
    con = ibis.duckdb.connect()
    homes = read_files(con, [data.path / "users.parquet"]).select("user", "territory")
    events = read_files(con, [file]).select("user", "window").inner_join(homes, "user")
    counts = events.group_by("territory", "window").aggregate(events=lambda t: t.count()).to_pandas()
    counts = counts.pivot_table(index="territory", columns="window", values="events", fill_value=0, aggfunc="sum")
    shares = counts.sum(axis=1) / max(1, counts.to_numpy().sum())
    found = {}
    for window in counts.columns.intersection(list(windows)):
        is_silent = (counts[window] == 0) & (shares * counts[window].sum() >= sure)
        found[windows[window]] = float(shares[is_silent].sum())
    return found


def is_a_day(window: Mapping[str, str]) -> bool:
    """Whether a window of `prepare.json` is as long as a day; not where windows are no spans of time."""
    return "end" in window and pd.Timestamp(window["end"]) - pd.Timestamp(window["start"]) == pd.Timedelta(days=1)


def titles_on_offer(data: Dataset) -> int:
    """Number of pairs of a territory and a title in the catalogue after the last window, which is served."""
    table = pq.read_table(data.path / "availability.parquet", columns=["window"])
    return int(np.sum(table["window"].to_numpy() == data.next_window))


def share_without_vector(data: Dataset) -> float:
    """Share of the titles whose vector is the zero vector."""
    vectors = data.vectors("title").vectors
    empty = sum(int(np.sum(~vectors[i : i + BLOCK].any(axis=1))) for i in range(0, len(vectors), BLOCK))
    return empty / max(1, len(vectors))


def medians_of_numbers(data: Dataset, schema: Schema) -> dict[tuple[str, str], float | None]:
    """`{("user" or "title", feature): median}` of the numbers that a model reads, `None` where all are missing."""
    medians = {}
    for role in ("user", "title"):
        file = pq.ParquetFile(data.path / f"{role}s.parquet")
        for feature in schema.by_role(role):
            if (
                not (kind := KINDS[feature.kind]).is_text
                and not kind.is_stored
                and feature.name in file.schema_arrow.names
            ):
                values = file.read([feature.name])[feature.name].drop_null().to_numpy()
                medians[role, feature.name] = float(np.median(values)) if len(values) else None
    return medians


def shares_of_values(data: Dataset, schema: Schema) -> dict[tuple[str, str, str], float]:
    """Shares of the users and titles whose values a model does not know, and of those that have none.

    Args:
        data: A `Dataset`.
        schema: The model's `Schema`.

    Returns:
        `{("user" or "title", feature, "unknown" or "missing"): share}`; `unknown` is of the values that are there.
    """
    shares = {}
    for role in ("user", "title"):
        file = pq.ParquetFile(data.path / f"{role}s.parquet")
        features = [f for f in schema.by_role(role) if f.name in file.schema_arrow.names and not f.is_stored]
        vocabularies = {f.name: pa.array(f.vocabulary, pa.string()) for f in features}
        rows, missing, values, unknown = 0, *({f.name: 0 for f in features} for _ in range(3))
        for batch in file.iter_batches(columns=[f.name for f in features] or [role]):
            rows += len(batch)
            for feature in features:
                column = batch[feature.name]
                if not KINDS[feature.kind].is_text:
                    missing[feature.name] += column.null_count
                    continue
                if KINDS[feature.kind].is_wide:
                    missing[feature.name] += pc.sum(pc.equal(pc.fill_null(pc.list_value_length(column), 0), 0)).as_py()
                    column = column.flatten()
                else:
                    missing[feature.name] += pc.sum(pc.equal(pc.fill_null(column, ""), "")).as_py() or 0
                there = column.filter(pc.not_equal(pc.fill_null(column, ""), ""))
                values[feature.name] += len(there)
                known = pc.is_in(there, value_set=vocabularies[feature.name])
                unknown[feature.name] += len(there) - (pc.sum(known).as_py() or 0)
        for feature in features:
            shares[role, feature.name, "missing"] = missing[feature.name] / max(1, rows)
            if KINDS[feature.kind].has_vocabulary:
                shares[role, feature.name, "unknown"] = unknown[feature.name] / max(1, values[feature.name])
    return shares

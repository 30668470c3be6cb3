"""What the title index recommends to test users, and every metric of it."""

from typing import NamedTuple

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtr import inputs
from tfmtr.datasets.engines.duckdb import read_files
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.local_titles import equal_opportunity, local_share
from tfmtr.evaluation.popularity import (
    evaluate_exposure,
    exposure_curve,
    hit_rate_by_popularity,
    popularity_lift,
    quantile_bins,
)
from tfmtr.evaluation.ranking import evaluate_lists
from tfmtr.retrieval.index import build_index

BATCH = 256
QUALITY_BINS = 4


class IndexLists(NamedTuple):
    """Lists of an index, and what they were made from.

    Attributes:
        lists: `Lists`, sliced by territory.
        users: Ids of their users, shape `(users,)`.
        available: `{territory: boolean array of shape (titles,)}`: what could be recommended.
    """

    lists: Lists
    users: np.ndarray
    available: dict


def index_lists(model, positives, schema, data, *, window, k, most):
    """The lists that the exact index returns to users with a positive of the primary task.

    A list has the k best titles of the window's catalogue in the user's territory, whether seen before or not.

    Args:
        model: A `TwoTower` model.
        positives: Arrow table of the window's positive test rows, at least one.
        schema: The model's `Schema`.
        data: The `Prepared` directory.
        window: The test window.
        k: Titles of a list.
        most: Most users: those that come first in the files' hash order.

    Returns:
        `IndexLists`.
    """
    index, stores = build_index(model, data, schema, window=window), inputs.open_stores(data)

    def rank(rows, allowed):
        features = inputs.model_inputs(rows, schema, stores)
        queries = model.user_tower.predict_on_batch({name: features[name] for name in model.user_tower.input})
        found = index(queries[schema.tasks[0].name], np.full(len(rows), min(k, allowed.shape[1]), "int32"), allowed)
        return np.where(np.isfinite(found["scores"]), found["index"], -1)

    return make_lists(rank, index.catalogue, positives, most=most)


def make_lists(rank, catalogue, positives, *, most):
    """The lists that a ranking gives to users with a positive.

    Args:
        rank: Function of example rows (an Arrow table, one a user, `BATCH` at most) and of their allowed titles,
            boolean of shape `(rows, titles)`; returns title rows of shape `(rows, k)`, best first, padded with -1.
        catalogue: The `Catalogue` of the window.
        positives: Arrow table of the window's positive test rows, at least one.
        most: Most users: those that come first in the files' hash order.

    Returns:
        `IndexLists`.
    """
    users, first, user_of_row = np.unique(
        positives["user"].to_numpy().astype(str), return_index=True, return_inverse=True
    )
    kept = np.sort(first)[:most]  # users are in the order of their hash
    rows = positives.take(kept)
    territories, ranked = np.asarray(rows["territory"].to_pylist()), []
    for i in range(0, len(rows), BATCH):
        some = territories[i : i + BATCH]
        ranked.append(rank(rows.slice(i, BATCH), catalogue(some, np.full((len(some), 1), ""))))
    list_of = np.full(len(users), -1)
    list_of[user_of_row[kept]] = np.arange(len(kept))
    positive_users, titles = list_of[user_of_row], positives["title_row"].to_numpy()
    held_out = positive_users >= 0
    lists = Lists(
        np.concatenate(ranked),
        territories,
        positive_users[held_out],
        titles[held_out],
        num_titles=catalogue.num_titles,
    )
    names = np.unique(territories)
    allowed = np.asarray(catalogue(names, np.full((len(names), 1), "")))
    return IndexLists(lists, users[user_of_row[kept]], dict(zip(names.tolist(), allowed, strict=True)))


def list_metrics(found, facts, profile):
    """Every metric of `IndexLists` by its name.

    Args:
        found: `IndexLists`.
        facts: The directory's `TitleFacts`.
        profile: What `profiles` returns for the lists' users.

    Returns:
        `{metric: {territory: cell}}` of `evaluate_lists` (`"ranking"`), `evaluate_exposure` (`"exposure"`),
        `exposure_curve`, `hit_rate_by_popularity`, `popularity_lift`, `local_share` and `equal_opportunity`, in which
        titles are of equal quality if their rates of positives in the training rows are in the same quarter.
    """
    lists, popularity = found.lists, facts.popularity
    rated = np.isfinite(facts.rate)
    quality = np.full(len(rated), -1)
    quality[rated] = quantile_bins(facts.rate[rated], num_bins=QUALITY_BINS)
    return {
        "ranking": evaluate_lists(lists),
        "exposure": evaluate_exposure(lists, popularity, available=found.available),
        "exposure_curve": exposure_curve(lists, popularity),
        "hit_rate_by_popularity": hit_rate_by_popularity(lists, popularity),
        "popularity_lift": popularity_lift(lists, popularity, *profile),
        "local_share": local_share(lists, facts.local),
        "equal_opportunity": equal_opportunity(lists, facts.local, quality),
    }


def profiles(data, facts, users, window):
    """What users chose before a test window: the log's pairs without the positives of this window and later ones.

    Args:
        data: The `Prepared` directory.
        facts: Its `TitleFacts`.
        users: Ids of test users, shape `(users,)`.
        window: The test window.

    Returns:
        `(rows of users, rows of the title store)`, integer arrays of one length. Events after the last window, which
        are in the log but in no test row, count as chosen before; logs that end with the last window have none.
    """
    con = ibis.duckdb.connect()
    files = data.examples("test", windows=[number for number in data.test_windows if number >= window])
    rows = read_files(con, files)
    held_out = rows.filter(rows[data.schema.tasks[0].column] > 0).select("user", "title")
    wanted = ibis.memtable(pa.table({"user": users, "user_row": np.arange(len(users))}))
    seen = read_files(con, [data.path / "seen.parquet"]).inner_join(wanted, "user")
    chosen = con.to_pyarrow(seen.anti_join(held_out, ("user", "title")).select("user_row", "title"))
    titles = pc.index_in(chosen["title"], value_set=pa.array(facts.ids, pa.string()))
    return chosen["user_row"].to_numpy(), titles.to_numpy()

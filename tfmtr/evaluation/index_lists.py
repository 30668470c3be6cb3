"""What the title index recommends to test users, and every metric of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from tfmtr import inputs
from tfmtr.checks import check_integer
from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.local_titles import equal_opportunity, local_share
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.popularity_bias import (
    evaluate_exposure,
    exposure_curve,
    hit_rate_by_popularity,
    popularity_lift,
    quantile_bins,
)
from tfmtr.evaluation.ranking import Metrics, evaluate_lists
from tfmtr.evaluation.title_facts import TitleFacts
from tfmtr.kinds import KINDS
from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.retrieval.index import build_index
from tfmtr.schema import Schema

if TYPE_CHECKING:
    from tfmtr.listwise.model import Scorer
    from tfmtr.models import TwoTower
    from tfmtr.retrieval.indexes import Index


BATCH = 256
GROUP = 32  # titles, of which the best is looked at first
QUALITY_BINS = 4


class IndexLists(NamedTuple):
    """Lists of one window, and what they were made from.

    Attributes:
        lists: `Lists`, sliced by territory.
        users: Ids of their users, shape `(users,)`.
        available: `{territory: boolean array of shape (titles,)}`: what could be recommended.
    """

    lists: Lists
    users: np.ndarray
    available: dict[str, np.ndarray]


class ListCase:
    """The users of one window who get a list, what may be in it, and their held-out positives.

    A model, a baseline and a server are asked the same: the k best titles of the window's catalogue in the user's
    territory. With a past, titles that the user had before the window are in no list (as they are served), and are no
    positives; a user without another positive has no list, and is counted.

    Args:
        positives: Arrow table of the window's positive rows with `user`, `territory` and `title_row`, at least one.
        catalogue: The `Catalogue` of the window.
        most: Most lists: those of the users that come first in the files' hash order.
        past: The `Past`, or `None` for lists that may repeat what users had.
        window: The window's number, where there is a past.
        parts: Integers of shape `(positives,)`: positives of a user with other ones are of a list of their own; by
            default a user has one list.

    Attributes:
        rows: Arrow table of one row for each list, that of its first positive.
        users: Ids of their users, shape `(lists,)`.
        left_out: `{"users", "positives"}`: how many had only titles again, and how many such positives there were.
    """

    def __init__(
        self,
        positives: pa.Table,
        catalogue: Catalogue,
        *,
        most: int,
        past: Past | None = None,
        window: int | None = None,
        parts: np.ndarray | None = None,
    ) -> None:
        self.had, self.left_out = None, {"users": 0, "positives": 0}
        users, titles = positives["user"].to_numpy().astype(str), positives["title_row"].to_numpy()
        parts = np.zeros(len(users), np.int64) if parts is None else parts
        if past is not None:
            everyone, number = np.unique(users, return_inverse=True)
            had = past.had(past.numbers(everyone), window)  # pyright: ignore[reportArgumentType]
            is_again = np.asarray(had[number, titles]).ravel()
            self.left_out["positives"] = int(is_again.sum())
            positives, users, titles, parts = (
                positives.filter(pa.array(~is_again)),
                *(values[~is_again] for values in (users, titles, parts)),
            )
            self.left_out["users"] = len(everyone) - len(np.unique(users))
        _, number = np.unique(users, return_inverse=True)
        keys = number * (parts.max(initial=0) + 1) + parts
        distinct, first, list_of_row = np.unique(keys, return_index=True, return_inverse=True)
        kept = np.sort(first)[:most]  # users are in the order of their hash
        self.rows, self.users = positives.take(kept), users[kept]
        if past is not None:
            self.had = had[np.searchsorted(everyone, self.users)]
        self.territories = np.asarray(self.rows["territory"].to_pylist(), str)
        list_of = np.full(len(distinct), -1)
        list_of[list_of_row[kept]] = np.arange(len(kept))
        positive_users = list_of[list_of_row]
        held_out = positive_users >= 0
        self.positive_users, self.positive_titles = positive_users[held_out], titles[held_out]
        self.num_titles = catalogue.num_titles
        names, self.home = np.unique(self.territories, return_inverse=True)
        masks = np.zeros((0, self.num_titles), bool)
        if len(names):
            masks = np.asarray(catalogue(names, np.full((len(names), 1), "")))
        self.available = dict(zip(names.tolist(), masks, strict=True))
        self.masks = masks

    def allowed(self, start: int, stop: int) -> np.ndarray:
        """What the lists of some users may have, boolean of shape `(users, titles)`."""
        allowed = self.masks[self.home[start:stop]]
        return allowed if self.had is None else allowed & ~self.had[start:stop].toarray()

    def lists(self, rank: Callable[[pa.Table, np.ndarray], np.ndarray]) -> Lists:
        """The `Lists` that a ranking gives.

        Args:
            rank: Function of example rows (an Arrow table, one a user, `BATCH` at most) and of their allowed titles,
                boolean of shape `(rows, titles)`; returns title rows of shape `(rows, k)`, best first, padded with -1.
        """
        ranked = [rank(self.rows.slice(i, BATCH), self.allowed(i, i + BATCH)) for i in range(0, len(self.rows), BATCH)]
        return self.ranked(np.concatenate(ranked) if ranked else np.zeros((0, 1), int))

    def ranked(self, titles: np.ndarray) -> Lists:
        """The `Lists` of title rows, integers of shape `(users, k)`, best first, padded with -1."""
        return Lists(
            titles,
            self.territories,
            self.positive_users,
            self.positive_titles,
            num_titles=self.num_titles,
        )

    def index_lists(self, rank: Callable[[pa.Table, np.ndarray], np.ndarray]) -> IndexLists:
        """The `IndexLists` that a ranking gives."""
        return IndexLists(self.lists(rank), self.users, self.available)


class AmongCase(ListCase):
    """Each held-out positive among some random titles that the user did not have: the easier task of many papers.

    Hit rates among a hundred titles are far above those among all, and may order models otherwise: Krichene and Rendle,
    On Sampled Metrics for Item Recommendation, KDD 2020, https://doi.org/10.1145/3394486.3403226. They are for the
    comparison with published tables.

    Args:
        case: The `ListCase`, whose users have a list for each of their positives here.
        number: Titles to rank, the positive among them.
        seed: Of the other titles, the same for all that are asked.

    Attributes:
        few: How many positives were ranked among fewer, so far, because the user could have had no more.

    Raises:
        ValueError: If `number` is below 2.
    """

    def __init__(self, case: ListCase, number: int = 100, *, seed: int = 0) -> None:
        check_integer("among", number, least=2)
        self.case, self.number, self.seed, self.few = case, number, seed, 0
        self.owners, self.num_titles, self.available = case.positive_users, case.num_titles, case.available
        self.rows, self.users = case.rows.take(self.owners), case.users[self.owners]
        self.territories = case.territories[self.owners]
        self.positive_users, self.positive_titles = np.arange(len(self.owners)), case.positive_titles
        shape = (len(case.users), case.num_titles)
        self.wanted = sparse.csr_matrix((np.ones(len(self.owners), bool), (self.owners, case.positive_titles)), shape)

    def allowed(self, start: int, stop: int) -> np.ndarray:
        """Each row's positive and the others that were drawn, boolean of shape `(rows, titles)`."""
        owners = self.owners[start:stop]
        distinct, place = np.unique(owners, return_inverse=True)
        others = np.stack([self.case.allowed(owner, owner + 1)[0] for owner in distinct])
        keys = np.random.default_rng([self.seed, start]).random((len(owners), self.num_titles))
        keys[~others[place] | self.wanted[owners].toarray()] = np.inf
        count = min(self.number - 1, self.num_titles - 1)
        drawn = np.argpartition(keys, count - 1, axis=1)[:, :count]
        allowed = np.zeros(keys.shape, bool)
        np.put_along_axis(allowed, drawn, np.isfinite(np.take_along_axis(keys, drawn, axis=1)), axis=1)
        allowed[np.arange(len(owners)), self.positive_titles[start:stop]] = True
        self.few += int((allowed.sum(axis=1) < self.number).sum())
        return allowed


def index_lists(
    model: TwoTower,
    positives: pa.Table,
    schema: Schema,
    data: Dataset,
    *,
    window: int,
    k: int,
    most: int,
    past: Past | None = None,
    scorer: Scorer | None = None,
) -> IndexLists:
    """The lists that the exact index returns to users with a positive of the primary task.

    Args:
        model: A `TwoTower` model.
        positives: Arrow table of the window's positive test rows, at least one.
        schema: The model's `Schema`.
        data: The `Dataset` directory.
        window: The test window.
        k: Titles of a list.
        most: Most users: those that come first in the files' hash order.
        past: The `Past` whose titles are in no list; by default titles may be seen before or not.
        scorer: The `tfmtr.listwise.model.Scorer` of the window, if the run has a list model; it needs a `past`.

    Returns:
        `IndexLists`.
    """
    index = build_index(model, data, schema, window=window, scorer=scorer)
    case = ListCase(positives, index.catalogue, most=most, past=past, window=window)
    popularity = None if past is None else past.popularity(window)
    rank = ranking_of(model, index, schema, data, k=k, popularity=popularity, scorer=scorer, past=past, window=window)
    return case.index_lists(rank)


def ranking_of(
    model: TwoTower, index: Index, schema: Schema, data: Dataset, **options: Any
) -> Callable[[pa.Table, np.ndarray], np.ndarray]:
    """How a model ranks: the function that `ListCase.lists` asks. Arguments as for `scoring_of`."""
    score = scoring_of(model, index, schema, data, **options)
    return lambda rows, allowed: score(rows, allowed)[0]


def scoring_of(
    model: TwoTower,
    index: Index,
    schema: Schema,
    data: Dataset,
    *,
    k: int,
    popularity: Mapping[str, np.ndarray] | None = None,
    scorer: Scorer | None = None,
    past: Past | None = None,
    window: int | None = None,
) -> Callable[[pa.Table, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """How a model scores: a function of rows and their allowed titles that returns the best ones and their scores.

    A title is -1 and its score minus infinity where there is none.

    Args:
        model: A `TwoTower` model.
        index: Its exact index of the window.
        schema: Its `Schema`.
        data: The `Dataset` directory.
        k: Titles of a list.
        popularity: What `Past.popularity` returns: cold users get what is popular in their territory, as they are
            served. `None` ranks theirs by the model, too. A list model knows what is popular, and needs none.
        scorer: The `tfmtr.listwise.model.Scorer` of the window, if the run has a list model.
        past: With a scorer, the `Past`.
        window: With a scorer, the number of the window.
    """
    stores = inputs.open_stores(data)

    def score(rows: pa.Table, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = inputs.model_inputs(rows, schema, stores)
        queries = model.user_tower.predict_on_batch({name: features[name] for name in model.user_tower.input})
        query = queries[schema.tasks[0].name]
        if scorer is not None and past is not None and window is not None:
            query = scorer.join_queries(query, scorer.queries_of(past, past.numbers(rows["user"]), window))
        found = index(query, np.full(len(rows), min(k, allowed.shape[1]), "int32"), allowed)
        values = np.array(found["scores"])
        best = np.where(np.isfinite(values), found["index"], -1)
        is_popular = popularity is not None and scorer is None
        cold = np.flatnonzero(is_cold(rows, features, schema)) if is_popular else []
        if len(cold):
            places = [popularity[territory] for territory in rows["territory"].take(pa.array(cold)).to_pylist()]
            scores = (
                np.log1p(places).astype("float16").astype("float32")
            )  # with the ties of the catalogue that is served
            best[cold] = best_titles(scores, np.asarray(allowed)[cold], k)
            values[cold] = np.where(best[cold] >= 0, np.take_along_axis(scores, best[cold], axis=1), -np.inf)
        return best, values

    return score


def is_positive(labels: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Which rows are events, as `prepare` has it: the primary task's label is neither 0 nor null.

    Args:
        labels: Arrow array.

    Example:
    >>> is_positive(pa.array([1.0, 0.0, -2.5, None])).to_pylist()
    [True, False, True, None]
    """
    return pc.not_equal(labels, 0)  # pyright: ignore[reportAttributeAccessIssue]


def is_cold(rows: pa.Table, features: Mapping[str, np.ndarray], schema: Schema) -> np.ndarray:
    """Of which rows no taste is known, boolean of shape `(rows,)`, as `tfmtr.signatures.recommend` has it.

    Args:
        rows: Arrow table of examples.
        features: What `tfmtr.inputs.model_inputs` makes of them.
        schema: The `Schema`.
    """
    known = [
        np.any(features[f.name] != 0, axis=1)  # an unknown value of a list is 1
        for f in schema.by_role("user")
        if KINDS[f.kind].tells_taste
    ]
    return ~np.any(known, axis=0) if known else np.zeros(len(rows), bool)


def best_titles(scores: np.ndarray, allowed: np.ndarray, k: int) -> np.ndarray:
    """The k allowed titles with the highest scores, best first, of equal ones those that come first.

    Args:
        scores: Floats of shape `(users, titles)`.
        allowed: Booleans of the same shape.
        k: Number of titles.

    Returns:
        Integers of shape `(users, min(k, titles))`, padded with -1 where fewer are allowed.

    Example:
    >>> best_titles(np.array([[1.0, 3.0, 3.0, 9.0]]), np.array([[True, True, True, False]]), 4).tolist()
    [[1, 2, 0, -1]]
    """
    (rows, size), k = scores.shape, min(k, scores.shape[1])
    # The k-th largest of the maxima of groups of titles is at most the k-th largest score, and above most of them.
    groups = -(-size // GROUP) if size > GROUP * k else size
    among = np.full((rows, groups * -(-size // groups)), -np.inf, np.result_type(scores, np.float16))
    np.copyto(among[:, :size], scores, where=allowed)
    maxima = among.reshape(rows, -1, groups).max(axis=1)
    least = np.partition(maxima, -k, axis=1)[:, -k]
    row, title = np.nonzero((among >= least[:, None]) & np.isfinite(among))
    scores = among
    order = np.lexsort((title, -scores[row, title], row))  # few but for ties at the k-th place
    row, title = row[order], title[order]
    place = np.arange(len(row)) - np.searchsorted(row, np.arange(rows))[row]
    best = np.full((rows, k), -1)
    best[row[place < k], place[place < k]] = title[place < k]
    return best


def list_metrics(
    found: IndexLists, facts: TitleFacts, profile: tuple[np.ndarray, np.ndarray], metrics: Metrics = ()
) -> dict[str, dict[str, Any]]:
    """Every metric of `IndexLists` by its name.

    Args:
        found: `IndexLists`.
        facts: The directory's `TitleFacts`.
        profile: What `profiles` returns for the lists' users.
        metrics: As for `evaluate_lists`.

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
        "ranking": evaluate_lists(lists, metrics),
        "exposure": evaluate_exposure(lists, popularity, available=found.available),
        "exposure_curve": exposure_curve(lists, popularity),
        "hit_rate_by_popularity": hit_rate_by_popularity(lists, popularity),
        "popularity_lift": popularity_lift(lists, popularity, *profile),
        "local_share": local_share(lists, facts.local),
        "equal_opportunity": equal_opportunity(lists, facts.local, quality),
    }


def profiles(past: Past, users: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """What users chose before a test window.

    Args:
        past: The `Past`.
        users: Ids of test users, shape `(users,)`.
        window: The test window.

    Returns:
        `(rows of users, rows of the title store)`, integer arrays of one length, each pair once.
    """
    return past.had(past.numbers(users), window, chosen=True).nonzero()

"""Lists after both stages, as they are served: what an index finds, in the order of a ranking model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfmtr import inputs
from tfmtr.checkpoints import restore
from tfmtr.datasets.counter_tables import counted, counter_tables
from tfmtr.evaluation.baseline_lists import validation_cases
from tfmtr.evaluation.index_lists import ListCase, scoring_of
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.ranking import ndcg_of_users
from tfmtr.names import COMBINE, weight_name
from tfmtr.retrieval.first_stage import FirstStageFeatures, check_evidence, shares_of
from tfmtr.retrieval.index import build_index
from tfmtr.retrieval.second_stage import SecondStage, title_arrays
from tfmtr.run import Run
from tfmtr.schema import PAIR

if TYPE_CHECKING:
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.listwise.model import ListModel
    from tfmtr.models import JointModel
    from tfmtr.retrieval.indexes import Index
    from tfmtr.schema import Schema

SecondScores = Callable[[pa.Table, np.ndarray, Mapping[str, np.ndarray]], np.ndarray]
Rank = Callable[[pa.Table, np.ndarray], np.ndarray]
Score = Callable[[pa.Table, np.ndarray], tuple[np.ndarray, np.ndarray]]
Evidence = Callable[[pa.Table, np.ndarray], dict[str, np.ndarray]]
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # of the first stage's score, of which one is chosen
MIDDLE, FEW, MOST = 1.0, 200, 1_000


class FirstStage:
    """The run whose index finds the candidates of a ranking model.

    Args:
        run: Run directory of a two-tower model.
        data: The `Dataset` that is evaluated.
        candidates: How many titles it finds for each user.

    Raises:
        ValueError: If it is no finished run of a two-tower model, or was trained on other data.
    """

    def __init__(self, run: Run, data: Dataset, candidates: int) -> None:
        run.check_form("two_tower")
        if run.document["fingerprint"] != data.log_fingerprint:
            raise ValueError(
                "`retrieval` must be a run on the data of the ranking model: test users of one may be training users "
                f"of the other. Received: {run.path} on data with fingerprint {run.document['fingerprint']}, not "
                f"{data.log_fingerprint}"
            )
        check_evidence("run", data.schema, run.list_model)
        self.run, self.data, self.schema, self.candidates = run, data, run.schema, candidates
        self.order = run.list_model

    def at(self, window: int, past: Past, *, weights: int | None = None) -> tuple[Index, Score, Evidence]:
        """The index of a window, and how it scores: places and scores of `candidates` titles, best first.

        Its evidence is what it knows of given titles, for a ranking model on its candidates, and what was counted
        before the window, where the data have counters; `{}` for others.

        Args:
            window: The window.
            past: The `Past`.
            weights: Test window whose weights are taken, if these are others than the window's.
        """
        model = self.run.load(window=window if weights is None else weights)
        options: dict[str, Any] = {"candidates": self.candidates, "has_evidence": self.data.has_candidates}
        return first_stage_at(model, self.schema, self.order, self.data, past, window, **options)


def first_stage_at(
    model: Any,
    schema: Schema,
    order: ListModel | None,
    data: Dataset,
    past: Past,
    window: int,
    *,
    candidates: int,
    has_evidence: bool,
) -> tuple[Index, Score, Evidence]:
    """What `FirstStage.at` returns, of a model.

    Args:
        model: A `TwoTower` model.
        schema: Its `Schema`.
        order: Its `ListModel`, `None` where towers alone order titles.
        data: The `Dataset`.
        past: Its `Past`.
        window: The window.
        candidates: How many titles it finds for each user.
        has_evidence: Whether a ranking model asks what the first stage knows; then there is an `order`.
    """
    scorer, known = None if order is None else order.as_of(data, past, window), None
    if has_evidence:
        known = FirstStageFeatures(scorer, shares_of(order, past, window))  # pyright: ignore[reportArgumentType]
    index = build_index(model, data, schema, window=window, scorer=scorer)
    options = {"popularity": past.popularity(window), "scorer": scorer, "past": past, "window": window}

    counters = counter_tables("data", data, data.schema, window)

    def evidence(rows: pa.Table, places: np.ndarray) -> dict[str, np.ndarray]:
        found = dict(counted(counters, rows, places))
        if known is not None:
            found |= known.of(known.scorer.queries_of(past, past.numbers(rows["user"]), window), places)
        return found

    return index, scoring_of(model, index, schema, data, k=candidates, **options), evidence


@dataclasses.dataclass(frozen=True, eq=False)
class Second:
    """A ranking model that orders what a first stage finds.

    Attributes:
        model: A model of the form `ranking`.
        schema: Its `Schema`.
        candidates: How many titles the first stage finds for each user.
        first_weight: Of the first stage's score in the final one.
    """

    model: JointModel
    schema: Schema
    candidates: int
    first_weight: float

    def after(
        self, model: Any, schema: Schema, order: ListModel | None, data: Dataset, past: Past, window: int, *, k: int
    ) -> Rank:
        """How both stages rank the titles of a window; arguments as for `first_stage_at`, `k` titles of a list."""
        options: dict[str, Any] = {"candidates": self.candidates}
        options["has_evidence"] = bool(self.schema.evidence)
        _, first, evidence = first_stage_at(model, schema, order, data, past, window, **options)
        scores_of = second_scores(self.model, self.schema, data)
        return after_both(first, evidence, scores_of, k=k, first_weight=self.first_weight)


def second_scores(model: JointModel, schema: Schema, data: Dataset) -> SecondScores:
    """What a ranking model says of given titles: a function of rows, places of titles, and the first stage's evidence.

    All have one row a user; the tasks have their own weights. The model may get other weights between calls.

    Args:
        model: A model of the form `ranking`.
        schema: Its `Schema`.
        data: The `Dataset`.
    """
    arrays, stores = title_arrays(data, schema), inputs.open_stores(data)
    own: dict[str, Any] = model.predictor.input  # pyright: ignore[reportAssignmentType]
    pairs = schema.by_role(PAIR)
    users = {name: tensor for name, tensor in own.items() if name not in {*arrays, *(f.name for f in pairs)}}
    tasks = tuple(task for task in schema.tasks if task.name in model.predictor.output)
    second = SecondStage(model.predictor, users, tasks, arrays, pairs=pairs)
    weights = {weight_name(task.name): tf.constant([task.weight]) for task in tasks} | {COMBINE: tf.constant([""])}

    @tf.function(reduce_retracing=True)
    def scores(given: dict[str, tf.Tensor], index: tf.Tensor, evidence: dict[str, tf.Tensor]) -> tf.Tensor:
        return second.combined(second(given, index, evidence), weights)

    def scores_of(rows: pa.Table, index: np.ndarray, evidence: Mapping[str, np.ndarray]) -> np.ndarray:
        features = inputs.model_inputs(rows, schema, stores)
        given = {name: tf.constant(features[name]) for name in users}
        known = {feature.name: tf.constant(evidence[feature.name]) for feature in pairs}
        return scores(given, tf.constant(index, tf.int32), known).numpy()

    return scores_of


def scores_at(run: Run, model: JointModel, scores_of: SecondScores) -> Callable[[int], SecondScores]:
    """`scores_of`, which `second_scores` returns of a run's model, as of windows: the model gets their weights."""

    def as_of(window: int) -> SecondScores:
        restore(model, run.weights(window))
        return scores_of

    return as_of


def after_both(first: Score, evidence: Evidence, scores_of: SecondScores, *, k: int, first_weight: float) -> Rank:
    """How both stages rank: the k best of the first one's titles by both scores.

    Args:
        first: How the first stage scores.
        evidence: What it knows of titles.
        scores_of: What `second_scores` returns.
        k: Titles of a list.
        first_weight: Of the first stage's score.
    """

    def rank(rows: pa.Table, allowed: np.ndarray) -> np.ndarray:
        index, scores = first(rows, allowed)
        return best_of(index, scores, scores_of(rows, index, evidence(rows, index)), first_weight, k)

    return rank


def best_of(index: np.ndarray, first: np.ndarray, second: np.ndarray, first_weight: float, k: int) -> np.ndarray:
    """The k titles with the highest `second + first_weight * first`, best first; -1 where there is none.

    >>> best_of(np.array([[7, 8, -1]]), np.array([[3.0, 1.0, -np.inf]]), np.array([[0.0, 1.0, 9.0]]), 0.25, 3).tolist()
    [[8, 7, -1]]
    """
    final = np.where(index >= 0, second + first_weight * np.where(index >= 0, first, 0.0), -np.inf)
    order = np.argsort(-final, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index, order, axis=1)


def choose_first_weight(
    first: FirstStage,
    scores_at: Callable[[int], SecondScores],
    past: Past,
    windows: Sequence[int],
    *,
    k: int = 10,
) -> dict[str, Any]:
    """The weight of the first stage's score, by validation users' lists of windows after training; see `cautious`.

    Both models are as of each window's start. In windows that they have learnt from, a second stage knows what was
    taken there, if of other users, and looks better than it is; the last of these are asked where there are fewer than
    200 lists of later ones, and both models are then as of the first test window.

    Args:
        first: The `FirstStage`.
        scores_at: What `second_scores` returns, of the model as of a window.
        past: The `Past`.
        windows: The test windows that both models have weights of.
        k: Titles of a list.

    Returns:
        `{"weight", "lists", "tries": [{"weight", "ndcg"}]}`. With fewer than 200 lists nothing is chosen: the weight is
        1 and there is no try.
    """
    cases = [(window, window, case) for window, case in judged_lists(first.data, past, windows)]
    if count_lists(cases) < FEW:
        cases = [(window, windows[0], case) for window, case in judged_lists(first.data, past)]
    number = count_lists(cases)
    if number < FEW:
        return {"weight": MIDDLE, "lists": number, "tries": []}
    found: dict[float, list[np.ndarray]] = {weight: [] for weight in WEIGHTS}
    for judged, weights, case in cases:
        (_, score, evidence), scores_of = first.at(judged, past, weights=weights), scores_at(weights)
        ranked: dict[float, list[np.ndarray]] = {weight: [] for weight in WEIGHTS}

        def rank_all(rows: pa.Table, allowed: np.ndarray, at=(score, evidence, scores_of), ranked=ranked) -> np.ndarray:  # noqa: ANN001
            places, own = at[0](rows, allowed)
            second = at[2](rows, places, at[1](rows, places))
            for weight, lists in ranked.items():
                lists.append(best_of(places, own, second, weight, k))
            return ranked[MIDDLE][-1]

        case.lists(rank_all)
        for weight, lists in ranked.items():
            found[weight].append(ndcg_of_users(case.ranked(np.concatenate(lists))))
    values = {weight: np.concatenate(lists) for weight, lists in found.items()}
    tries = [{"weight": weight, "ndcg": float(figures.mean())} for weight, figures in values.items()]
    return {"weight": cautious(values), "lists": number, "tries": tries}


def judged_lists(data: Dataset, past: Past, windows: Sequence[int] | None = None) -> list[tuple[int, ListCase]]:
    """Lists of validation users that a weight is chosen by, see `validation_cases`."""
    return validation_cases(data, past, most=MOST, columns=None, windows=windows)


def count_lists(cases: Sequence[tuple[int, int, ListCase]]) -> int:
    """Number of lists of some cases."""
    return sum(len(case.users) for *_, case in cases)


def cautious(values: Mapping[float, np.ndarray]) -> float:
    """The largest weight whose lists are not worse than the best one's by more than a standard error.

    The first stage is trusted where the second one is not clearly better: the best of some noisy figures is too good.

    Args:
        values: `{weight: NDCG of the same lists}`, each of shape `(lists,)`.

    >>> lists = np.linspace(0, 1, 100)
    >>> cautious({0.0: lists + 0.2, 1.0: lists + 0.1, 4.0: lists}), cautious({0.0: lists, 4.0: lists[::-1]})
    (0.0, 4.0)
    """
    best = max(values.values(), key=np.mean)

    def is_near(weight: float) -> bool:
        difference = best - values[weight]
        return bool(difference.mean() <= difference.std(ddof=1) / np.sqrt(len(difference)))

    return max(filter(is_near, values))

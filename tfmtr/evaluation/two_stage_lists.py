"""Lists after both stages, as they are served: what an index finds, in the order of a ranking model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfmtr import inputs
from tfmtr.evaluation.index_lists import ranking_of
from tfmtr.evaluation.past import Past
from tfmtr.names import COMBINE, weight_name
from tfmtr.retrieval.index import build_index
from tfmtr.retrieval.second_stage import SecondStage, title_arrays
from tfmtr.run import Run

if TYPE_CHECKING:
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.models import JointModel
    from tfmtr.retrieval.indexes import Index
    from tfmtr.schema import Schema

Rank = Callable[[pa.Table, np.ndarray], np.ndarray]


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
        if run.document["fingerprint"] != data.report["fingerprint"]:
            raise ValueError(
                "`retrieval` must be a run on the data of the ranking model: test users of one may be training users "
                f"of the other. Received: {run.path} on data with fingerprint {run.document['fingerprint']}, not "
                f"{data.report['fingerprint']}"
            )
        self.run, self.data, self.schema, self.candidates = run, data, run.schema, candidates
        self.order = run.list_model

    def at(self, window: int, past: Past) -> tuple[Index, Rank]:
        """The index of a test window, and how it ranks: places of `candidates` titles, best first."""
        model = self.run.load(window=window)
        scorer = None if self.order is None else self.order.as_of(self.data, past, window)
        index = build_index(model, self.data, self.schema, window=window, scorer=scorer)
        options = {"popularity": past.popularity(window), "scorer": scorer, "past": past, "window": window}
        return index, ranking_of(model, index, self.schema, self.data, k=self.candidates, **options)


def second_scores(model: JointModel, schema: Schema, data: Dataset) -> Callable[[pa.Table, np.ndarray], np.ndarray]:
    """What a ranking model says of given titles: a function of example rows, one a user, and of places of titles.

    Both have one row a user; the tasks have their own weights. The model may get other weights between calls.

    Args:
        model: A model of the form `ranking`.
        schema: Its `Schema`.
        data: The `Dataset`.
    """
    arrays, stores = title_arrays(data, schema), inputs.open_stores(data)
    own: dict[str, Any] = model.predictor.input  # pyright: ignore[reportAssignmentType]
    users = {name: tensor for name, tensor in own.items() if name not in arrays}
    tasks = tuple(task for task in schema.tasks if task.name in model.predictor.output)
    second = SecondStage(model.predictor, users, tasks, arrays)
    weights = {weight_name(task.name): tf.constant([task.weight]) for task in tasks} | {COMBINE: tf.constant([""])}

    @tf.function(reduce_retracing=True)
    def scores(given: dict[str, tf.Tensor], index: tf.Tensor) -> tf.Tensor:
        return second.combined(second(given, index), weights)

    def scores_of(rows: pa.Table, index: np.ndarray) -> np.ndarray:
        features = inputs.model_inputs(rows, schema, stores)
        return scores({name: tf.constant(features[name]) for name in users}, tf.constant(index, tf.int32)).numpy()

    return scores_of


def after_both(first: Rank, scores_of: Callable[[pa.Table, np.ndarray], np.ndarray], *, k: int) -> Rank:
    """How both stages rank: the k best of the first one's titles by the second.

    Args:
        first: How the first stage ranks.
        scores_of: What `second_scores` returns.
        k: Titles of a list.
    """

    def rank(rows: pa.Table, allowed: np.ndarray) -> np.ndarray:
        index = first(rows, allowed)
        scores = np.where(index >= 0, scores_of(rows, index), -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(index, order, axis=1)

    return rank

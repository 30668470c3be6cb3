"""The second stage: a ranking model in the graph of the index, for the candidates that the first stage found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr.encoders.embed import encode_inputs
from tfmtr.encoders.graph_names import graph
from tfmtr.encoders.raw import look_up, lookup, raw_inputs
from tfmtr.kinds import KINDS
from tfmtr.models.pairs import call_pairs
from tfmtr.names import COMBINE, SEPARATOR, weight_name
from tfmtr.retrieval.catalogue import constant
from tfmtr.retrieval.first_stage import PREFIX, parts_of
from tfmtr.retrieval.index import feature_tables
from tfmtr.schema import PAIR

if TYPE_CHECKING:
    from tfmtr.datasets.counter_tables import CounterTable
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.listwise.layer import ListQuery
    from tfmtr.models import JointModel
    from tfmtr.schema import Feature, Schema, Task

CANDIDATES = 500
COMBINED = ("sum", "product")  # how tasks become one score
LEAST = 1e-7  # probabilities are kept so far from 0 and 1 before they become log-odds


class SecondStage(keras.layers.Layer):
    """Ranks given titles of users by several tasks.

    The score of a title is the sum of the tasks' log-odds, each times the request's weight of the task; a task that is
    no probability adds what the model says. With `combine_tasks="product"` it is the logarithm of the product of
    powers, `sum_t w_t log p_t`. In a list the first stage's score is added, times a weight of its own: the first stage
    knows of the past and of what is popular what the ranking model may not.

    What depends on the user alone is computed once a user, and titles' features are variables that are gathered by
    their places: see `tfmtr.models.pairs`.

    Args:
        graph: Model from raw values of users and encoded features of titles and pairs to `{task: tensor of shape
            (rows, 1)}`.
        users: `{column: KerasTensor}` of the inputs that are of users.
        tasks: The tasks of the schema that the model has an output for.
        features: `{title feature: array of shape (titles, ...)}`, encoded.
        pairs: The `Feature`s of the graph that are of a user and a title.
        shares: Log shares of the titles, float32 of shape `(titles, speeds)`, where there is evidence of the first
            stage among `pairs`, `tfmtr.retrieval.first_stage`.
        counters: The `CounterTable`s of those that are looked up here, by the title and columns of the request.
        candidates: How many titles the first stage finds for each user.
        first_weight: Of the first stage's score in the final one, where a request says nothing else.

    Call arguments:
        request: `{name: tensor}` with the columns of `users`.
        index: Places of titles, integers of shape `(batch, n)`.
        evidence: `{pair feature: float32 of shape (batch, n)}` of those that are not looked up here.

    Returns:
        `{output: float32 of shape (batch, n)}`.
    """

    def __init__(
        self,
        graph: keras.Model,
        users: Mapping[str, keras.KerasTensor],
        tasks: tuple[Task, ...],
        features: Mapping[str, np.ndarray],
        *,
        pairs: Sequence[Feature] = (),
        shares: np.ndarray | None = None,
        counters: Sequence[CounterTable] = (),
        candidates: int = CANDIDATES,
        first_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.graph, self.users, self.tasks, self.candidates = graph, dict(users), tasks, candidates
        self.names, self.first_weight = sorted(graph.output), float(first_weight)
        self.features = {name: constant(self, name.replace("/", "_"), value) for name, value in features.items()}
        self.pairs = tuple(pairs)
        self.shares = None if shares is None else constant(self, f"{PREFIX}shares", shares)
        # A tuple: TensorFlow finds no table of layers that are in a list.
        self.counters = tuple(CounterLookup(table, name=f"counter_{place}") for place, table in enumerate(counters))
        self.built = True

    @property
    def has_evidence(self) -> bool:
        """Whether the model reads what the first stage knows."""
        return any(feature.name.startswith(PREFIX) for feature in self.pairs)

    def call(
        self, request: Mapping[str, tf.Tensor], index: tf.Tensor, evidence: Mapping[str, tf.Tensor] | None = None
    ) -> dict[str, tf.Tensor]:
        """Scores; see the class."""
        number, places = tf.shape(index)[1], tf.reshape(tf.maximum(index, 0), [-1])
        titles: dict[str, Any]
        titles = {name: tf.gather(tf.convert_to_tensor(value), places) for name, value in self.features.items()}
        evidence = dict(evidence or {})
        for counter in self.counters:
            evidence |= counter(request, index)
        for feature in self.pairs:
            titles[feature.name] = KINDS[feature.kind].look_up(tf.reshape(evidence[feature.name], [-1]), feature)
        outputs: dict[str, Any] = call_pairs(self.graph, {name: request[name] for name in self.users}, titles, number)
        return {name: tf.reshape(value, tf.shape(index)) for name, value in outputs.items()}

    def known(self, order: ListQuery, query: tf.Tensor, index: tf.Tensor, vectors: tf.Tensor) -> dict[str, tf.Tensor]:
        """What the first stage knows of titles, all but their rank: `parts_of`.

        Args:
            order: The list model's part of the queries.
            query: The list model's coordinates of users, of shape `(batch, width)`.
            index: Places of titles, of shape `(batch, n)`.
            vectors: Their coordinates, of shape `(batch, n, width)`.
        """
        shares = tf.gather(tf.convert_to_tensor(self.shares), tf.maximum(index, 0))
        return parts_of(query, vectors, shares, order.inputs_of.shape[1])

    def combined(self, outputs: Mapping[str, tf.Tensor], request: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The final score of each title, of shape `(batch, n)`.

        Args:
            outputs: What `call` returns.
            request: `{name: tensor}` with `combine_tasks` and the weights of `tasks`, of shape `(batch,)` or `(1,)`.

        Raises:
            tf.errors.InvalidArgumentError: If all weights of a row are 0, one is not finite, or `combine_tasks` is
                unknown.
        """
        batch = tf.shape(outputs[self.tasks[0].name])[:1]
        weights = tf.stack([tf.broadcast_to(request[weight_name(task.name)], batch) for task in self.tasks], axis=1)
        names = [weight_name(task.name) for task in self.tasks]
        is_weighted = tf.reduce_all(tf.math.is_finite(weights)) & tf.reduce_all(tf.reduce_any(weights != 0, axis=1))  # pyright: ignore[reportOperatorIssue]
        how = tf.broadcast_to(request[COMBINE], batch)
        is_known = tf.reduce_all((how == "") | tf.reduce_any(how[:, None] == tf.constant(COMBINED), axis=1))
        checks = [
            tf.debugging.Assert(is_weighted, [f"One of {names} must not be 0, and all must be finite.", weights]),
            tf.debugging.Assert(is_known, [f"`{COMBINE}` must be empty or one of {list(COMBINED)}.", how]),
        ]
        with tf.control_dependencies(checks):
            is_product = tf.identity(how == "product")[:, None]
        total = tf.zeros_like(outputs[self.tasks[0].name])
        for place, task in enumerate(self.tasks):
            value = outputs[task.name]
            own, log = value, tf.math.log(tf.maximum(value, LEAST))
            if task.kind == "binary":
                p = tf.clip_by_value(value, LEAST, 1 - LEAST)
                own = tf.math.log(p) - tf.math.log1p(-p)
            total += weights[:, place][:, None] * tf.where(is_product, log, own)
        return total


class CounterLookup(keras.layers.Layer):
    """A `CounterTable` in the graph, as two variables.

    Args:
        table: The table.

    Call arguments:
        request: `{name: tensor of shape (batch,)}` with the table's columns.
        index: Places of titles, integers of shape `(batch, n)`.

    Returns:
        `{feature: float32 of shape (batch, n)}`.
    """

    def __init__(self, table: CounterTable, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.table, self.number_of = table, lookup(table.texts)
        self.codes, self.values = constant(self, "codes", table.codes), constant(self, "values", table.values)
        self.built = True

    def call(self, request: Mapping[str, tf.Tensor], index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Looks up; see the class."""
        places = tf.cast(tf.maximum(index, 0), tf.int64)
        numbers = tf.zeros([tf.shape(index)[0], 1], tf.int64)
        if self.table.columns:
            texts = [request[name] for name in self.table.columns]
            text = texts[0] if len(texts) == 1 else tf.strings.join(texts, separator=SEPARATOR)
            numbers = tf.cast(self.number_of(text), tf.int64)[:, None]
        codes, known = self.table.code_of(places, numbers), tf.convert_to_tensor(self.codes)
        at = tf.reshape(tf.searchsorted(known, tf.reshape(codes, [-1])), tf.shape(codes))
        is_there = tf.gather(tf.concat([known, [-1]], axis=0), at) == codes
        found = tf.gather(tf.convert_to_tensor(self.values), tf.where(is_there, at, tf.size(known)))
        return {name: found[..., place] for place, name in enumerate(self.table.names)}


def build_second_stage(
    model: JointModel,
    schema: Schema,
    titles: Dataset,
    *,
    candidates: int = CANDIDATES,
    first_weight: float = 0.0,
    calibrate: Callable[..., dict[str, keras.KerasTensor]] | None = None,
    shares: np.ndarray | None = None,
    counters: Sequence[CounterTable] = (),
) -> SecondStage:
    """The second stage of a ranking model over the titles of a prepared directory.

    Args:
        model: A model of the form `ranking`.
        schema: Its `Schema`.
        titles: The `Dataset`, whose titles are those of the index, in its order.
        candidates: How many titles the first stage finds for each user.
        first_weight: As for `SecondStage`.
        calibrate: As for `pair_graph`.
        shares: As for `SecondStage`.
        counters: As for `SecondStage`.
    """
    pairs, raw = pair_graph(model, schema, calibrate)
    served = tuple(task for task in schema.tasks if task.name in pairs.output)
    options: dict[str, Any] = {"candidates": candidates, "first_weight": first_weight}
    options |= {"pairs": schema.by_role(PAIR), "shares": shares, "counters": counters}
    return SecondStage(pairs, raw, served, title_arrays(titles, schema), **options)


def pair_graph(
    model: JointModel, schema: Schema, calibrate: Callable[..., dict[str, keras.KerasTensor]] | None = None
) -> tuple[keras.Model, dict[str, keras.KerasTensor]]:
    """`(graph, users)` of a ranking model, as `SecondStage` takes them.

    Args:
        model: A model of the form `ranking`.
        schema: Its `Schema`.
        calibrate: `calibrate(outputs, raw, encoded, schema) -> outputs` of the served graph; by default nothing.
    """
    raw = raw_inputs(schema, "user", "context", scenario=True)
    encoded, of_titles = look_up(raw, schema, "user", "context", scenario=True), encode_inputs(schema, "title", PAIR)
    # The predictor's operations, not the predictor as one operation: then each runs on the rows that it needs.
    outputs = model.predictor.call({**encoded, **of_titles})
    if calibrate is not None:
        outputs = calibrate(outputs, raw, encoded, schema)
    return graph({**raw, **of_titles}, outputs), raw


def title_arrays(titles: Dataset, schema: Schema) -> dict[str, np.ndarray]:
    """`{feature: array of shape (titles, ...)}` of all titles of a prepared directory, encoded, in their order."""
    parts = [features for _, features in feature_tables(titles, schema)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

"""What every head is made of."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

from keras import KerasTensor, ops

from tfmtr import replicas
from tfmtr.components import TWO_TOWER_ONLY
from tfmtr.schema import Feature, Schema, Task

Tensors = dict[str, KerasTensor]  # by the name of an input, a tower, an output, a label column or a loss


class Context(TypedDict):
    """What `Head.losses` is given beside labels."""

    scenario: KerasTensor
    training: Tensors
    sample_weight: NotRequired[KerasTensor | Tensors | None]


class Tower(NamedTuple):
    """A tower that a head asks for.

    Attributes:
        start: Where the bias of its logit starts.
        is_served: Whether the served graph needs it; otherwise it exists in training only.
    """

    start: float | None = 0.0
    is_served: bool = True


class TrainingGraph(NamedTuple):
    """What a head's training-only part may be built from.

    Attributes:
        schema: The `Schema`.
        inputs: `{name: KerasTensor}` of all features, those of the role `"training"` among them, and `scenario`.
        bases: `{tower: tensor of shape (batch, width)}`, what each tower's own layers start from.
        vectors: `{tower: tensor of shape (batch, units)}`, related.
        logits: `{tower: tensor of shape (batch, 1)}`.
        queries: In two-tower form `{tower: tensor of shape (batch, d)}`, otherwise empty.
        title: In two-tower form the title vectors of the rows, shape `(batch, d)`, otherwise `None`.
    """

    schema: Schema
    inputs: Tensors
    bases: Tensors
    vectors: Tensors
    logits: Tensors
    queries: Tensors
    title: KerasTensor | None


class Pair(NamedTuple):
    """What a two-tower model scores and serves of a user and a title.

    Attributes:
        queries: `{tower: tensor of shape (batch, d)}`.
        title: The title vectors, shape `(batch, d)`.
        training: `{name: tensor}`, what the losses need beside what `Head.training` makes.
    """

    queries: Tensors
    title: KerasTensor
    training: Tensors = {}  # noqa: RUF012  # nobody writes into it


def identity(vectors: Tensors) -> Tensors:
    """Towers that are not related to one another."""
    return vectors


def nothing(graph: TrainingGraph) -> Tensors:
    """No training-only part."""
    return {}


class Head(NamedTuple):
    """Functions between the towers and the losses; the first three are in every head.

    Attributes:
        towers: `towers() -> {tower: Tower}`.
        outputs: `outputs(logits) -> {name: tensor of shape (batch, 1)}`, the serving graph.
        losses: `losses(outputs, logits, vectors, labels, context) -> {name: scalar}`. `labels` is
            `{column: float tensor of shape (batch,)}` with NaN where a label was not observed;
            `context` holds `scenario`, `training` (what `training` returned) and may hold `sample_weight`, a tensor
            of shape `(batch,)` or one for each task.
        relate: `relate(vectors) -> vectors` before score.
        training: `training(TrainingGraph) -> {name: tensor}`, the part of the graph that exists in training only:
            layers between training-only features, logits and vectors whose outputs the losses need.
        features: Training-only features that the head reads and every table of examples has; they are added to a schema
            that does not name them.
        pair: `pair(queries, title) -> Pair` in two-tower form, before the dot product: other queries and title
            vectors, which are scored, indexed and served in the place of the towers' own.
        is_two_tower_only: Whether the head needs queries and title vectors; `two_tower_only` sets it.
    """

    towers: Callable[[], dict[str, Tower]]
    outputs: Callable[[Tensors], Tensors]
    losses: Callable[[Tensors, Tensors, Tensors, Tensors, Context], Tensors]
    relate: Callable[[Tensors], Tensors] = identity
    training: Callable[[TrainingGraph], Tensors] = nothing
    features: tuple[Feature, ...] = ()
    pair: Callable[[Tensors, KerasTensor], Pair] = Pair
    is_two_tower_only: bool = False

    def complete(self, schema: Schema) -> Schema:
        """The schema with the features that the head reads."""
        names_so_far = {feature.name for feature in schema.features}
        more = {feature.name: feature for feature in self.features if feature.name not in names_so_far}
        return schema.replace(features=[*schema.features, *more.values()])


def two_tower_only(head: Callable[..., Head]) -> Callable[..., Head]:
    """Says above a head's function that it needs queries and title vectors, so that a ranking recipe refuses it."""

    @functools.wraps(head)
    def marked(*args: Any, **kwargs: Any) -> Head:
        return head(*args, **kwargs)._replace(is_two_tower_only=True)

    setattr(marked, TWO_TOWER_ONLY, True)
    return marked


def training_feature(schema: Schema, name: str, head: str) -> Feature:
    """The training-only feature of a name.

    Raises:
        ValueError: If the schema has none; the message names the head.
    """
    features = {feature.name: feature for feature in schema.by_role("training")}
    if name not in features:
        raise ValueError(
            f'`head={head}` reads a feature that is known in training only: add Feature({name!r}, "training", ...) to '
            f"the schema. Received: training features {sorted(features)}"
        )
    return features[name]


def number_of(graph: TrainingGraph, feature: Feature) -> KerasTensor:
    """A number feature as the log has it: model inputs are normalised."""
    return graph.inputs[feature.name] * feature.std + feature.mean


def log_odds(mean: float) -> float:
    """Logit of a mean label, kept finite.

    >>> log_odds(0.5)
    0.0
    """
    mean = min(max(mean, 1e-6), 1 - 1e-6)
    return math.log(mean / (1 - mean))


def start(task: Task) -> float:
    """Where a task's own logit starts: its mean label's log-odds, or for regression the mean itself."""
    return task.mean if task.kind == "regression" else log_odds(task.mean)


def observed_mean(values: KerasTensor, labels: KerasTensor, weights: KerasTensor | None = None) -> KerasTensor:
    """Mean of `values` over the rows whose label was observed; zero if there are none.

    `(1/N) sum_i mask_i weight_i value_i` with N the number of observed rows, so that weights scale the
    loss instead of cancelling out. All arguments have shape `(batch,)`; unobserved labels are NaN. With several
    replicas N counts the rows of all, so that the means of the replicas add up to the mean of all rows.

    >>> nan = float("nan")
    >>> float(observed_mean(ops.array([1.0, 5.0, 3.0]), ops.array([0.0, nan, 1.0])))
    2.0
    """
    mask = ops.logical_not(ops.isnan(labels))
    count = ops.sum(ops.cast(mask, values.dtype))
    if weights is not None:
        values = values * ops.cast(weights, values.dtype)
    return ops.sum(ops.where(mask, values, ops.zeros_like(values))) / ops.maximum(replicas.total(count), 1)


def known(labels: KerasTensor) -> KerasTensor:
    """Labels with 0 in place of NaN, so that neither a loss nor its gradient meets a NaN."""
    return ops.where(ops.isnan(labels), ops.zeros_like(labels), labels)


def row_loss(task: Task, logit: KerasTensor, label: KerasTensor) -> KerasTensor:
    """Loss of every row, shape `(batch,)`: cross-entropy from the logit, or half the squared error.

    A row with a NaN label has the loss of label 0, which is finite; `observed_mean` masks it.
    """
    if task.kind == "binary":
        return ops.softplus(logit) - known(label) * logit
    return 0.5 * ops.square(logit - known(label))


def row_weights(task: Task, context: Context) -> KerasTensor | None:
    """A task's weights of the rows, shape `(batch,)`, or `None`: `sample_weight` is for all tasks or one for each.

    Those of each have the task's name, or, as Keras makes them of one array that `fit` is given, its label column.
    """
    weights = context.get("sample_weight")
    return weights.get(task.name, weights.get(task.column)) if isinstance(weights, dict) else weights


def task_towers(tasks: Sequence[Task]) -> dict[str, Tower]:
    """One tower a task, which starts at the task's mean."""
    return {task.name: Tower(start(task)) for task in tasks}


def task_outputs(tasks: Sequence[Task], logits: Tensors) -> Tensors:
    """Each task's own output: `sigmoid(logit)`, or for regression the logit itself."""
    return {task.name: ops.sigmoid(logits[task.name]) if task.kind == "binary" else logits[task.name] for task in tasks}


def task_losses(tasks: Sequence[Task], logits: Tensors, labels: Tensors, context: Context) -> Tensors:
    """Each task's own loss, the weighted mean over the rows where its label was observed."""
    result = {}
    for task in tasks:
        loss = row_loss(task, logits[task.name][:, 0], labels[task.column])
        result[task.name] = task.weight * observed_mean(loss, labels[task.column], row_weights(task, context))
    return result

"""What several ways to debias share: popularity, and titles of other rows as negatives."""

from collections.abc import Callable, Iterator, Sequence

from keras import KerasTensor, ops

from tfmtr.checks import check_integer
from tfmtr.heads._head import (
    Context,
    Head,
    Tensors,
    Tower,
    TrainingGraph,
    observed_mean,
    row_weights,
    task_outputs,
)
from tfmtr.layers.title_popularity import TitlePopularity
from tfmtr.schema import Feature, Task

TITLE = Feature("title", "training", "string", width=2**31 - 1)  # a hash: no table is as wide

PairLoss = Callable[[Tensors, Tensors, str], KerasTensor]


def popularity_of(graph: TrainingGraph) -> KerasTensor:
    """Popularity of the rows' titles among the training rows' positives, shape `(batch,)`, in (0, 1].

    Raises:
        ValueError: If the schema's feature `title` does not tell titles apart.
    """
    kind = {feature.name: feature.kind for feature in graph.schema.features}[TITLE.name]
    if kind not in ("id", "string"):
        raise ValueError(f"`debias` needs a feature {TITLE.name!r} of kind id or string. Received: kind={kind!r}")
    return TitlePopularity(name="title_popularity")(graph.inputs[TITLE.name])


def check_binary(name: str, tasks: Sequence[Task]) -> None:
    """Raises a `ValueError` that names the file unless all tasks are binary."""
    others = [task.name for task in tasks if task.kind != "binary"]
    if others:
        raise ValueError(f"`debias={name}` is for binary tasks. Received others: {others}")


def weighed(
    tasks: Sequence[Task], head: Head, label: int, weight: Callable[[KerasTensor], KerasTensor], *, is_normalized: bool
) -> Head:
    """A head in whose losses binary tasks' rows of a label count by a weight of their title's popularity.

    Args:
        tasks: The schema's tasks.
        head: The `Head`.
        label: 0 or 1.
        weight: Function from popularity to weights, both of shape `(batch,)`.
        is_normalized: Whether weights have the mean 1 over a batch's rows of the label.
    """

    def training(graph: TrainingGraph) -> Tensors:
        return head.training(graph) | {"title_weight": weight(popularity_of(graph))}

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        of_title, weights = context["training"]["title_weight"], {}
        for task in tasks:
            given, is_it, own = row_weights(task, context), labels[task.column] == label, ops.ones_like(of_title)
            if task.kind == "binary":
                mean = observed_mean(of_title, ops.where(is_it, own, float("nan"))) if is_normalized else 1.0
                own = ops.where(is_it, of_title / ops.maximum(mean, 1e-6), own)
            weights[task.name] = own if given is None else own * ops.cast(given, own.dtype)
        return head.losses(outputs, logits, vectors, labels, {**context, "sample_weight": weights})

    return head._replace(losses=losses, training=training, features=(*head.features, TITLE))


def check_has_binary(name: str, tasks: Sequence[Task]) -> None:
    """Raises a `ValueError` that names the file unless a task is binary."""
    if not any(task.kind == "binary" for task in tasks):
        raise ValueError(f"`debias={name}` needs a binary task. Received: {[task.name for task in tasks]}")


def negatives(rows: Tensors, label: KerasTensor, number: int) -> Iterator[tuple[Tensors, KerasTensor]]:
    """For each row the titles of some others: `(those of other rows, whether they are negatives of this row)`.

    The k-th is the row k places before, around the end of the batch. It is a negative if nothing happened in it and its
    title is another one. Rows are in a random order, so these are the titles without an event as often as the examples
    have them, which are sampled.

    Args:
        rows: `{name: tensor of shape (batch, ...)}` with `"id"`, the titles' ids.
        label: Tensor of shape `(batch,)`, NaN where it was not observed.
        number: How many.
    """
    for k in range(1, number + 1):
        others = {name: ops.roll(tensor, k, axis=0) for name, tensor in rows.items()}
        yield others, ops.logical_and(others["id"] != rows["id"], ops.roll(label, k, axis=0) == 0)


def pairwise_head(
    tasks: Sequence[Task], loss: PairLoss, number: int, training: Callable[[TrainingGraph], Tensors]
) -> Head:
    """A head whose losses compare a row of label 1 with titles in which nothing happened.

        L_t = - 1/N sum_{i: label 1} mean_{j in negatives of i} log sigmoid(difference of i and j)

    Args:
        tasks: Binary tasks.
        loss: `loss(rows, others, task) -> tensor of shape (batch,)`, of what `training` made, and of the same with the
            titles of other rows. Both have queries as they are in `rows`.
        number: Negatives of a row.
        training: As of `Head`, with `"id"` and what `loss` needs; names that begin with `query/` are of the user.

    Returns:
        A `Head` without biases: they do not change the order of titles.

    Raises:
        ValueError: If `number` is no positive integer.
    """
    check_integer("num_negatives", number, least=1)

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        queries = {name: tensor for name, tensor in context["training"].items() if name.startswith("query/")}
        rows = {name: tensor for name, tensor in context["training"].items() if name not in queries}
        result = {}
        for task in tasks:
            label = labels[task.column]
            total, count = ops.zeros_like(label), ops.zeros_like(label)
            for others, is_negative in negatives(rows, label, number):
                values = loss(rows | queries, others | queries, task.name)
                total = total + ops.where(is_negative, values, ops.zeros_like(values))
                count = count + ops.cast(is_negative, label.dtype)
            positive = ops.where(label == 1, label, float("nan"))
            mean = total / ops.maximum(count, 1)
            result[task.name] = task.weight * observed_mean(mean, positive, row_weights(task, context))
        return result

    return Head(
        lambda: {task.name: Tower(None) for task in tasks},
        lambda logits: task_outputs(tasks, logits),
        losses,
        training=training,
        features=(TITLE,),
    )

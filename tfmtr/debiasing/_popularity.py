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

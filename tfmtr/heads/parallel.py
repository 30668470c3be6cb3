"""Independent tasks: a weighted sum of losses."""

from collections.abc import Sequence
from typing import Literal

from keras import KerasTensor, ops

from tfmtr import replicas
from tfmtr.checks import check_choice
from tfmtr.heads._head import Context, Head, Tensors, row_loss, row_weights, task_losses, task_outputs, task_towers
from tfmtr.schema import Task


def parallel(
    tasks: Sequence[Task], *, normalizer: Literal["rows", "groups"] = "rows", num_groups: int | None = None
) -> Head:
    """One tower a task, one loss a task, nothing between them.

    Binary tasks: `p = sigmoid(logit)` and binary cross-entropy; regression tasks: the logit itself and
    half the squared error. Each loss is the mean over the rows where the task's label was observed, times
    the task's weight (Zhao et al., Joint Modeling in Recommendations: A Survey, 2025, equation 4).

    With `normalizer="groups"` it is the sum of the scenarios' own means,

        L_t = sum_s 1/N_s sum_{i in s} loss(logit_i, label_i)          N_s observed rows of scenario s,

    so that a scenario of few rows weighs as much as one of many (Zhang et al., M3oE, SIGIR 2024, equation 12).
    A scenario that is absent from the batch adds nothing.

    Args:
        tasks: The schema's tasks.
        normalizer: `"rows"` or `"groups"`.
        num_groups: Number of the schema's named scenarios, for `normalizer="groups"`; rows of scenario index 0,
            whose scenario is unknown, are one group more.

    Returns:
        A `Head`.

    Raises:
        ValueError: If `normalizer` is unknown, or `num_groups` is not given for `"groups"` only.

    Example:
    >>> from tfmtr.schema import Task
    >>> head = parallel([Task("click")])
    >>> float(head.outputs({"click": ops.zeros((1, 1))})["click"][0, 0])
    0.5
    """
    check_choice("normalizer", normalizer, ("rows", "groups"))
    if (normalizer == "groups") != (num_groups is not None):
        raise ValueError(
            'Give `num_groups`, the schema\'s `scenario.num_groups`, with `normalizer="groups"` and only then. '
            f"Received: normalizer={normalizer!r}, num_groups={num_groups!r}"
        )

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        if normalizer == "rows":
            return task_losses(tasks, logits, labels, context)
        result = {}
        for task in tasks:
            label, weights = labels[task.column], row_weights(task, context)
            loss = row_loss(task, logits[task.name][:, 0], label)
            mean = _sum_of_means(loss, label, context["scenario"], num_groups + 1, weights)
            result[task.name] = task.weight * mean
        return result

    return Head(lambda: task_towers(tasks), lambda logits: task_outputs(tasks, logits), losses)


def _sum_of_means(
    values: KerasTensor, labels: KerasTensor, scenario: KerasTensor, num_scenarios: int, weights: KerasTensor | None
) -> KerasTensor:
    """Sum over the scenarios of `observed_mean` over each one's rows."""
    observed = ops.logical_not(ops.isnan(labels))
    count = ops.segment_sum(ops.cast(observed, values.dtype), scenario, num_scenarios)
    if weights is not None:
        values = values * ops.cast(weights, values.dtype)
    values = ops.where(observed, values, ops.zeros_like(values))
    return ops.sum(ops.segment_sum(values, scenario, num_scenarios) / ops.maximum(replicas.total(count), 1))

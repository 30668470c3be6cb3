"""Losses over the clicked rows that are reweighted to stand for all rows."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from tfmtr.heads._cascade import cascade_label
from tfmtr.heads._head import Context, Tensors, observed_mean, row_loss, row_weights
from tfmtr.heads._probability import LogProbability
from tfmtr.schema import Task


def propensity(probability: LogProbability, clip: float) -> KerasTensor:
    """Probability that a row is selected, of shape `(batch,)`: no gradient flows into it, and it is at least `clip`."""
    return ops.maximum(ops.stop_gradient(probability.probability()[:, 0]), clip)


def check_clip(clip: float) -> None:
    """Raises a `ValueError` unless the smallest propensity is in (0, 1]."""
    if not 0.0 < clip <= 1.0:
        raise ValueError(f"`clip` must be in (0, 1]: it is the smallest propensity. Received: clip={clip}")


def selection(task: Task, before: Task, tasks: Sequence[Task], labels: Tensors) -> tuple[KerasTensor, KerasTensor]:
    """Where the task before happened: `(o, label)`, 1 or 0 of shape `(batch,)`, and the label that masks the mean.

    Rows count in the mean if they are known not to be selected, or are selected with a known label.
    """
    happened = cascade_label(before, tasks, labels)
    return ops.cast(happened == 1, "float32"), cascade_label(task, tasks, labels)


def inverse_propensity_loss(
    task: Task,
    before: Task,
    tasks: Sequence[Task],
    logit: KerasTensor,
    probability: LogProbability,
    labels: Tensors,
    context: Context,
    clip: float,
) -> KerasTensor:
    """Inverse propensity weighting: `1/N sum_i o_i CE_i / max(p_i, clip)`, times the task's weight.

    Args:
        task: The task, given `before`.
        before: The task that it follows.
        tasks: All tasks.
        logit: Of the conditional probability, shape `(batch,)`.
        probability: `LogProbability` of `before`, of shape `(batch, 1)`.
        labels: As for a head's losses.
        context: As for a head's losses.
        clip: Smallest propensity.
    """
    o, label = selection(task, before, tasks, labels)
    values = o * row_loss(task, logit, labels[task.column]) / propensity(probability, clip)
    return task.weight * observed_mean(values, label, row_weights(task, context))


def doubly_robust_losses(
    task: Task,
    before: Task,
    tasks: Sequence[Task],
    logit: KerasTensor,
    imputation: KerasTensor,
    probability: LogProbability,
    labels: Tensors,
    context: Context,
    clip: float,
) -> tuple[KerasTensor, KerasTensor]:
    """Doubly robust estimate with an imputed error `e = softplus(imputation)`; returns `(loss, imputation loss)`.

        DR  = 1/N sum_i (e_i + o_i (CE_i - e_i) / max(p_i, clip))
        IMP = 1/N sum_i o_i (sg(CE_i) - e_i)^2 / max(p_i, clip)

    Unbiased if the propensities or the imputed errors are right. Arguments as for `inverse_propensity_loss`.
    """
    o, label = selection(task, before, tasks, labels)
    weights = row_weights(task, context)
    error, imputed = row_loss(task, logit, labels[task.column]), ops.softplus(imputation)
    p = propensity(probability, clip)
    robust = imputed + o * (error - imputed) / p
    miss = o * ops.square(ops.stop_gradient(error) - imputed) / p
    loss, imputation_loss = (task.weight * observed_mean(values, label, weights) for values in (robust, miss))
    return loss, imputation_loss


def imputation_name(task: Task) -> str:
    """Name of the training-only tower that imputes a task's error."""
    return f"{task.name}_imputation"

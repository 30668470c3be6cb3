"""Conversion in the space of clicks and, with a tower of its own, in the space of rows that were not clicked."""

from collections.abc import Sequence

from keras import ops

from tfmtr.heads._cascade import (
    cascade_outputs,
    cascade_probabilities,
    cascade_towers,
    check_cascade,
    entire_space_loss,
    followers,
    own_losses,
)
from tfmtr.heads._counterfactual import check_clip, propensity, selection
from tfmtr.heads._head import Context, Head, Tensors, Tower, observed_mean, row_loss, row_weights
from tfmtr.schema import Task


def dcmt(tasks: Sequence[Task], *, constraint_weight: float = 0.001, clip: float = 0.02) -> Head:
    """Learns what would have been: a counterfactual tower predicts the opposite of a conversion where none was clicked.

    With `o` the click, `p = sg(pCTR)`, `r` the conversion, pCVR `f` and the counterfactual tower's `f*`:

        factual        = 1/N sum_i o_i CE(f_i, r_i) / max(p_i, clip)
        counterfactual = 1/N sum_i (1 - o_i) CE(f*_i, 1 - r_i) / max(1 - p_i, clip)
        constraint     = 1/N sum_i |1 - (f_i + f*_i)|
        L = CE(pCTR, click) + factual + counterfactual + constraint_weight constraint + CE(pCTR f, click r)

    Where nobody clicked nobody converted, so the counterfactual label `1 - r` is 1 there. The two towers share the
    representation, so pCVR learns from the rows without a click too; the soft constraint keeps the two predictions
    opposite without forcing them to be.

    Reference: Zhu et al., DCMT: A Direct Entire-Space Causal Multi-Task Framework for Post-Click Conversion
    Estimation, ICDE 2023, https://arxiv.org/abs/2302.06141, section III. There the two conversion towers are one "twin
    tower" with shared lower layers, which is the sharing file's part here; the weights are not self-normalised.

    Args:
        tasks: The schema's tasks, one or more of them with `after`.
        constraint_weight: Factor of the constraint.
        clip: Smallest propensity of a click and of none, in (0, 1].

    Returns:
        A `Head` with outputs such as `click`, `purchase|click` and `purchase`.

    Raises:
        ValueError: If no task follows another, the tasks' `after` make no chains of binary tasks, `constraint_weight`
            is negative, or `clip` is not in (0, 1].
    """
    check_cascade(tasks, "dcmt")
    check_clip(clip)
    if constraint_weight < 0:
        raise ValueError(f"`constraint_weight` must not be negative. Received: constraint_weight={constraint_weight}")

    def towers() -> dict[str, Tower]:
        factual_towers = cascade_towers(tasks)
        opposite = {
            opposite_name(task): Tower(-factual_towers[task.name].start, is_served=False)
            for task, _ in followers(tasks)
        }
        return factual_towers | opposite

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        probabilities = cascade_probabilities(tasks, logits)
        result = own_losses(tasks, logits, labels, context)
        for task, before in followers(tasks):
            o, label = selection(task, before, tasks, labels)
            logit, opposite = logits[task.name][:, 0], logits[opposite_name(task)][:, 0]
            p = propensity(probabilities[before.name], 0.0)
            factual = o * row_loss(task, logit, label) / ops.maximum(p, clip)
            counterfactual = (1 - o) * row_loss(task, opposite, 1 - label) / ops.maximum(1 - p, clip)
            constraint = ops.abs(1 - ops.sigmoid(logit) - ops.sigmoid(opposite))
            values = factual + counterfactual + constraint_weight * constraint
            mean = observed_mean(values, label, row_weights(task, context))
            result[f"{task.name}|{before.name}"] = task.weight * mean
            result[task.name] = entire_space_loss(task, tasks, probabilities[task.name], labels, context)
        return result

    return Head(towers, lambda logits: cascade_outputs(tasks, logits), losses)


def opposite_name(task: Task) -> str:
    """Name of the training-only counterfactual tower of a task."""
    return f"{task.name}_counterfactual"

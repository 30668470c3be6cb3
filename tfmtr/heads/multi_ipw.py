"""Conversion on clicked rows, each weighted by the inverse of its click probability."""

from collections.abc import Sequence

from tfmtr.heads._cascade import (
    cascade_outputs,
    cascade_probabilities,
    cascade_towers,
    check_cascade,
    followers,
    own_losses,
)
from tfmtr.heads._counterfactual import check_clip, inverse_propensity_loss
from tfmtr.heads._head import Context, Head, Tensors
from tfmtr.schema import Task


def multi_ipw(tasks: Sequence[Task], *, clip: float = 0.02) -> Head:
    """Makes the clicked rows stand for all rows, the unlikely clicks most of all.

        L = CE(pCTR, click) + 1/N sum_i o_i CE(pCVR_i, conversion_i) / max(sg(pCTR_i), clip)

    with `o_i` the click and `sg` a stopped gradient: the loss of the conversion must not pull at the propensity. If
    the click tower is right, this is the loss over all impressions without bias, with more variance the rarer clicks
    are; `clip` trades some of it for bias.

    Reference: Zhang et al., Large-scale Causal Approaches to Debiasing Post-click Conversion Rate Estimation with
    Multi-task Learning, WWW 2020, https://arxiv.org/abs/1910.09337, section 4.1. Where a task follows one that follows
    another, the propensity is that of the whole chain before it.

    Args:
        tasks: The schema's tasks, one or more of them with `after`.
        clip: Smallest propensity, in (0, 1].

    Returns:
        A `Head` with outputs such as `click`, `purchase|click` and `purchase`.

    Raises:
        ValueError: If no task follows another, the tasks' `after` make no chains of binary tasks, or `clip` is not
            in (0, 1].
    """
    check_cascade(tasks, "multi_ipw")
    check_clip(clip)

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        probabilities = cascade_probabilities(tasks, logits)
        return own_losses(tasks, logits, labels, context) | {
            task.name: inverse_propensity_loss(
                task, before, tasks, logits[task.name][:, 0], probabilities[before.name], labels, context, clip
            )
            for task, before in followers(tasks)
        }

    return Head(lambda: cascade_towers(tasks), lambda logits: cascade_outputs(tasks, logits), losses)

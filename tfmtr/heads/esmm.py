"""Conversion after click learnt over the entire space of impressions."""

from collections.abc import Sequence

from tfmtr.heads._cascade import (
    cascade_outputs,
    cascade_probabilities,
    cascade_towers,
    check_cascade,
    entire_space_loss,
    followers,
    own_losses,
)
from tfmtr.heads._head import Context, Head, Tensors
from tfmtr.schema import Task


def esmm(tasks: Sequence[Task]) -> Head:
    """Trains the conversion rate through its product with the click rate, which every row has a label for.

        pCTCVR = pCTR pCVR,    L = 1/N sum_i CE(pCTR_i, click_i) + 1/N sum_i CE(pCTCVR_i, click_i conversion_i)

    The conversion tower has no loss of its own: both losses are over all impressions, so there is no bias of
    selection. Longer chains multiply on, with one such loss a task.

    Reference: Ma et al., Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion
    Rate, SIGIR 2018, https://arxiv.org/abs/1804.07931, section 2.3, equations 1 and 3.

    Args:
        tasks: The schema's tasks, one or more of them with `after`.

    Returns:
        A `Head` with outputs such as `click`, `purchase|click` and `purchase`.

    Raises:
        ValueError: If no task follows another, or the tasks' `after` make no chains of binary tasks.
    """
    check_cascade(tasks, "esmm")

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        probabilities = cascade_probabilities(tasks, logits)
        return own_losses(tasks, logits, labels, context) | {
            task.name: entire_space_loss(task, tasks, probabilities[task.name], labels, context)
            for task, _ in followers(tasks)
        }

    return Head(lambda: cascade_towers(tasks), lambda logits: cascade_outputs(tasks, logits), losses)

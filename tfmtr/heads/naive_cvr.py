"""Conversion trained on clicked rows alone: the baseline whose selection bias the other heads remove."""

from collections.abc import Sequence

from keras import ops

from tfmtr.heads._cascade import (
    cascade_label,
    cascade_outputs,
    cascade_towers,
    check_cascade,
    followers,
    own_losses,
)
from tfmtr.heads._head import Context, Head, Tensors, observed_mean, row_loss, row_weights
from tfmtr.schema import Task


def naive_cvr(tasks: Sequence[Task]) -> Head:
    """Trains each task on the rows in which the task that it follows happened.

        L_cvr = 1/|O| sum_{i in O} CE(pCVR_i, conversion_i)            O the clicked rows

    and serves `pCTCVR = pCTR pCVR` for all rows. If what makes people click also makes them convert, the clicked
    rows are no sample of all rows, and the conversion rate of the others is wrong. Tasks that follow no other are
    trained as in `parallel`.

    Reference: the baseline of Ma et al., Entire Space Multi-Task Model, SIGIR 2018,
    https://arxiv.org/abs/1804.07931, section 2.1.

    Args:
        tasks: The schema's tasks, one or more of them with `after`.

    Returns:
        A `Head` with outputs such as `click`, `purchase|click` and `purchase`.

    Raises:
        ValueError: If no task follows another, or the tasks' `after` make no chains of binary tasks.
    """
    check_cascade(tasks, "naive_cvr")

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        result = own_losses(tasks, logits, labels, context)
        for task, before in followers(tasks):
            happened = cascade_label(before, tasks, labels) == 1
            label = ops.where(happened, labels[task.column], float("nan"))
            loss = row_loss(task, logits[task.name][:, 0], label)
            result[task.name] = task.weight * observed_mean(loss, label, row_weights(task, context))
        return result

    return Head(lambda: cascade_towers(tasks), lambda logits: cascade_outputs(tasks, logits), losses)

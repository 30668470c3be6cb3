"""A click, then levels of actions of which each makes the next one likelier: what ESM2 and HM3 share."""

from collections.abc import Sequence

from tfmtr.heads._cascade import check_cascade, conditional_name, entire_space_loss, own_losses, served
from tfmtr.heads._head import Context, Head, Tensors, Tower, start
from tfmtr.heads._probability import LogProbability
from tfmtr.schema import Task


def post_click(tasks: Sequence[Task], head: str, num_levels: int) -> Head:
    """A head of one click and `num_levels` levels after it, each reached through the level before or around it.

        q_1 = p(1 | click),    q_k = q_{k-1} p(k | k-1) + (1 - q_{k-1}) p(k | not k-1)
        L = CE(p(click)) + sum_k CE(p(click) q_k),    all over all impressions

    The tower of level k is its probability after level k - 1, the tower `<k>_otherwise` without it.

    Args:
        tasks: The schema's tasks; the levels, in this order, are those after the same click.
        head: Name of the head, for its errors.
        num_levels: Number of levels.

    Returns:
        A `Head`.

    Raises:
        ValueError: If there are not `num_levels` tasks after one and the same task that follows no other.
    """
    check_cascade(tasks, head)
    levels = [task for task in tasks if task.after is not None]
    (click, *_) = (task for task in tasks if task.name == levels[0].after)
    if len(levels) != num_levels or any(task.after != click.name for task in levels) or click.after is not None:
        raise ValueError(
            f"`head={head}` needs {num_levels} tasks after one and the same click, the goal last. Received: "
            f"{[f'{task.name} after {task.after}' for task in levels]}"
        )

    def towers() -> dict[str, Tower]:
        task_towers = {task.name: Tower(start(task) if task.after is None else 0.0) for task in tasks}
        return task_towers | {f"{task.name}_otherwise": Tower() for task in levels[1:]}

    def probabilities(logits: Tensors) -> dict[str, LogProbability]:
        own_probabilities = {task.name: LogProbability.of(logits[task.name]) for task in tasks if task.kind == "binary"}
        after_click = None
        for level in levels:
            task_towers = own_probabilities[level.name]
            if after_click is not None:
                task_towers = after_click.either(task_towers, LogProbability.of(logits[f"{level.name}_otherwise"]))
            after_click = task_towers
            own_probabilities[conditional_name(level)] = after_click
            own_probabilities[level.name] = own_probabilities[click.name].then(after_click)
        return own_probabilities

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        own_probabilities = probabilities(logits)
        return own_losses(tasks, logits, labels, context) | {
            task.name: entire_space_loss(task, tasks, own_probabilities[task.name], labels, context) for task in levels
        }

    return Head(towers, lambda logits: served(tasks, logits, probabilities(logits)), losses)

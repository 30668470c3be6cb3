"""Tasks that follow one another, such as a click and the purchase after it."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from tfmtr.checks import check_choice
from tfmtr.heads._head import Context, Tensors, Tower, known, log_odds, observed_mean, row_weights, start, task_losses
from tfmtr.heads._probability import LogProbability
from tfmtr.schema import Task


def check_cascade(tasks: Sequence[Task], head: str) -> None:
    """Raises a `ValueError` unless the tasks' `after` make one or more chains of binary tasks."""
    by_name = {task.name: task for task in tasks}
    after_another = [task for task in tasks if task.after is not None]
    if not after_another:
        raise ValueError(
            f"`head={head}` is for tasks that follow one another: say so with Task(..., after=...), such as a purchase "
            f"after a click. Received: tasks {sorted(by_name)}, none after another"
        )
    for task in after_another:
        check_choice("after", task.after, by_name, of=f" of task {task.name!r}")
        for one in (task, by_name[task.after]):
            if one.kind != "binary":
                raise ValueError(
                    f"A task that follows another and the one it follows must be binary. Received: {one.name!r} of "
                    f"kind {one.kind!r} in {task.name!r} after {task.after!r}"
                )
        seen, name = [task.name], task.after
        while name is not None:
            if name in seen:
                raise ValueError(f"Tasks must not follow one another in a circle. Received: {' after '.join(seen)}")
            seen.append(name)
            name = by_name[name].after


def by_depth(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, each behind the one that it follows."""
    by_name = {task.name: task for task in tasks}

    def depth(task: Task) -> int:
        return 0 if task.after is None else 1 + depth(by_name[task.after])

    return sorted(tasks, key=depth)


def conditional_name(task: Task) -> str:
    """Name of the probability of a task given the one it follows: `purchase|click`."""
    return f"{task.name}|{task.after}"


def cascade_towers(tasks: Sequence[Task]) -> dict[str, Tower]:
    """A tower for each task; that of one that follows another starts at the conditional mean."""
    means = {task.name: task.mean for task in tasks}
    return {
        task.name: Tower(
            start(task) if task.after is None else log_odds(min(task.mean / max(means[task.after], 1e-6), 1.0))
        )
        for task in tasks
    }


def cascade_probabilities(tasks: Sequence[Task], logits: Tensors) -> dict[str, LogProbability]:
    """`{name: LogProbability}` of all binary tasks, those that follow others conditional and not.

    The tower of a task that follows another has the logit of the conditional probability, so that

        p(purchase|click) = sigmoid(logit_purchase),    p(purchase) = p(click) p(purchase|click)

    and so on along the chain.
    """
    probabilities = {}
    for task in by_depth([task for task in tasks if task.kind == "binary"]):
        conditional = LogProbability.of(logits[task.name])
        if task.after is None:
            probabilities[task.name] = conditional
        else:
            probabilities[conditional_name(task)] = conditional
            probabilities[task.name] = probabilities[task.after].then(conditional)
    return probabilities


def cascade_outputs(tasks: Sequence[Task], logits: Tensors) -> Tensors:
    """The serving graph of `cascade_probabilities`."""
    return served(tasks, logits, cascade_probabilities(tasks, logits))


def served(tasks: Sequence[Task], logits: Tensors, probabilities: dict[str, LogProbability]) -> Tensors:
    """The serving graph: the values of regression tasks, and probabilities from `{name: LogProbability}`."""
    values = {task.name: logits[task.name] for task in tasks if task.kind == "regression"}
    return values | {name: p.probability() for name, p in probabilities.items()}


def own_losses(tasks: Sequence[Task], logits: Tensors, labels: Tensors, context: Context) -> Tensors:
    """`{task: loss}` of the tasks that follow no other, each over the rows where its label was observed."""
    return task_losses([task for task in tasks if task.after is None], logits, labels, context)


def cascade_label(task: Task, tasks: Sequence[Task], labels: Tensors) -> KerasTensor:
    """A task's label, 0 where a task before it is known not to have happened; NaN where that is not known.

    A purchase cannot be without a click, so where there was none its label is 0 even if the log has none.
    """
    label = labels[task.column]
    if task.after is None:
        return label
    before = cascade_label(next(other for other in tasks if other.name == task.after), tasks, labels)
    return ops.where(before == 1, label, before)


def entire_space_loss(
    task: Task, tasks: Sequence[Task], probability: LogProbability, labels: Tensors, context: Context
) -> KerasTensor:
    """Cross-entropy of a task's unconditional probability over all rows where its label is known."""
    label = cascade_label(task, tasks, labels)
    loss = LogProbability(probability.yes[:, 0], probability.no[:, 0]).cross_entropy(known(label))
    return task.weight * observed_mean(loss, label, row_weights(task, context))


def followers(tasks: Sequence[Task]) -> list[tuple[Task, Task]]:
    """The tasks that follow another, each with the one it follows."""
    by_name = {task.name: task for task in tasks}
    return [(task, by_name[task.after]) for task in by_depth(tasks) if task.after is not None]

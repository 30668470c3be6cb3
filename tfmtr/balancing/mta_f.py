"""Fairness between groups of rows, with a treatment of its own for heads and for what they share."""

from keras import ops

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors
from tfmtr.heads._head import observed_mean
from tfmtr.schema import Task


def mta_f(problem: Problem, *, weight: float = 1.0, group: str = "scenario") -> Balancer:
    """Penalises predictions for negatives that differ between groups, task heads and shared parameters apart.

        F(rows) = sum_g |rows of g| / |rows| (mean p over rows of g - mean p over rows)^2
        heads:              L_t + weight F_t(rows negative in t, positive in another task)
        shared parameters:  sum_t L_t + weight sum_t F_t(rows negative in all tasks)

    so that a head mends what is its own doing and the shared layers what is common.

    Reference: Wang et al., Understanding and Improving Fairness-Accuracy Trade-offs in Multi-Task Learning, KDD 2021,
    https://arxiv.org/abs/2106.02705, section 5 (MTA-F). The paper has two groups and the difference of false positive
    rates; `F` is that difference for probabilities and any number of groups.

    Args:
        problem: The `Problem`.
        weight: Of the penalties, not negative.
        group: Name of an integer model input, such as `"scenario"`, that tells groups apart; 64 at most, others
            together.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If `group` is no integer input of one value a row, or `weight` is negative.
    """
    inputs = problem.model.input
    names = [name for name, value in inputs.items() if len(value.shape) == 1 and value.dtype.startswith("int")]
    if group not in names or weight < 0:
        raise ValueError(
            f"`group` must be one of the inputs {names} and `weight` not negative. Received: group={group!r}, "
            f"weight={weight}"
        )
    tasks = [t for t in problem.model.schema.tasks if t.kind == "binary" and t.name in problem.losses]

    def losses(outputs: Tensors, labels: Tensors, x: Tensors) -> Tensors:
        found = {}
        is_positive = ops.any(ops.stack([labels[task.column] == 1 for task in tasks]), axis=0)
        for task in tasks:
            is_negative = labels[task.column] == 0
            for part, rows in (("own", is_negative & is_positive), ("shared", is_negative & ~is_positive)):
                found[penalty(task, part)] = gap(outputs[task.name][:, 0], rows, x[group])
        return found

    parts = {penalty(task, part): part for task in tasks for part in ("own", "shared")}
    names = [*problem.losses, *parts]

    def objectives(losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        shared, own = (
            ops.convert_to_tensor([weight * float(parts[n] == kind) if n in parts else 1.0 for n in names], "float32")
            for kind in ("shared", "own")
        )
        return ops.sum(shared * losses), ops.sum(own * losses), {}

    owner = {penalty(task, part): task.name for task in tasks for part in ("own", "shared")}
    return Balancer(objectives=objectives, losses=losses, owner=owner)


def penalty(task: Task, part: str) -> str:
    """Name of a further loss."""
    return f"{task.name}_fairness_{part}"


def gap(p: Tensor, rows: Tensor, group: Tensor) -> Tensor:
    """`F` over the rows where the mask is set; 0 if there are none. From the 64th on groups are one."""
    group = ops.minimum(group, 63)
    label = ops.where(rows, 1.0, float("nan"))
    mean = observed_mean(p, label)
    is_counted = ops.cast(rows, p.dtype)
    count = ops.segment_sum(is_counted, group, 64)
    means = ops.segment_sum(is_counted * p, group, 64) / ops.maximum(count, 1.0)
    return ops.sum(count * ops.square(means - mean)) / ops.maximum(ops.sum(count), 1.0)

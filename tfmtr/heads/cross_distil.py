"""Two tasks teach each other how to order titles that have the same label."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from tfmtr import replicas
from tfmtr.checks import check_choice
from tfmtr.heads._head import (
    Context,
    Head,
    Tensors,
    Tower,
    TrainingGraph,
    observed_mean,
    row_loss,
    row_weights,
    start,
    task_losses,
    task_outputs,
    task_towers,
)
from tfmtr.schema import Task


def cross_distil(
    tasks: Sequence[Task],
    *,
    pair: Sequence[str] | None = None,
    rank_weights: Sequence[float] = (1.0, 1.0, 1.0),
    distil_weight: float = 0.5,
    margin: float = 0.0,
    temperature: float = 1.0,
) -> Head:
    """Each of two tasks learns from a teacher that ranks by both labels, its own first.

    The teacher of task A, a training-only tower with score `r`, is trained on quadruplets of rows: one with both labels
    (++), one with A's only (+-), one with B's only (-+), one with none (--):

        L_teacher = - b_1 ln sigmoid(r_++ - r_+-) - b_2 ln sigmoid(r_+- - r_-+) - b_3 ln sigmoid(r_-+ - r_--)

    A score is no probability: Platt's `z = P sg(r) + Q` is trained beside it by cross-entropy with A's label. What
    contradicts the label is corrected, `z' = max(z, margin)` if the label is 1 and `min(z, -margin)` if it is 0, and
    the student, A's own tower, learns from both:

        L_A = (1 - w) CE(sigmoid(z_A), label) + w CE(sigmoid(z_A / T), sigmoid(sg(z') / T))

    No gradient of the students' loss flows into teacher or calibration, so all are trained in one step.

    Reference: Yang et al., Cross-Task Knowledge Distillation in Multi-Task Recommendation, AAAI 2022,
    https://arxiv.org/abs/2202.09852, the sections on auxiliary tasks, calibrated distillation and error correction.
    Left open there and chosen here: the quadruplets of a batch pair the i-th rows of each kind, beginning again where a
    kind has fewer; kinds that a batch lacks are left out of the order, so that `b_1` weighs what follows ++, and so on.

    Args:
        tasks: The schema's tasks.
        pair: Names of the two binary tasks; not needed if there are exactly two. Others are trained as in `parallel`.
        rank_weights: `(b_1, b_2, b_3)`.
        distil_weight: `w`, in [0, 1].
        margin: Logit that a corrected teacher has at least, not negative.
        temperature: `T`, positive.

    Returns:
        A `Head` with one output a task.

    Raises:
        ValueError: If `pair` does not name two binary tasks, or a number is out of its range.
    """
    binary = {task.name: task for task in tasks if task.kind == "binary"}
    pair = tuple(binary) if pair is None else tuple(pair)
    for name in pair:
        check_choice("pair", name, binary)
    if len(pair) != 2 or len(set(pair)) != 2:
        raise ValueError(f"`pair` must name two binary tasks that teach each other. Received: pair={pair}")
    if not (0.0 <= distil_weight <= 1.0 and margin >= 0.0 and temperature > 0.0 and len(rank_weights) == 3):
        raise ValueError(
            "`distil_weight` must be in [0, 1], `margin` not negative, `temperature` positive and `rank_weights` three "
            f"numbers. Received: distil_weight={distil_weight}, margin={margin}, temperature={temperature}, "
            f"rank_weights={rank_weights}"
        )
    students = [binary[name] for name in pair]

    def towers() -> dict[str, Tower]:
        return task_towers(tasks) | {teacher_name(task): Tower(is_served=False) for task in students}

    def training(graph: TrainingGraph) -> Tensors:
        calibrated = {}
        for task in students:
            mean = keras.initializers.Constant(start(task))
            name = f"{task.name}_platt"
            layer = keras.layers.Dense(1, kernel_initializer="ones", bias_initializer=mean, name=name, dtype="float32")
            calibrated[f"{task.name}_calibrated"] = layer(ops.stop_gradient(graph.logits[teacher_name(task)]))
        return calibrated

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        result = task_losses(tasks, logits, labels, context)
        for task, other in (students, students[::-1]):
            label, weights = labels[task.column], row_weights(task, context)
            logit = logits[task.name][:, 0]
            calibrated = context["training"][f"{task.name}_calibrated"][:, 0]
            corrected = ops.where(label == 1, ops.maximum(calibrated, margin), ops.minimum(calibrated, -margin))
            target = ops.stop_gradient(ops.sigmoid(corrected / temperature))
            soft = ops.softplus(logit / temperature) - target * logit / temperature
            distilled = task.weight * observed_mean(soft, label, weights)
            result[task.name] = (1 - distil_weight) * result[task.name] + distil_weight * distilled
            result[f"{task.name}_calibration"] = observed_mean(row_loss(task, calibrated, label), label, weights)
            score = logits[teacher_name(task)][:, 0]
            ranked = quadruplet_loss(score, label, labels[other.column], rank_weights)
            result[teacher_name(task)] = ranked / replicas.number()  # pairs are of one replica
        return result

    return Head(towers, lambda logits: task_outputs(tasks, logits), losses, training=training)


def teacher_name(task: Task) -> str:
    """Name of the training-only tower that ranks by both labels."""
    return f"{task.name}_teacher"


def quadruplet_loss(score: KerasTensor, own: KerasTensor, other: KerasTensor, weights: Sequence[float]) -> KerasTensor:
    """`L_teacher` over a batch; arguments have shape `(batch,)`, NaN labels belong to no kind of row.

    Kinds that a batch lacks are left out of the order: in a cascade no purchase is without a click.
    """
    kinds = [ops.logical_and(own == a, other == b) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]
    is_there = [ops.cast(ops.any(kind), score.dtype) for kind in kinds]
    total = 0.0
    for i, better in enumerate(kinds):
        are_neighbours = 1.0
        for j, worse in enumerate(kinds[i + 1 :], start=i + 1):
            total = total + weights[i] * are_neighbours * pair_loss(score, better, worse)
            are_neighbours = are_neighbours * (1 - is_there[j])
    return total


def pair_loss(score: KerasTensor, better: KerasTensor, worse: KerasTensor) -> KerasTensor:
    """Mean of `-ln sigmoid(score_i - score_j)` over pairs of the n-th better and the n-th worse row, in turn."""
    position = ops.cumsum(ops.ones_like(score, dtype="int32")) - 1
    counts = [ops.sum(ops.cast(mask, "int32")) for mask in (better, worse)]
    sides = []
    for mask, count in zip((better, worse), counts, strict=True):
        first = ops.argsort(ops.where(mask, position, position + ops.shape(score)[0]))  # the kind's own rows in front
        sides.append(ops.take(score, ops.take(first, position % ops.maximum(count, 1))))
    num_pairs = ops.where(ops.minimum(*counts) > 0, ops.maximum(*counts), 0)
    losses = ops.where(position < num_pairs, ops.softplus(sides[1] - sides[0]), 0.0)
    return ops.sum(losses) / ops.maximum(ops.cast(num_pairs, losses.dtype), 1)

"""A second, too small head for every tower: what it can use, the shared layers must make easy to use."""

from collections.abc import Sequence
from typing import Any

import keras

from tfmtr import components
from tfmtr.heads._head import Context, Head, Tensors, TrainingGraph
from tfmtr.layers.score import DotScore, QueryScale
from tfmtr.schema import Task


def self_auxiliary(
    tasks: Sequence[Task], *, head: Any = "parallel", auxiliary_weight: float = 0.5, units: Sequence[int] = ()
) -> Head:
    """Trains a small head beside each of another head's towers, on the same labels, in training only.

        L_t = L_t(logits) + w L_t(auxiliary logits),    auxiliary logit_k = g_k(h_k)

    `h_k` is what tower k's own layers start from and `g_k` is linear, or has fewer layers than the tower. Large towers
    let tasks agree without a representation that serves them all; the small ones cannot, so that their losses make the
    shared layers general, while the large ones still keep tasks from conflict. All of it is gone when serving.

    Reference: Wang et al., Can Small Heads Help? Understanding and Improving Multi-Task Generalization, WWW 2022,
    https://doi.org/10.1145/3485447.3512021, the section on self-auxiliaries. Left open here: systems whose
    towers start at the representation itself have `h_k = x`. A two-tower model's small head is a linear query.

    Args:
        tasks: The schema's tasks.
        head: The head whose losses are used twice: its name, or a function like those in `tfmtr/heads/`.
        auxiliary_weight: `w`, not negative.
        units: Widths of the small heads' hidden layers.

    Returns:
        A `Head` with the outputs of `head`.

    Raises:
        ValueError: If `auxiliary_weight` is negative, or `head` has no losses of logits.
    """
    base = components.find("heads", head)(tasks)
    if base.is_two_tower_only or not auxiliary_weight >= 0:
        raise ValueError(
            "`head=self_auxiliary` needs an `auxiliary_weight` that is not negative and a head whose losses are those "
            f"of logits, which in_batch_softmax has not. Received: head={head!r}, auxiliary_weight={auxiliary_weight}"
        )

    def training(graph: TrainingGraph) -> Tensors:
        added = {}
        for tower, options in base.towers().items():
            h = graph.bases[tower]
            for i, width in enumerate(units):
                h = keras.layers.Dense(width, activation="relu", name=f"{tower}_auxiliary_dense_{i}")(h)
            name = f"{tower}_auxiliary"
            if graph.title is None:
                bias = keras.initializers.Constant(options.start)
                added[name] = keras.layers.Dense(1, bias_initializer=bias, name=name, dtype="float32")(h)
            else:
                h = keras.layers.Dense(graph.title.shape[-1], name=f"{name}_dense")(h)
                query = QueryScale(name=f"{name}_query")(h)
                added[name] = DotScore(options.start, name=name, dtype="float32")(query, graph.title)
        return base.training(graph) | added

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        large = base.losses(outputs, logits, vectors, labels, context)
        logits = {tower: context["training"][f"{tower}_auxiliary"] for tower in base.towers()}
        small = base.losses(base.outputs(logits), logits, vectors, labels, context)
        return {name: loss + auxiliary_weight * small[name] for name, loss in large.items()}

    return base._replace(losses=losses, training=training)

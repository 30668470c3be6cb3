"""Conversions of several types, one label a row."""

from collections.abc import Sequence

from keras import ops

from tfmtr.heads._head import (
    Context,
    Head,
    Tensors,
    TrainingGraph,
    task_losses,
    task_outputs,
    task_towers,
    training_feature,
)
from tfmtr.schema import Task


def mt_fwfm(tasks: Sequence[Task], *, conversion_type: str | None = None) -> Head:
    """One task a type of conversion; a row has the label of its own campaign's type and no other.

        logit_t = w_0t + sum_i x_i <v_i, w_t,F(i)> + sum_{i < j} x_i x_j <v_i, v_j> r_t,F(i),F(j)
        L = sum_t 1/N_t sum_{i of type t} CE(sigmoid(logit_ti), label_i)

    with embeddings `v` that all types share and weights `w_t`, `r_t` of fields and of pairs of fields that each has of
    its own. Most of that is an encoder, and each part is where it belongs: `encode="fwfm"` gives a ranking model's
    `x` the products `<v_i, v_j>`, and with `share="none"` the linear layers behind it have `w_0t`, `w_t` and `r_t`; a
    two-tower model with `encode="fwfm"` has the same sum as one dot product (`tfmtr/encoders/field_weighted.py`).
    This head is what remains: which label a row trains.

    Reference: Pan et al., Predicting Different Types of Conversions with Multi-Task Learning in Online Advertising,
    KDD 2019, https://arxiv.org/abs/1907.10235, section 4. The mean is over each type's own rows.

    Args:
        tasks: The schema's tasks, one a type; they may share one label column.
        conversion_type: Name of an id feature of the role `"training"` whose vocabulary holds the tasks' names. By
            default a null label says that a row is of another type.

    Returns:
        A `Head` with one output a task.

    Raises:
        ValueError: If (when a model is built) the schema has no such feature, or its vocabulary lacks a task.
    """

    def training(graph: TrainingGraph) -> Tensors:
        if conversion_type is None:
            return {}
        feature = training_feature(graph.schema, conversion_type, "mt_fwfm")
        lacking = [task.name for task in tasks if task.name not in feature.vocabulary]
        if lacking:
            raise ValueError(
                f"The vocabulary of `conversion_type` must hold the tasks' names. Received: {conversion_type!r} with "
                f"{list(feature.vocabulary)}, which lacks {lacking}"
            )
        index = graph.inputs[conversion_type]
        return {f"is_{task.name}": ops.equal(index, feature.vocabulary.index(task.name) + 1) for task in tasks}

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        result = {}
        for task in tasks:
            own_labels = labels
            if conversion_type is not None:
                is_own = context["training"][f"is_{task.name}"]
                own_labels = labels | {task.column: ops.where(is_own, labels[task.column], float("nan"))}
            result |= task_losses([task], logits, own_labels, context)
        return result

    return Head(lambda: task_towers(tasks), lambda logits: task_outputs(tasks, logits), losses, training=training)

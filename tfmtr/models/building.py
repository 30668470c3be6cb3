"""What both forms are built with."""

from collections.abc import Mapping

import keras
from keras import ops

from tfmtr.checks import check_integer, check_number
from tfmtr.heads._head import Head, TrainingGraph
from tfmtr.models.joint import JointModel, Tensors


def kernels(model: keras.Model) -> list[keras.Variable]:
    """The weights of a model that may be kept small: kernels and embeddings, not biases, scales and statistics."""
    return [variable for variable in model.trainable_variables if len(variable.shape) > 1]


def add_l2(model: JointModel, factor: float) -> None:
    """Adds `factor` times the sum of squares of `kernels` to a model's losses; call it before `compile`."""
    model.l2 = factor
    for variable in kernels(model):
        variable.regularizer = keras.regularizers.L2(factor)


def check_sizes(embedding_dim: int, unknown_rate: float, dropout: float) -> None:
    """Raises a `ValueError` unless sizes and rates are what they must be."""
    check_integer("embedding_dim", embedding_dim, least=1)
    check_number("unknown_rate", unknown_rate, least=0, below=1)
    check_number("dropout", dropout, least=0, below=1)


def as_float32(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """What is served, indexed and compared is float32, whatever the towers compute in."""
    return tensor if tensor.dtype == "float32" else ops.cast(tensor, "float32")  # pyright: ignore[reportReturnType]


def add_terms(logits: Tensors, terms: Mapping[str, keras.KerasTensor]) -> Tensors:
    """Logits, or vectors, with the terms beside them, of the towers that have one."""
    return {tower: logit + terms[tower] if tower in terms else logit for tower, logit in logits.items()}  # pyright: ignore[reportReturnType]


def named_tensors(head: Head, graph: TrainingGraph, extra: Mapping[str, keras.KerasTensor]) -> dict[str, Tensors]:
    """All tensors that a loss may need, as a `JointModel` takes them; `extra` are those of `Head.pair`."""
    training = {**head.training(graph), **extra}
    return {
        "outputs": head.outputs(graph.logits),
        "logits": graph.logits,
        "vectors": graph.vectors,
        "training": training,
    }

"""The two-tower score: a learnt scale on the user's side, a dot product, a learnt bias."""

import math
from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import Shape


@keras.saving.register_keras_serializable(package="tfmtr")
class QueryScale(keras.layers.Layer):
    """Turns a user vector into a query vector: `q = s u / sqrt(d)` with a learnt `s > 0` that starts at 1.

    The scale is on the user's side, so the title vectors stay the same for all tasks and one index
    serves them all. Dividing by `sqrt(d)` keeps a dot product of two d-wide vectors from saturating.

    Call arguments:
        inputs: Tensor of shape `(batch, d)`.

    Returns:
        Tensor of shape `(batch, d)`.
    """

    def build(self, input_shape: Shape) -> None:
        self.log_scale = self.add_weight(shape=(), initializer="zeros", name="log_scale")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        return inputs * (ops.exp(self.log_scale) / math.sqrt(inputs.shape[-1]))


@keras.saving.register_keras_serializable(package="tfmtr")
class DotScore(keras.layers.Layer):
    """Scores pairs: `logit = <q, v> + b`.

    Args:
        bias: Float where the learnt `b` starts, or `None` for no bias.

    Call arguments:
        query: Tensor of shape `(batch, d)`.
        title: Tensor of shape `(batch, d)`.

    Returns:
        Tensor of shape `(batch, 1)`.

    Raises:
        ValueError: If the two widths differ.

    Example:
    >>> float(DotScore(bias=0.5)(ops.ones((1, 4)), ops.ones((1, 4)))[0, 0])
    4.5
    """

    def __init__(self, bias: float | None = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_bias = bias

    def build(self, query_shape: Shape, title_shape: Shape) -> None:
        if query_shape[-1] != title_shape[-1]:
            raise ValueError(
                "`query` and `title` must have the same width; give the sharing's towers the width of the title tower. "
                f"Received: query.shape={tuple(query_shape)}, title.shape={tuple(title_shape)}"
            )
        if self.initial_bias is not None:
            self.bias = self.add_weight(
                shape=(), initializer=keras.initializers.Constant(self.initial_bias), name="bias"
            )

    def call(self, query: KerasTensor, title: KerasTensor) -> KerasTensor:
        logit = ops.sum(query * title, axis=-1, keepdims=True)
        return logit if self.initial_bias is None else logit + self.bias

    def compute_output_shape(self, query_shape: Shape, title_shape: Shape) -> Shape:
        return (query_shape[0], 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bias": self.initial_bias}

"""A dense layer, layer normalisation and an activation as one layer."""

from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import Shape, check_matrix, check_sizes

EPSILON = 1e-3  # as in `keras.layers.LayerNormalization`


def without_mean(kernel: KerasTensor, bias: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """A kernel `(width, units)` and a bias `(units,)` whose product with any x has the mean zero over the units.

    That mean is itself linear in x, so it can be taken out of the weights once instead of out of every row.
    """
    return kernel - ops.mean(kernel, axis=-1, keepdims=True), bias - ops.mean(bias, axis=-1, keepdims=True)


def scaled(z: KerasTensor, scale: KerasTensor | keras.Variable, center: KerasTensor | keras.Variable) -> KerasTensor:
    """Layer normalisation of rows without mean: `z / sqrt(mean(z^2) + epsilon) * scale + center`, `(batch, units)`."""
    square = ops.square(ops.cast(z, "float32"))  # a sum of half precision's squares would lose what it is for
    inverse = ops.rsqrt(ops.mean(square, axis=-1, keepdims=True) + EPSILON)
    return z * ops.cast(inverse, z.dtype) * scale + center


@keras.saving.register_keras_serializable(package="tfmtr")
class NormalizedDense(keras.layers.Layer):
    """A dense layer, layer normalisation over its units, and ReLU.

        y = relu(norm(x W + b) * scale + center)

    The same function as `Dense`, `LayerNormalization` and `ReLU` of Keras one after the other, with fewer passes over
    the batch (see `without_mean`).

    Reference: Ba et al., Layer Normalization, 2016, https://arxiv.org/abs/1607.06450.

    Args:
        units: Positive integer, width of the output.

    Call arguments:
        inputs: Tensor of shape `(batch, width)`.

    Returns:
        Tensor of shape `(batch, units)`.

    Raises:
        ValueError: If `units` is not positive or `inputs` is not rank 2.

    Example:
    >>> tuple(NormalizedDense(3)(ops.ones((2, 4))).shape)
    (2, 3)
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_sizes(units=units)
        self.units = units

    def build(self, input_shape: Shape) -> None:
        check_matrix(input_shape)
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")
        self.center = self.add_weight(shape=(self.units,), initializer="zeros", name="center")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        kernel, bias = without_mean(ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.bias))
        return ops.relu(scaled(ops.matmul(inputs, kernel) + bias, self.scale, self.center))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}

"""Several dense experts as one layer."""

from collections.abc import Callable
from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import Shape, check_sizes
from tfmtr.layers.normalized_dense import scaled, without_mean


def stacked_glorot(shape: tuple[int, int, int], dtype: str | None = None) -> KerasTensor:
    """Starting value of n stacked kernels, shape `(width, n, units)`: each as a dense layer of its own would start.

    >>> tuple(stacked_glorot((4, 3, 5)).shape)
    (4, 3, 5)
    """
    width, number, units = shape
    # The initializer is asked for anew each time: one instance repeats itself.
    return ops.stack([keras.initializers.GlorotUniform()((width, units), dtype) for _ in range(number)], axis=1)


@keras.saving.register_keras_serializable(package="tfmtr")
class Experts(keras.layers.Layer):
    """Applies n dense layers of the same width, each with its own weights.

        e_i = activation(x W_i + b_i)              i = 1 .. n

    With inputs of shape `(batch, width)` every expert sees the same input; with `(batch, n, width)` expert i sees
    row i, so that experts can be stacked.

    Args:
        num_experts: Positive integer n.
        units: Positive integer, width of every expert's output.
        activation: Keras activation or its name; linear by default.
        normalize: Whether each expert has a layer normalisation between product and activation.

    Call arguments:
        inputs: Tensor of shape `(batch, width)` or `(batch, num_experts, width)`.

    Returns:
        Tensor of shape `(batch, num_experts, units)`.

    Raises:
        ValueError: If a size is not positive or the input's second dimension is not `num_experts`.

    Example:
    >>> tuple(Experts(3, 5, activation="relu")(ops.ones((2, 4))).shape)
    (2, 3, 5)
    """

    def __init__(
        self,
        num_experts: int,
        units: int,
        *,
        activation: str | Callable[[KerasTensor], KerasTensor] | None = None,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_sizes(num_experts=num_experts, units=units)
        self.num_experts = num_experts
        self.units = units
        self.activation = keras.activations.get(activation)
        self.normalize = normalize

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) not in (2, 3) or (len(input_shape) == 3 and input_shape[1] != self.num_experts):
            raise ValueError(
                f"`inputs` must have shape (batch, width) or (batch, {self.num_experts}, width). "
                f"Received: inputs.shape={tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.num_experts, self.units), initializer=stacked_glorot, name="kernel"
        )
        self.bias = self.add_weight(shape=(self.num_experts, self.units), initializer="zeros", name="bias")
        if self.normalize:
            self.scale = self.add_weight(shape=(self.num_experts, self.units), initializer="ones", name="scale")
            self.center = self.add_weight(shape=(self.num_experts, self.units), initializer="zeros", name="center")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        number = self.num_experts
        kernel, bias = ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.bias)
        if self.normalize:
            kernel, bias = without_mean(kernel, bias)
        elif len(inputs.shape) == 2:
            outputs = ops.matmul(inputs, ops.reshape(kernel, (inputs.shape[-1], -1))) + ops.reshape(bias, (-1,))
            return ops.reshape(self.activation(outputs), (-1, number, self.units))
        # One product an expert: what follows finds its rows in the cache, and nothing is transposed.
        seen = [inputs] * number if len(inputs.shape) == 2 else ops.unstack(inputs, number, axis=1)
        outputs = []
        for i, own in enumerate(ops.unstack(kernel, number, axis=1)):
            output = ops.matmul(seen[i], own) + bias[i]
            outputs.append(scaled(output, self.scale[i], self.center[i]) if self.normalize else output)
        return ops.stack([self.activation(output) for output in outputs], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.num_experts, self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_experts": self.num_experts,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "normalize": self.normalize,
        }

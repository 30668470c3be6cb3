"""Rows to the weights of their own scenario."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.backends import is_tensorflow
from tfmtr.layers._sizes import Shape, check_sizes


def route_dense(
    inputs: KerasTensor,
    scenario: KerasTensor,
    kernels: Sequence[KerasTensor | keras.Variable],
    biases: Sequence[KerasTensor | keras.Variable],
    *,
    routed: bool,
) -> KerasTensor:
    """Applies one dense layer per scenario, each to the rows of its own scenario: `y_i = x_i W_{s_i} + b_{s_i}`.

    Args:
        inputs: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)`.
        kernels: One tensor of shape `(width, units)` for each scenario.
        biases: One tensor of shape `(units,)` for each scenario.
        routed: Whether to partition the rows, at a cost that does not grow with the number of scenarios; otherwise
            every branch is computed for all rows and masked.

    Returns:
        Tensor of shape `(batch, units)`.
    """
    if not routed:
        mask = ops.one_hot(scenario, len(kernels), dtype=inputs.dtype)  # (batch, scenarios)
        branches = [ops.matmul(inputs, kernel) + bias for kernel, bias in zip(kernels, biases, strict=True)]
        return ops.sum(mask[:, :, None] * ops.stack(branches, axis=1), axis=1)

    import tensorflow as tf

    scenario = tf.cast(scenario, tf.int32)
    rows = tf.dynamic_partition(tf.range(tf.shape(inputs)[0]), scenario, len(kernels))
    parts = tf.dynamic_partition(inputs, scenario, len(kernels))
    parts = [ops.matmul(part, kernel) + bias for part, kernel, bias in zip(parts, kernels, biases, strict=True)]
    outputs = tf.dynamic_stitch(rows, parts)
    outputs.set_shape((inputs.shape[0], parts[0].shape[-1]))
    return outputs


class RoutedLayer(keras.layers.Layer):
    """What `RoutedDense` and `StarDense` share: sizes, activation and whether rows are partitioned; abstract."""

    def __init__(
        self,
        units: int,
        num_scenarios: int,
        *,
        activation: str | Callable[[KerasTensor], KerasTensor] | None = None,
        routed: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_sizes(units=units, num_scenarios=num_scenarios)
        self.units = units
        self.num_scenarios = num_scenarios
        self.activation = keras.activations.get(activation)
        self.routed = is_tensorflow() if routed is None else routed
        self.supports_jit = not self.routed  # the parts' sizes depend on the data

    def call(self, inputs: KerasTensor, scenario: KerasTensor) -> KerasTensor:
        """Applies each row's own `kernels_and_biases()`."""
        kernels, biases = self.kernels_and_biases()
        return self.activation(route_dense(inputs, scenario, kernels, biases, routed=self.routed))

    def compute_output_shape(self, inputs_shape: Shape, scenario_shape: Shape | None = None) -> Shape:
        """Shape with the layer's own width."""
        return (inputs_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "units": self.units,
            "num_scenarios": self.num_scenarios,
            "activation": keras.activations.serialize(self.activation),
            "routed": self.routed,
        }

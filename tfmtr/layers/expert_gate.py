"""Softmax gates over experts."""

from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import Shape
from tfmtr.layers.experts import stacked_glorot


def blend(weights: KerasTensor, experts: KerasTensor) -> KerasTensor:
    """Sums experts under each row's own weights, `sum_i g_i e_i`.

    The sum is written out: a batch of products of a row's few weights with its experts, as `einsum` makes of it, takes
    three times as long once compiled.

    Args:
        weights: Tensor of shape `(batch, num_experts)`.
        experts: Tensor of shape `(batch, num_experts, units)`.

    Returns:
        Tensor of shape `(batch, units)`.
    """
    number = weights.shape[1]
    pairs = zip(ops.split(weights, number, axis=1), ops.unstack(experts, number, axis=1), strict=True)
    return sum(weight * expert for weight, expert in pairs)  # pyright: ignore[reportReturnType]


@keras.saving.register_keras_serializable(package="tfmtr")
class ExpertGate(keras.layers.Layer):
    """Blends expert outputs with softmax weights computed from another tensor.

    For a gate input `x` and experts `e_1 .. e_n` the layer returns

        y = sum_i g_i e_i    with    g = softmax(W x / temperature).

    Give every task its own gate over the same experts (`num_gates`) and you have MMoE; give every gate
    experts of its own too and you have PLE; feed the gate a scenario embedding instead and the blend
    depends on the scenario.

    Reference: Ma et al., Modeling Task Relationships in Multi-task Learning
    with Multi-gate Mixture-of-Experts, KDD 2018,
    https://doi.org/10.1145/3219819.3220007.

    Args:
        temperature: Positive float. Below 1 the gate moves towards choosing
            one expert, above 1 towards averaging them all.
        num_gates: Positive integer for that many gates at once; by default there is one and the
            axis of gates is left out everywhere.

    Call arguments:
        inputs: Tensor of shape `(batch, gate_dim)` that decides the weights,
            or `(batch, num_gates, gate_dim)` with one row for each gate.
        experts: Tensor of shape `(batch, num_experts, units)` that all gates see,
            or `(batch, num_gates, num_experts, units)` with experts for each gate.

    Returns:
        Tensor of shape `(batch, units)`, or `(batch, num_gates, units)`.

    Raises:
        ValueError: If `temperature` or `num_gates` is not positive, or a shape is none of the above.

    Example:
    >>> x = ops.ones((2, 4))
    >>> experts = ops.ones((2, 3, 5))
    >>> tuple(ExpertGate()(x, experts).shape)
    (2, 5)
    >>> tuple(ExpertGate(num_gates=6)(x, experts).shape)
    (2, 6, 5)
    """

    def __init__(self, temperature: float = 1.0, *, num_gates: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if temperature <= 0:
            raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")
        if num_gates is not None and num_gates < 1:
            raise ValueError(f"`num_gates` must be a positive integer or None. Received: num_gates={num_gates}")
        self.temperature = temperature
        self.num_gates = num_gates

    def build(self, inputs_shape: Shape, experts_shape: Shape) -> None:
        gates = () if self.num_gates is None else (self.num_gates,)
        if len(experts_shape) < 3 or tuple(experts_shape[1:-2]) not in ((), gates):
            raise ValueError(
                f"`experts` must have shape (batch, num_experts, units){self._or_own('num_experts, units')}; stack a "
                "list of expert outputs with `keras.ops.stack(outputs, axis=1)`. "
                f"Received: experts.shape={tuple(experts_shape)}"
            )
        if len(inputs_shape) < 2 or tuple(inputs_shape[1:-1]) not in ((), gates):
            raise ValueError(
                f"`inputs` must have shape (batch, gate_dim){self._or_own('gate_dim')}. "
                f"Received: inputs.shape={tuple(inputs_shape)}"
            )
        self.kernel = self.add_weight(
            shape=(inputs_shape[-1], *gates, experts_shape[-2]),
            initializer=stacked_glorot if gates else "glorot_uniform",
            name="kernel",
        )

    def _or_own(self, dimensions: str) -> str:
        return "" if self.num_gates is None else f" or (batch, {self.num_gates}, {dimensions})"

    def call(self, inputs: KerasTensor, experts: KerasTensor) -> KerasTensor:
        gates, kernel = self.num_gates, ops.convert_to_tensor(self.kernel)
        if gates is None:
            return blend(self._weights(ops.matmul(inputs, kernel)), experts)
        if len(inputs.shape) == 2:
            logits = ops.matmul(inputs, ops.reshape(kernel, (inputs.shape[-1], -1)))  # one product for all gates
            logits = ops.split(logits, gates, axis=1)
        else:
            logits = map(ops.matmul, ops.unstack(inputs, gates, axis=1), ops.unstack(kernel, gates, axis=1))
        seen = ops.unstack(experts, gates, axis=1) if len(experts.shape) == 4 else [experts] * gates
        return ops.stack([blend(self._weights(*gate), own) for *gate, own in zip(logits, seen, strict=True)], axis=1)

    def _weights(self, logits: KerasTensor) -> KerasTensor:
        return ops.softmax(logits / self.temperature)  # (batch, num_experts)

    def compute_output_shape(self, inputs_shape: Shape, experts_shape: Shape) -> Shape:
        gates = () if self.num_gates is None else (self.num_gates,)
        return (experts_shape[0], *gates, experts_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature, "num_gates": self.num_gates}

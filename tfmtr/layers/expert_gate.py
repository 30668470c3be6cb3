"""Softmax gates over experts."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmtr")
class ExpertGate(keras.layers.Layer):
    """Blends expert outputs with softmax weights computed from another tensor.

    For a gate input `x` and experts `e_1 .. e_n` the layer returns

        y = sum_i g_i e_i    with    g = softmax(W x / temperature).

    Give every task its own gate over the same experts and you have MMoE; feed
    the gate a scenario embedding instead and the blend depends on the scenario.

    Reference: Ma et al., Modeling Task Relationships in Multi-task Learning
    with Multi-gate Mixture-of-Experts, KDD 2018,
    https://doi.org/10.1145/3219819.3220007.

    Args:
        temperature: Positive float. Below 1 the gate moves towards choosing
            one expert, above 1 towards averaging them all.

    Call arguments:
        inputs: Tensor of shape `(batch, gate_dim)` that decides the weights.
        experts: Tensor of shape `(batch, num_experts, units)`.

    Returns:
        Tensor of shape `(batch, units)`.

    Raises:
        ValueError: If `temperature` is not positive or `experts` is not rank 3.

    Example:
    >>> x = ops.ones((2, 4))
    >>> experts = ops.ones((2, 3, 5))
    >>> tuple(ExpertGate()(x, experts).shape)
    (2, 5)
    """

    def __init__(self, temperature=1.0, **kwargs):
        super().__init__(**kwargs)
        if temperature <= 0:
            raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")
        self.temperature = temperature

    def build(self, inputs_shape, experts_shape):
        if len(experts_shape) != 3:
            raise ValueError(
                "`experts` must have shape (batch, num_experts, units); stack a list of expert outputs with "
                f"`keras.ops.stack(outputs, axis=1)`. Received: experts.shape={tuple(experts_shape)}"
            )
        self.kernel = self.add_weight(
            shape=(inputs_shape[-1], experts_shape[1]), initializer="glorot_uniform", name="kernel"
        )

    def call(self, inputs, experts):
        weights = ops.softmax(ops.matmul(inputs, self.kernel) / self.temperature)  # (batch, num_experts)
        return ops.einsum("bn,bnu->bu", weights, experts)

    def compute_output_shape(self, inputs_shape, experts_shape):
        return (experts_shape[0], experts_shape[2])

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}

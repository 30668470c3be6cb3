"""Learnt proportions of fused representations."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmtr")
class FusionWeight(keras.layers.Layer):
    """Learns how much each of several tensors counts, by itself or against another.

    For tensors `a_1 .. a_n`, one for each scenario or task, and `b_1 .. b_n` where they are given,

        y_i = w_i a_i    or    y_i = w_i a_i + (1 - w_i) b_i    with    w_i = sigmoid(e_i)

    and one learnt number `e_i` each, which starts at zero: one half. A bi-level optimisation trains these
    layers apart from the rest and finds them by their type.

    Reference: Zhang et al., M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework, SIGIR
    2024, https://doi.org/10.1145/3626772.3657686, equations 5 to 7 and 10.

    Args:
        num_weights: Positive integer n, number of scenarios or tasks.

    Call arguments:
        inputs: Tensor `a` of shape `(batch, num_weights, units)`.
        others: Tensor `b` of the same shape, or `None`.

    Returns:
        Tensor of shape `(batch, num_weights, units)`.

    Raises:
        ValueError: If `inputs` has another shape.

    Example:
    >>> FusionWeight(2)(ops.ones((1, 2, 1))).numpy().ravel().tolist()
    [0.5, 0.5]
    """

    def __init__(self, num_weights, **kwargs):
        super().__init__(**kwargs)
        self.num_weights = num_weights

    def build(self, inputs_shape, others_shape=None):
        if len(inputs_shape) != 3 or inputs_shape[1] != self.num_weights:
            raise ValueError(
                f"`inputs` must have shape (batch, {self.num_weights}, units). "
                f"Received: inputs.shape={tuple(inputs_shape)}"
            )
        self.fusion_logit = self.add_weight(shape=(self.num_weights,), initializer="zeros", name="fusion_logit")

    def call(self, inputs, others=None):
        w = ops.sigmoid(self.fusion_logit)[:, None]
        return w * inputs if others is None else w * inputs + (1 - w) * others

    def compute_output_shape(self, inputs_shape, others_shape=None):
        return inputs_shape

    def get_config(self):
        return {**super().get_config(), "num_weights": self.num_weights}

"""Learnt proportions of fused representations."""

import math
from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import Shape, check_sizes


@keras.saving.register_keras_serializable(package="tfmtr")
class FusionWeight(keras.layers.Layer):
    """Learns how much each of several tensors counts.

    The weights are `w_i = sigmoid(e_i)` with one learnt number `e_i` each. A bi-level optimisation trains these layers
    apart from the rest and finds them by their type.

    Reference: Zhang et al., M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework, SIGIR
    2024, https://doi.org/10.1145/3626772.3657686, equation 10.

    Args:
        num_weights: Positive integer n, number of scenarios or tasks.
        start: What all weights start at, in (0, 1).

    Call arguments:
        inputs: Any tensor of the graph that the weights belong to; its values do not matter.

    Returns:
        Tensor `w` of shape `(num_weights,)`, in (0, 1).

    Raises:
        ValueError: If `num_weights` is not positive or `start` not in (0, 1).

    Example:
    >>> FusionWeight(2)(ops.ones((1, 2))).numpy().tolist()
    [0.5, 0.5]
    """

    def __init__(self, num_weights: int, *, start: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_sizes(num_weights=num_weights)
        if not 0 < start < 1:
            raise ValueError(f"`start` must be in (0, 1). Received: start={start}")
        self.num_weights = num_weights
        self.start = start

    def build(self, input_shape: Shape) -> None:
        logit = keras.initializers.Constant(math.log(self.start / (1 - self.start)))
        self.fusion_logit = self.add_weight(shape=(self.num_weights,), initializer=logit, name="fusion_logit")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        return ops.sigmoid(self.fusion_logit)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (self.num_weights,)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_weights": self.num_weights, "start": self.start}

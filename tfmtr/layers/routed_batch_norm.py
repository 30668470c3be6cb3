"""Batch normalisation with statistics of each scenario's own."""

from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr import replicas
from tfmtr.layers._sizes import Shape, check_matrix, check_sizes


@keras.saving.register_keras_serializable(package="tfmtr")
class RoutedBatchNorm(keras.layers.Layer):
    """Normalises every row with the mean and variance of its own scenario's rows.

    For row i with scenario s the partitioned normalisation of STAR is

        y_i = (gamma * gamma_s) (x_i - mean_s) / sqrt(variance_s + epsilon) + (beta + beta_s),

    with the batch's statistics of scenario s in training and moving averages of them in inference. A scenario
    that is absent from the batch leaves its moving statistics alone. Batches may mix scenarios; the paper draws
    each batch from one. One row of a scenario has no variance: as in any batch normalisation it becomes `beta +
    beta_s`, so batches should be large beside the number of scenarios.

    Reference: Sheng et al., One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR
    Prediction, CIKM 2021, https://doi.org/10.1145/3459637.3481941, section 4.2.

    Args:
        num_scenarios: Positive integer, number of scenarios.
        momentum: Float in `[0, 1)`, share of the moving statistics that a batch keeps.
        epsilon: Positive float that is added to the variance.

    Call arguments:
        inputs: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)` with values in `[0, num_scenarios)`.
        training: Whether to use the batch's statistics and to update the moving ones.

    Returns:
        Tensor of shape `(batch, width)`.

    Raises:
        ValueError: If `num_scenarios` is not positive, `momentum` is not in `[0, 1)` or `inputs` is not rank 2.

    Example:
    >>> layer = RoutedBatchNorm(num_scenarios=2)
    >>> x = ops.array([[1.0], [3.0], [10.0], [30.0]])
    >>> layer(x, ops.array([0, 0, 1, 1]), training=True).numpy().round(2).ravel().tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """

    def __init__(self, num_scenarios: int, *, momentum: float = 0.9, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_sizes(num_scenarios=num_scenarios)
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum}")
        self.num_scenarios = num_scenarios
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, inputs_shape: Shape, scenario_shape: Shape | None = None) -> None:
        check_matrix(inputs_shape)
        shared, own = (inputs_shape[-1],), (self.num_scenarios, inputs_shape[-1])

        def weight(name: str, shape: Shape, initializer: str, trainable: bool = True) -> keras.Variable:
            # In float32, whatever the compute dtype.
            return self.add_weight(shape=shape, initializer=initializer, trainable=trainable, autocast=False, name=name)

        self.gamma, self.own_gamma = weight("gamma", shared, "ones"), weight("own_gamma", own, "ones")
        self.beta, self.own_beta = weight("beta", shared, "zeros"), weight("own_beta", own, "zeros")
        self.moving_mean = weight("moving_mean", own, "zeros", trainable=False)
        self.moving_variance = weight("moving_variance", own, "ones", trainable=False)

    def call(self, inputs: KerasTensor, scenario: KerasTensor, training: bool = False) -> KerasTensor:
        x = ops.cast(inputs, self.variable_dtype)
        mean, variance = self.moving_mean, self.moving_variance  # (scenarios, width)
        if training:

            def sums(values: KerasTensor) -> KerasTensor:
                return replicas.total(ops.segment_sum(values, scenario, self.num_scenarios))

            rows = sums(ops.ones_like(x[:, :1]))  # (scenarios, 1)
            mean = sums(x) / ops.maximum(rows, 1)
            centered = x - ops.take(mean, scenario, axis=0)
            variance = sums(ops.square(centered)) / ops.maximum(rows, 1)
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moved = self.momentum * moving + (1 - self.momentum) * ops.stop_gradient(batch)
                moving.assign(ops.where(rows > 0, moved, ops.convert_to_tensor(moving)))
        else:
            centered = x - ops.take(mean, scenario, axis=0)
        scale = self.gamma * self.own_gamma * ops.rsqrt(variance + self.epsilon)
        shift = self.beta + self.own_beta
        y = centered * ops.take(scale, scenario, axis=0) + ops.take(shift, scenario, axis=0)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, inputs_shape: Shape, scenario_shape: Shape | None = None) -> Shape:
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_scenarios": self.num_scenarios,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }

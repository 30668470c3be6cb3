"""A dense layer whose kernel is the product of a shared one and the scenario's own."""

import keras
from keras import KerasTensor

from tfmtr.layers._routing import RoutedLayer
from tfmtr.layers._sizes import Shape, check_matrix


@keras.saving.register_keras_serializable(package="tfmtr")
class StarDense(RoutedLayer):
    """Sends every row through a shared dense layer that its own scenario has rescaled weight by weight.

    Row i with scenario s_i becomes

        y_i = activation(x_i (W_{s_i} ⊗ W) + b_{s_i} + b)

    with an element-wise product. `W` and `b` learn from all rows, `W_s` and `b_s` from the rows of scenario s.
    `W_s` starts near one and `b_s` at zero, so that all scenarios start as the shared layer. The rows are routed
    as in `RoutedDense`.

    Reference: Sheng et al., One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR
    Prediction, CIKM 2021, https://doi.org/10.1145/3459637.3481941, section 4.3.

    Args:
        units: Positive integer, width of the output.
        num_scenarios: Positive integer, number of scenarios.
        activation: Keras activation or its name; linear by default.
        routed: Whether to partition the rows; by default where the backend can.

    Call arguments:
        inputs: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)` with values in `[0, num_scenarios)`.

    Returns:
        Tensor of shape `(batch, units)`.

    Raises:
        ValueError: If `units` or `num_scenarios` is not positive, or `inputs` is not rank 2.

    Example:
    >>> layer = StarDense(3, num_scenarios=2)
    >>> tuple(layer(keras.ops.ones((4, 5)), keras.ops.array([0, 1, 1, 0])).shape)
    (4, 3)
    """

    def build(self, inputs_shape: Shape, scenario_shape: Shape | None = None) -> None:
        check_matrix(inputs_shape)
        shape = (inputs_shape[-1], self.units)
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.own_kernels, self.own_biases = [], []
        for i in range(self.num_scenarios):  # one variable for each, as in RoutedDense
            near_one = keras.initializers.RandomNormal(mean=1.0, stddev=0.02)
            self.own_kernels.append(self.add_weight(shape=shape, initializer=near_one, name=f"own_kernel_{i}"))
            self.own_biases.append(self.add_weight(shape=(self.units,), initializer="zeros", name=f"own_bias_{i}"))

    def kernels_and_biases(self) -> tuple[list[KerasTensor], list[KerasTensor]]:
        return [own * self.kernel for own in self.own_kernels], [own + self.bias for own in self.own_biases]

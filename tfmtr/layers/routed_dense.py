"""A dense layer with one set of weights for each scenario."""

from typing import Any

import keras

from tfmtr.layers._routing import RoutedLayer
from tfmtr.layers._sizes import Shape, check_matrix


@keras.saving.register_keras_serializable(package="tfmtr")
class RoutedDense(RoutedLayer):
    """Sends every row through the dense block of its own scenario.

    Row i with scenario s_i becomes

        y_i = activation(x_i W_{s_i} + b_{s_i}).

    On the TensorFlow backend the rows are partitioned by scenario, each part goes through its own
    weights, and the parts are stitched back, so the cost does not grow with the number of scenarios. On
    other backends all branches are computed and masked. Outputs and gradients are the same: a branch
    learns from the rows of its scenario only, one that is absent from the batch gets zero gradient.

    Reference: the one-hot masked branches of Gampa et al., Multi-Task Learning For Reduced Popularity
    Bias In Multi-Territory Video Recommendations, 2023, section 4.2, as routed computation.

    Args:
        units: Positive integer, width of the output.
        num_scenarios: Positive integer, number of branches.
        activation: Keras activation or its name; linear by default.
        bias_initializer: Where the biases start.
        routed: Whether to partition the rows; by default where the backend can.

    Call arguments:
        inputs: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)` with values in `[0, num_scenarios)`.

    Returns:
        Tensor of shape `(batch, units)`.

    Raises:
        ValueError: If `units` or `num_scenarios` is not positive, or `inputs` is not rank 2.

    Example:
    >>> layer = RoutedDense(3, num_scenarios=2)
    >>> tuple(layer(keras.ops.ones((4, 5)), keras.ops.array([0, 1, 1, 0])).shape)
    (4, 3)
    """

    def __init__(
        self,
        units: int,
        num_scenarios: int,
        *,
        bias_initializer: str | keras.initializers.Initializer = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(units, num_scenarios, **kwargs)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, inputs_shape: Shape, scenario_shape: Shape | None = None) -> None:
        check_matrix(inputs_shape)
        # One variable for each scenario: the gradient of slicing one stacked kernel would be a full-size
        # tensor for each branch. The initializer is asked for anew each time: one instance repeats itself.
        self.kernels, self.biases = [], []
        for i in range(self.num_scenarios):
            kernel = self.add_weight(
                shape=(inputs_shape[-1], self.units), initializer=keras.initializers.GlorotUniform(), name=f"kernel_{i}"
            )
            self.kernels.append(kernel)
            self.biases.append(
                self.add_weight(shape=(self.units,), initializer=self.bias_initializer, name=f"bias_{i}")
            )

    def kernels_and_biases(self) -> tuple[list[keras.Variable], list[keras.Variable]]:
        return self.kernels, self.biases

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bias_initializer": keras.initializers.serialize(self.bias_initializer)}

"""Adam with an L2 in the gradients, as PyTorch's Adam has it."""

from typing import Any

import keras
from keras import ops

from tfmtr.checks import check_number
from tfmtr.optimizers.adam import Adam

__all__ = ["AdamL2"]


@keras.saving.register_keras_serializable(package="tfmtr")
class AdamL2(Adam):
    """Adam with `l2` times each weight added to its gradient, as PyTorch's `Adam(weight_decay=l2)` does.

        g <- g + l2 w,    then Adam's step

    Keras's own `weight_decay` takes a share of the weight in each step, whatever the gradient is. Here a weight that
    hardly any row moves, such as a rare title's, is drawn to zero by steps as long as those of all others. A recipe's
    `l2` is of kernels and embeddings alone, and counts twice: the gradient of `l2 w^2` is `2 l2 w`. Every step costs
    what the tables hold, as Keras's Adam does.

    Args:
        learning_rate: As for `keras.optimizers.Adam`.
        l2: Float, 0 or more; of every weight, biases among them.
        **kwargs: As for `keras.optimizers.Adam`.

    Raises:
        ValueError: If `l2` is negative.

    Example:
    >>> w = keras.Variable([0.5])
    >>> AdamL2(0.01, l2=0.1).apply([ops.array([0.0])], [w])
    >>> round(float(w[0]), 4)
    0.49
    """

    def __init__(self, learning_rate: Any = 0.001, *, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        self.l2 = check_number("l2", l2, least=0)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        if self.l2:
            gradient = ops.convert_to_tensor(gradient) + self.l2 * ops.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "l2": self.l2}

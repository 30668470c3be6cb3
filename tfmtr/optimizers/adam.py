"""Adam, the default: Keras's, with TensorFlow's one operation for each weight's step."""

from typing import Any

import keras
import numpy as np

from tfmtr.backends import is_tensorflow
from tfmtr.optimizers._tables import Gradient, Variable, is_sparse, tensorflow_of
from tfmtr.private_names import place_of

__all__ = ["Adam"]


@keras.saving.register_keras_serializable(package="tfmtr")
class Adam(keras.optimizers.Adam):
    """Keras's Adam, whose dense step is one operation a weight on the TensorFlow backend.

    Keras writes the step in some twenty operations a weight, which are traced one by one and keep their results in
    memory; TensorFlow's `ResourceApplyAdam` reads and writes each number once, by the same formula. Where there is
    no such operation the step is Keras's own: on other backends, with `amsgrad`, of weights that are not float32, and
    for the gradient of a table that comes row by row; rows that are there twice Keras's Adam does not sum.

    Arguments as for `keras.optimizers.Adam`.

    Example:
    >>> w = keras.Variable([0.5])
    >>> Adam(0.01).apply([keras.ops.array([2.0])], [w])
    >>> round(float(w[0]), 4)
    0.49
    """

    def update_step(self, gradient: Gradient, variable: Variable, learning_rate: Any) -> None:
        """Updates one variable."""
        if not is_tensorflow() or self.amsgrad or is_sparse(gradient) or variable.dtype != "float32":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        index, step = place_of(self, variable), tf.cast(tensorflow_of(self.iterations) + 1, "float32")
        # Keras rounds 1 - beta to float32, the operation beta: its moments are these times as large.
        first, second = (float(1 - np.float32(beta)) / (1 - beta) for beta in (self.beta_1, self.beta_2))
        tf.raw_ops.ResourceApplyAdam(
            var=tensorflow_of(variable).handle,
            m=tensorflow_of(self._momentums[index]).handle,
            v=tensorflow_of(self._velocities[index]).handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, "float32") * (second**0.5 / first),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon * second**0.5,
            grad=tf.cast(gradient, "float32"),
        )

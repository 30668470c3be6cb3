"""Adam that reads and writes only the rows of an embedding table that a batch touches."""

from typing import Any

import keras
from keras import ops

from tfmtr.backends import check_tensorflow
from tfmtr.optimizers._tables import Gradient, Variable, beside, clipped, is_table, put, take, unique_rows, values_of
from tfmtr.optimizers.adam import Adam
from tfmtr.private_names import place_of


@keras.saving.register_keras_serializable(package="tfmtr")
class SparseAdam(Adam):
    """Adam whose step costs what the batch touches, not what the table holds.

    Keras's Adam decays the moments of every row at every step and moves every row by them. Here a row that is not in
    the batch is neither read nor written: its moments wait (they decay by the number of times the row is touched), and
    it does not move. The gradients of a row that is in the batch several times are summed first. Dense weights, and
    tables whose gradient is dense, are updated as by Keras's Adam; so are all if every row is touched at every step.
    Both moments of a row lie side by side, so that one look finds them.

    Reference: Kingma and Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, https://arxiv.org/abs/1412.6980;
    the lazy form is that of TensorFlow Addons' `LazyAdam`. The corrections of the start count all steps.

    Arguments as for `keras.optimizers.Adam`. With `use_ema` the averages of all rows are updated at every step, which
    costs what the table holds. Gradient accumulation is not for tables this large: its sums are dense.

    Example:
    >>> import tensorflow as tf
    >>> optimizer = SparseAdam(0.1)
    >>> table = keras.layers.Embedding(1000, 4)
    >>> table.build()
    >>> row = tf.IndexedSlices(tf.ones((2, 4)), tf.constant([7, 7]), tf.constant([1000, 4]))
    >>> before = keras.ops.convert_to_numpy(table.embeddings)
    >>> optimizer.apply([row], [table.embeddings])
    >>> (keras.ops.convert_to_numpy(table.embeddings) != before).any(axis=1).nonzero()[0].tolist()
    [7]
    """

    def __init__(
        self, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001, **kwargs: Any
    ) -> None:
        check_tensorflow("`SparseAdam`", "take `keras.optimizers.Adam`, since gradients of tables are dense there")
        super().__init__(learning_rate, **kwargs)
        if self.amsgrad:
            raise ValueError("`amsgrad` is not for row-sparse moments. Received: amsgrad=True")

    def build(self, variables: list[keras.Variable]) -> None:
        """Adds the moments: of a table both in one variable."""
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)
        self._momentums, self._velocities = [], []
        for variable in variables:
            if is_table(variable):
                rows, width = variable.shape
                name = f"{variable.path.replace('/', '_')}_moments"
                with beside(variable):
                    packed = self.add_variable((rows, 2 * width), dtype=variable.dtype, name=name)
                self._momentums.append(packed)
                self._velocities.append(None)
            else:
                self._momentums.append(self.add_variable_from_reference(variable, name="momentum"))
                self._velocities.append(self.add_variable_from_reference(variable, name="velocity"))

    def _clip_gradients(self, grads: list[Gradient]) -> list[Gradient]:
        return clipped(self, super()._clip_gradients, grads)

    def update_step(self, gradient: Gradient, variable: Variable, learning_rate: keras.KerasTensor) -> None:
        """Updates one variable, of a table the rows that are touched."""
        gradient, index = unique_rows(gradient), place_of(self, variable)
        if self._velocities[index] is not None:
            super().update_step(gradient, variable, learning_rate)
            return
        moments, width = self._momentums[index], variable.shape[-1]
        with beside(variable):
            row_moments, g = take(moments, gradient), values_of(gradient, variable.dtype)
            step = ops.cast(self.iterations + 1, variable.dtype)
            beta_1, beta_2 = ops.cast(self.beta_1, variable.dtype), ops.cast(self.beta_2, variable.dtype)
            rate = ops.cast(learning_rate, variable.dtype)
            rate = rate * ops.sqrt(1 - ops.power(beta_2, step)) / (1 - ops.power(beta_1, step))
            first = row_moments[:, :width] + (g - row_moments[:, :width]) * (1 - self.beta_1)
            second = row_moments[:, width:] + (g * g - row_moments[:, width:]) * (1 - self.beta_2)
            change = first * rate / (ops.sqrt(second) + self.epsilon)
            put(self, moments, gradient, ops.concatenate([first, second], axis=1))
            put(self, variable, gradient, take(variable, gradient) - change)

"""Adagrad with one accumulator for each row of an embedding table."""

from typing import Any

import keras
from keras import ops

from tfmtr.optimizers._tables import Gradient, Variable, beside, clipped, is_table, put, take, unique_rows, values_of
from tfmtr.private_names import place_of


@keras.saving.register_keras_serializable(package="tfmtr")
class RowWiseAdagrad(keras.optimizers.Adagrad):
    """Adagrad that keeps one number a row and touches only the rows of the batch.

        a_r <- a_r + mean_d g_rd^2,    w_r <- w_r - rate g_r / sqrt(a_r + epsilon)

    so that the state of a table is a `width`-th of Adagrad's, and half of that share of Adam's. The gradients of a row
    that is in the batch several times are summed first. Dense weights are updated as by Keras's Adagrad.

    Reference: Gupta et al., Training Recommender Systems at Scale: Communication-Efficient Model and Data Parallelism,
    2020, https://arxiv.org/abs/2010.08899, section 4; Duchi et al., Adaptive Subgradient Methods, JMLR 2011.

    Arguments as for `keras.optimizers.Adagrad`, but accumulators start at 0 and epsilon is small: the gradient of a
    mean over thousands of rows has squares near 1e-10, which Keras's 0.1 and 1e-7 would drown for as long as a model
    is trained. `use_ema` costs what the table holds.

    Example:
    >>> optimizer = RowWiseAdagrad(0.1)
    >>> table = keras.layers.Embedding(1000, 4)
    >>> table.build()
    >>> optimizer.build([table.embeddings])
    >>> optimizer.variables[-1].shape
    TensorShape([1000, 1])
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        initial_accumulator_value: float = 0.0,
        epsilon: float = 1e-12,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, initial_accumulator_value=initial_accumulator_value, epsilon=epsilon, **kwargs)

    def build(self, variables: list[keras.Variable]) -> None:
        """Adds the accumulators."""
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)
        start = keras.initializers.Constant(self.initial_accumulator_value)
        self._tables = {i for i, variable in enumerate(variables) if is_table(variable)}
        self._accumulators = []
        for v in variables:
            if is_table(v):
                name = f"{v.path.replace('/', '_')}_accumulator"
                with beside(v):
                    accumulator = self.add_variable((v.shape[0], 1), initializer=start, dtype=v.dtype, name=name)
            else:
                accumulator = self.add_variable_from_reference(v, initializer=start, name="accumulator")
            self._accumulators.append(accumulator)

    def _clip_gradients(self, grads: list[Gradient]) -> list[Gradient]:
        return clipped(self, super()._clip_gradients, grads)

    def update_step(self, gradient: Gradient, variable: Variable, learning_rate: keras.KerasTensor) -> None:
        """Updates one variable, of a table the rows that are touched."""
        gradient, index = unique_rows(gradient), place_of(self, variable)
        if index not in self._tables:
            super().update_step(gradient, variable, learning_rate)
            return
        accumulator = self._accumulators[index]
        with beside(variable):
            g = values_of(gradient, variable.dtype)
            total = take(accumulator, gradient) + ops.mean(g * g, axis=1, keepdims=True)
            change = ops.cast(learning_rate, variable.dtype) * g / ops.sqrt(total + self.epsilon)
            put(self, accumulator, gradient, total)
            put(self, variable, gradient, take(variable, gradient) - change)

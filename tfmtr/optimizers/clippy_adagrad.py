"""Adagrad whose step never changes a weight by more than a share of it: for ranking models that would diverge."""

from typing import Any

import keras
from keras import ops

from tfmtr.optimizers._tables import Gradient, Variable, clipped, put, take, unique_rows, values_of
from tfmtr.private_names import place_of


@keras.saving.register_keras_serializable(package="tfmtr")
class ClippyAdagrad(keras.optimizers.Optimizer):
    """Scales each variable's Adagrad step by the largest factor in (0, 1] for which no weight changes too much.

        d = rate g / sqrt(a + epsilon),    limit = relative |w| + accumulated / sqrt(a + epsilon) + absolute
        w <- w - s d    with    s = min(1, min_i limit_i / |d_i|),    a <- a + g^2

    One weight that would be thrown far off shrinks the whole step of its variable, so directions are kept. The
    accumulator is that of the steps before. Of an embedding table only the rows of the batch count and change.

    Reference: Tang et al., Improving Training Stability for Multitask Ranking Models in Recommender Systems, KDD 2023,
    https://arxiv.org/abs/2302.09178, section 4, algorithm 1. The same numbers as TensorFlow Recommenders'
    `ClippyAdagrad`, where every row of a batch is there once; here repeated rows are summed first.

    Args:
        learning_rate: Float or schedule; the paper has 1.0 in front of the clipping.
        initial_accumulator_value: Start of the accumulators.
        relative: Share of a weight that a step may change.
        accumulated: Factor of `1 / sqrt(a + epsilon)` in the limit.
        absolute: What a step may always change.
        epsilon: Small number.
        clip_accumulator: Whether the accumulator grows by the clipped gradient, `(s g)^2`.
        **kwargs: As for `keras.optimizers.Optimizer`.

    Raises:
        ValueError: If a threshold is negative.

    Example:
    >>> w = keras.Variable([1.0, 2.0])
    >>> optimizer = ClippyAdagrad(1.0, relative=0.1)
    >>> optimizer.apply([ops.array([5.0, 1.0])], [w])
    >>> round(float(w[0]), 4)
    0.9
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        *,
        initial_accumulator_value: float = 0.1,
        relative: float = 0.1,
        accumulated: float = 0.0,
        absolute: float = 1e-7,
        epsilon: float = 1e-7,
        clip_accumulator: bool = False,
        name: str = "clippy_adagrad",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        for argument, value in (("relative", relative), ("accumulated", accumulated), ("absolute", absolute)):
            if value < 0:
                raise ValueError(f"`{argument}` must not be negative. Received: {argument}={value}")
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon
        self.relative, self.accumulated, self.absolute = relative, accumulated, absolute
        self.clip_accumulator = clip_accumulator

    def build(self, variables: list[keras.Variable]) -> None:
        """Adds the accumulators."""
        if self.built:
            return
        super().build(variables)
        start = keras.initializers.Constant(self.initial_accumulator_value)
        self._accumulators = self.add_optimizer_variables(variables, "accumulator", initializer=start)

    def _clip_gradients(self, grads: list[Gradient]) -> list[Gradient]:
        return clipped(self, super()._clip_gradients, grads)

    def update_step(self, gradient: Gradient, variable: Variable, learning_rate: keras.KerasTensor) -> None:
        """Updates one variable."""
        gradient, accumulator = unique_rows(gradient), self._accumulators[place_of(self, variable)]
        g, a, w = values_of(gradient, variable.dtype), take(accumulator, gradient), take(variable, gradient)
        root = ops.rsqrt(a + self.epsilon)
        change = ops.cast(learning_rate, variable.dtype) * g * root
        limit = self.relative * ops.abs(w) + self.accumulated * root + self.absolute
        moves = change != 0
        factor = ops.where(moves, limit / ops.where(moves, ops.abs(change), 1.0), 1.0)
        scale = ops.min(ops.concatenate([ops.reshape(factor, (-1,)), ops.ones((1,), variable.dtype)]))
        put(self, accumulator, gradient, a + ops.square(g * scale if self.clip_accumulator else g))
        put(self, variable, gradient, w - scale * change)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        names = ("initial_accumulator_value", "relative", "accumulated", "absolute", "epsilon", "clip_accumulator")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

"""Trains the default branch."""

from typing import Any

import keras
from keras import KerasTensor, ops


@keras.saving.register_keras_serializable(package="tfmtr")
class UnknownScenario(keras.layers.Layer):
    """Calls a random share of the training rows' scenarios unknown, so that the default branch is trained.

    A scenario that training did not know has index 0. No row of the training data has it, so its branch
    would keep its initial weights. In training each row's index becomes 0 with probability `rate`; in
    inference nothing changes.

    Args:
        rate: Float in `[0, 1)`.
        seed: Optional integer seed.

    Call arguments:
        inputs: Integer tensor of shape `(batch,)`.
        training: Whether indices are dropped.

    Returns:
        Integer tensor of shape `(batch,)`.

    Raises:
        ValueError: If `rate` is not in `[0, 1)`.

    Example:
    >>> int(ops.max(UnknownScenario(0.5)(ops.array([1, 2]), training=False)))
    2
    """

    def __init__(self, rate: float, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}")
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: KerasTensor, training: bool = False) -> KerasTensor:
        if not training or self.rate == 0.0:
            return inputs
        is_kept = keras.random.uniform(ops.shape(inputs), seed=self.seed_generator) >= self.rate
        return inputs * ops.cast(is_kept, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}

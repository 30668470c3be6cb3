"""How often an id turns up in a stream of batches."""

from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.layers._hashing import hashed_places
from tfmtr.layers._sizes import Shape, check_sizes


@keras.saving.register_keras_serializable(package="tfmtr")
class StreamingFrequency(keras.layers.Layer):
    """Estimates from a stream of batches how likely each id is to be in one.

    For an id y in batch t, with the batch A(y) in which it was last seen:

        B(y) <- (1 - rate) B(y) + rate (t - A(y)),    A(y) <- t,    p(y) = 1 / B(y)

    over hashed ids; of several hash functions the rarest estimate counts, since a collision only adds appearances.
    Nothing is updated outside training.

    Chosen here: the rate is `max(rate, 1 / n)` at the n-th appearance, so that `B = t / n`, the plain mean, until there
    are enough of them, wherever it starts.

    Reference: Yi et al., RecSys 2019, section 4, algorithm 2.

    Args:
        num_buckets: Entries of a table.
        num_hashes: Tables.
        rate: Learning rate in (0, 1].

    Call arguments:
        inputs: Integer tensor of shape `(batch,)`.

    Returns:
        `log p`, float32 of shape `(batch,)`, at most 0.
    """

    def __init__(self, num_buckets: int = 2**20, num_hashes: int = 2, rate: float = 0.05, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_sizes(num_buckets=num_buckets, num_hashes=num_hashes)
        if not 0.0 < rate <= 1.0:
            raise ValueError(f"`rate` must be in (0, 1]. Received: rate={rate}")
        self.num_buckets, self.num_hashes, self.rate = num_buckets, num_hashes, rate

    def build(self, input_shape: Shape) -> None:
        size = (self.num_hashes * self.num_buckets,)
        options = {"initializer": "zeros", "trainable": False, "dtype": "int32"}
        self.step = self.add_weight(shape=(), name="step", **options)
        self.last = self.add_weight(shape=size, name="last", **options)
        self.count = self.add_weight(shape=size, name="count", **options)
        self.gap = self.add_weight(
            shape=size, initializer="ones", trainable=False, dtype="float32", autocast=False, name="gap"
        )

    def call(self, inputs: KerasTensor, training: bool = False) -> KerasTensor:
        places = hashed_places(inputs, self.num_hashes, self.num_buckets)
        if training:
            places = ops.reshape(places, (-1,))
            step, count = self.step + 1, ops.take(self.count, places) + 1
            seen = ops.cast(step - ops.take(self.last, places), "float32")
            rate = ops.maximum(self.rate, 1 / ops.cast(count, "float32"))
            gap = (1 - rate) * ops.take(self.gap, places) + rate * seen
            # Rows of one id, or of one bucket, all write the same.
            for weight, values in ((self.gap, gap), (self.count, count), (self.last, ops.zeros_like(count) + step)):
                weight.assign(ops.scatter_update(weight, ops.expand_dims(places, 1), values))
            self.step.assign(step)
            places = ops.reshape(places, (self.num_hashes, -1))
        return -ops.log(ops.max(ops.take(self.gap, places), axis=0))

    def compute_output_spec(self, inputs: KerasTensor, training: bool = False) -> KerasTensor:
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_buckets": self.num_buckets,
            "num_hashes": self.num_hashes,
            "rate": self.rate,
        }

"""How popular a title is among the training rows."""

from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from tfmtr.layers._hashing import hashed_places
from tfmtr.layers._sizes import Shape, check_sizes


@keras.saving.register_keras_serializable(package="tfmtr")
class TitlePopularity(keras.layers.Layer):
    """The popularity of titles, from counts that it is given before training and never changes itself.

        m(y) = (n(y) + 1) / (max n + 1)

    with the number `n(y)` of positives of the title with id y. Counts stand in hashed tables of a fixed size; of
    several hash functions the smallest count is taken, since a collision only adds to it. A title without a positive
    has the least popularity, not 0: its logarithm and its inverse are finite.

    Args:
        num_buckets: Entries of a table.
        num_hashes: Tables.

    Call arguments:
        inputs: Integer tensor of shape `(batch,)`.

    Returns:
        float32 of shape `(batch,)`, in (0, 1].

    Example:
    >>> layer = TitlePopularity(num_buckets=64)
    >>> layer.set_counts(np.array([7, 9]), np.array([3, 1]))
    >>> [round(float(m), 2) for m in layer(np.array([7, 9, 8]))]
    [1.0, 0.5, 0.25]
    """

    def __init__(self, num_buckets: int = 2**20, num_hashes: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_sizes(num_buckets=num_buckets, num_hashes=num_hashes)
        self.num_buckets, self.num_hashes = num_buckets, num_hashes

    def build(self, input_shape: Shape) -> None:
        options = {"initializer": "zeros", "trainable": False, "dtype": "int32"}
        self.counts = self.add_weight(shape=(self.num_hashes * self.num_buckets,), name="counts", **options)
        self.largest = self.add_weight(shape=(), name="largest", **options)

    def set_counts(self, ids: np.ndarray, counts: np.ndarray) -> None:
        """Forgets what it knew, and knows these.

        Args:
            ids: Integer array of shape `(titles,)`, each id once.
            counts: Integer array of shape `(titles,)`.
        """
        if not self.built:
            self.build((None,))
            self.built = True
        table = np.zeros(self.num_hashes * self.num_buckets, np.int32)
        for places in ops.convert_to_numpy(hashed_places(ids, self.num_hashes, self.num_buckets)):  # pyright: ignore[reportArgumentType]
            np.add.at(table, places, counts)
        self.counts.assign(table)
        self.largest.assign(counts.max(initial=0))

    def call(self, inputs: KerasTensor) -> KerasTensor:
        places = hashed_places(inputs, self.num_hashes, self.num_buckets)
        counts = ops.cast(ops.min(ops.take(self.counts, places), axis=0), "float32")
        return (counts + 1) / (ops.cast(self.largest, "float32") + 1)  # pyright: ignore[reportReturnType]

    def compute_output_spec(self, inputs: KerasTensor) -> KerasTensor:
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_buckets": self.num_buckets, "num_hashes": self.num_hashes}

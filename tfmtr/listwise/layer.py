"""The list model's part of a query, in the graph that is served."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr.encoders.raw import lookup
from tfmtr.listwise.model import Scorer
from tfmtr.listwise.parts import TYPICAL
from tfmtr.listwise.past_titles import MOST


class ListQuery(keras.layers.Layer):
    """A user's coordinates from the past and the territory, as `Scorer.queries` has them.

    Where no title of the history is known, the seen titles stand for it, as if they were all had just now.

    Args:
        scorer: The `Scorer`.
        title_index: Layer that looks up titles: 0 for one that is not known, else its place from 1.

    Call arguments:
        history: Text tensor of shape `(batch, n)`: titles that the user had, the newest last; "" is none.
        ages: Float tensor of the same shape, or of `(batch, 1)` or `(1, 1)` for all: days since then.
        seen: Text tensor of shape `(batch, m)`.
        territory: Text tensor of shape `(batch,)`.

    Returns:
        `(query, has_history, has_past)`: float32 of shape `(batch, width)`, and booleans of shape `(batch,)`: whether a
        title of the history is known, and whether one of it or of the seen titles is.
    """

    def __init__(self, scorer: Scorer, title_index: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})  # whatever the towers compute in
        self.half_life, self.model_weight = scorer.half_life, scorer.model_weight
        self.title_index, self.territory_index = title_index, lookup(list(scorer.territories))
        inputs = np.vstack([np.zeros((1, scorer.inputs.shape[1]), "float32"), scorer.inputs])
        homes = np.vstack([scorer.nowhere, scorer.homes])
        self.inputs_of, self.homes_of = (
            self.add_weight(shape=value.shape, initializer=lambda shape, dtype, value=value: value, trainable=False)
            for value in (inputs, homes)
        )
        self.width = homes.shape[1]
        self.built = True

    def call(
        self, history: tf.Tensor, ages: tf.Tensor, seen: tf.Tensor, territory: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Folds the past; see the class."""
        ages = tf.broadcast_to(ages, tf.shape(history))
        index, ages = newest(self.title_index(history), ages)
        instead, _ = newest(self.title_index(seen), tf.zeros_like(seen, tf.float32))
        has_history = tf.reduce_any(index > 0, axis=1)
        index = tf.where(has_history[:, None], index, instead)
        ages = tf.where(has_history[:, None], ages, 0.0)
        decayed = 1.0 if self.half_life is None else 0.5 ** (tf.maximum(ages, 0.0) / self.half_life)  # pyright: ignore[reportOperatorIssue]
        decayed = tf.where(index > 0, decayed, 0.0)
        weights = decayed / tf.sqrt(tf.maximum(tf.reduce_sum(decayed, axis=1, keepdims=True), 1.0))
        past = tf.einsum("bn,bnd->bd", weights, tf.gather(tf.convert_to_tensor(self.inputs_of), index))
        home = tf.gather(tf.convert_to_tensor(self.homes_of), self.territory_index(territory))
        activity = tf.math.log1p(tf.reduce_sum(tf.cast(index > 0, tf.float32), axis=1, keepdims=True)) - TYPICAL
        own = tf.concat([past, tf.zeros_like(activity), activity], axis=1)
        return (
            home + tf.pad(own, [[0, 0], [0, self.width - own.shape[1]]]),
            has_history,
            tf.reduce_any(index > 0, axis=1),
        )


def newest(index: tf.Tensor, ages: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The newest `MOST` titles, each once, as `past_titles` takes them; 0 where there is none.

    Args:
        index: Titles, integers of shape `(batch, n)`, the newest last; 0 for none.
        ages: Days, of the same shape.

    Returns:
        Both of shape `(batch, MOST)`.
    """
    index = tf.cast(index, tf.int32)
    size = tf.shape(index)[1]
    later = tf.range(size)[:, None] < tf.range(size)[None, :]
    is_again = tf.reduce_any((index[:, :, None] == index[:, None, :]) & later, axis=2)
    is_there = (index > 0) & ~is_again
    # Of what is there the last ones come last; what is not there comes before all.
    order = tf.argsort(tf.where(is_there, tf.range(size), -1), axis=1, stable=True)[:, -MOST:]
    index = tf.gather(tf.where(is_there, index, 0), order, batch_dims=1)
    ages = tf.gather(ages, order, batch_dims=1)
    missing = [[0, 0], [tf.maximum(MOST - size, 0), 0]]
    return tf.pad(index, missing), tf.pad(ages, missing)

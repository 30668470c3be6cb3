"""Exact top-k over the title vectors, inside the graph."""

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr.retrieval.catalogue import Catalogue

FEW = 1 / 8  # of all titles: where a batch may be shown fewer, only these are scored


class ExactIndex(keras.layers.Layer):
    """Finds each query's best titles among those that it may be shown.

    Scores every title, `score = <query, title>`, and sets titles that the catalogue does not allow to minus infinity
    **before** taking the top k, so that k titles come back whenever k exist. Where the whole batch is allowed few
    titles, only these are scored. (The index layers of TensorFlow Recommenders filter after the search and know no
    availability; a test holds the two against each other without filters.)

    Args:
        catalogue: The `Catalogue`.
        vectors: Array of shape `(titles, d)`.

    Call arguments:
        query: Tensor of shape `(batch, d)`.
        k: int32 tensor of shape `(batch,)`: how many titles each row wants.
        allowed: Boolean tensor of shape `(batch, titles)`, what the catalogue returns.

    Returns:
        A dictionary: `index`, int32 of shape `(batch, max(k))`, best first; `scores`, float32 of the same shape, minus
        infinity from where there are no more; `is_exact`, boolean of shape `(batch,)`.

    Raises:
        ValueError: If there is not one vector for each title.
        tf.errors.InvalidArgumentError: If `k` is not in [1, titles].
    """

    def __init__(self, catalogue: Catalogue, vectors: np.ndarray, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})  # whatever the towers compute in
        check_vectors(catalogue, vectors)
        self.catalogue = catalogue
        self.vectors = self.add_weight(
            shape=np.shape(vectors), initializer=lambda shape, dtype: vectors, trainable=False, name="vectors"
        )
        self.built = True

    def call(self, query: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Searches; see the class."""
        width = width_of(k, self.catalogue.num_titles)
        scores, index = search_allowed(query, tf.convert_to_tensor(self.vectors), allowed, width)
        return {"index": index, "scores": cut(scores, k), "is_exact": tf.ones_like(k, tf.bool)}

    def vectors_of(self, index: tf.Tensor) -> tf.Tensor:
        """Vectors of candidates: `index` of shape `(batch, candidates)` gives `(batch, candidates, d)`."""
        return tf.gather(tf.convert_to_tensor(self.vectors), index)


def search_allowed(
    query: tf.Tensor, vectors: tf.Tensor, allowed: tf.Tensor, width: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best allowed titles of each query.

    Args:
        query: Tensor of shape `(batch, d)`.
        vectors: Tensor of shape `(titles, d)`.
        allowed: Boolean tensor of shape `(batch, titles)`.
        width: How many to find, an int32 scalar of at most the number of titles.

    Returns:
        Scores, float32 of shape `(batch, width)`, best first, minus infinity from where there are no more; and int32
        positions of the same shape, 0 there. Of equal scores the first title's comes first.
    """
    is_any = tf.reduce_any(allowed, axis=0)

    def among_few() -> tuple[tf.Tensor, tf.Tensor]:
        columns = tf.where(is_any)[:, 0]
        scores, place = best(query, tf.gather(vectors, columns), tf.gather(allowed, columns, axis=1), width)
        return scores, tf.cast(tf.gather(tf.pad(columns, [[0, 1]]), place), tf.int32)  # one is there if none is allowed

    number = tf.math.count_nonzero(is_any, dtype=tf.int32)
    is_few = tf.cast(number, tf.float32) < FEW * tf.cast(tf.shape(vectors)[0], tf.float32)
    scores, index = tf.cond(is_few, among_few, lambda: best(query, vectors, allowed, width))
    return scores, tf.where(scores > -np.inf, index, 0)


def best(query: tf.Tensor, vectors: tf.Tensor, allowed: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Top-k of the masked scores of these vectors, padded to `width`."""
    scores = tf.where(allowed, tf.matmul(query, vectors, transpose_b=True), -np.inf)
    scores, index = tf.math.top_k(scores, tf.minimum(width, tf.shape(vectors)[0]))
    return pad(scores, index, width)


def pad(scores: tf.Tensor, index: tf.Tensor, width: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores and index of `width` columns: the missing ones are minus infinity, and 0."""
    missing = [[0, 0], [0, width - tf.shape(scores)[1]]]
    return tf.pad(scores, missing, constant_values=-np.inf), tf.pad(index, missing)


def check_vectors(catalogue: Catalogue, vectors: np.ndarray) -> None:
    """Raises a `ValueError` unless there is one vector for each title."""
    if len(np.shape(vectors)) != 2 or len(vectors) != catalogue.num_titles:
        raise ValueError(
            f"`vectors` must have shape ({catalogue.num_titles}, d), one for each title. Received: {np.shape(vectors)}"
        )


def width_of(k: tf.Tensor, num_titles: int) -> tf.Tensor:
    """The largest `k`, once all are in [1, titles]."""
    text = f"`k` must be at most {num_titles}, the number of titles in the index."
    checks = [
        tf.debugging.assert_less_equal(k, num_titles, text),
        tf.debugging.assert_positive(k, "`k` must be positive"),
    ]
    with tf.control_dependencies(checks):
        return tf.reduce_max(tf.concat([[0], k], 0))  # 0 for an empty batch


def cut(scores: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Minus infinity from each row's own `k` on."""
    return tf.where(tf.range(tf.shape(scores)[1])[None, :] < k[:, None], scores, -np.inf)


def exact(catalogue: Catalogue, vectors: np.ndarray, file: str | os.PathLike | None = None) -> ExactIndex:
    """An `ExactIndex`."""
    return ExactIndex(catalogue, vectors)

"""Exact top-k over the title vectors, inside the graph."""

import keras
import numpy as np
import tensorflow as tf

from tfmtr.encoders.raw import lookup


class ExactIndex(keras.layers.Layer):
    """Finds each query's best titles among those that it may be shown.

    Scores every title, `score = <query, title>`, and sets titles that are not available in the asked
    territory or were seen already to minus infinity **before** taking the top k, so that k titles come
    back whenever k exist. (The index layers of TensorFlow Recommenders filter after the search and know
    no availability; a test holds the two against each other without filters.) An unknown territory gets
    the titles that are available in at least half of the territories.

    Args:
        titles: Ids, a sequence of text.
        vectors: Array of shape `(titles, d)`.
        availability: `{territory: boolean array of shape (titles,)}`.

    Call arguments:
        query: Tensor of shape `(batch, d)`.
        territory: Text tensor of shape `(batch,)`.
        seen: Text tensor of shape `(batch, n)`: title ids; "" and unknown ids are ignored.
        k: int32 tensor of shape `(batch,)`: how many titles each row wants.

    Returns:
        A dictionary: `titles`, text of shape `(batch, max(k))`, best first, padded with ""; `scores`,
        float32 of the same shape, padded with minus infinity; `count`, int32 of shape `(batch,)`: how
        many came back.

    Raises:
        ValueError: If the arguments do not have one entry for each title.
    """

    is_exact = True

    def __init__(self, titles, vectors, availability, **kwargs):
        super().__init__(**kwargs)
        titles = [str(title) for title in titles]
        if len(set(titles)) != len(titles) or len(vectors) != len(titles):
            raise ValueError(
                "`titles` must be different ids, one for each vector. "
                f"Received: {len(titles)} ids ({len(set(titles))} different), vectors.shape={np.shape(vectors)}"
            )
        for territory, mask in availability.items():
            if np.shape(mask) != (len(titles),):
                raise ValueError(
                    f"`availability` must have shape ({len(titles)},) for each territory. "
                    f"Received: {territory!r} with shape {np.shape(mask)}"
                )
        masks = np.asarray(list(availability.values()), bool).reshape(len(availability), len(titles))
        unknown = masks.mean(axis=0) >= 0.5 if len(masks) else np.ones(len(titles), bool)
        self.num_titles = len(titles)
        self.title_index = lookup(titles)
        self.title_id = lookup(titles, invert=True)
        self.territory_index = lookup(availability)
        self.vectors = self.add_weight(
            shape=np.shape(vectors), initializer=lambda shape, dtype: vectors, trainable=False, name="vectors"
        )
        self.available = self.add_weight(
            shape=(1 + len(masks), len(titles)),
            initializer=lambda shape, dtype: np.vstack([unknown, masks]),
            trainable=False,
            dtype="bool",
            name="available",
        )
        self.built = True

    def call(self, query, territory, seen, k):
        """Searches; see the class."""
        with tf.control_dependencies(
            [
                tf.debugging.assert_less_equal(
                    k, self.num_titles, f"`k` must be at most {self.num_titles}, the number of titles in the index."
                ),
                tf.debugging.assert_positive(k, "`k` must be positive."),
            ]
        ):
            width = tf.reduce_max(tf.concat([[0], k], 0))  # 0 for an empty batch
        allowed = tf.gather(tf.convert_to_tensor(self.available), self.territory_index(territory))  # (batch, titles)
        seen = self.title_index(seen) - 1
        cells = tf.where(seen >= 0)  # (pairs, 2)
        cells = tf.stack([cells[:, 0], tf.gather_nd(seen, cells)], axis=1)
        allowed = tf.tensor_scatter_nd_update(allowed, cells, tf.zeros(tf.shape(cells)[:1], tf.bool))

        scores = tf.matmul(query, tf.convert_to_tensor(self.vectors), transpose_b=True)
        scores = tf.where(allowed, scores, -np.inf)
        scores, index = tf.math.top_k(scores, width)  # (batch, width)
        found = (scores > -np.inf) & (tf.range(width)[None, :] < k[:, None])
        return {
            "titles": tf.where(found, self.title_id(tf.cast(index, tf.int64) + 1), ""),
            "scores": tf.where(found, scores, -np.inf),
            "count": tf.reduce_sum(tf.cast(found, tf.int32), axis=1),
        }

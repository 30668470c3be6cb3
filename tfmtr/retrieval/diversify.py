"""Maximal marginal relevance: a list whose titles are not all alike."""

import numpy as np
import tensorflow as tf


def diversify(scores: tf.Tensor, vectors: tf.Tensor, k: tf.Tensor, diversity: tf.Tensor) -> tf.Tensor:
    """Chooses titles one by one, each as good and as unlike those before it as possible.

        next = argmax_j (1 - diversity) s_j - diversity max_{i chosen} cos(v_i, v_j)

    with the candidates' scores `s` brought to [0, 1] row by row.

    Reference: Carbonell and Goldstein, The Use of MMR, Diversity-Based Reranking, SIGIR 1998,
    https://doi.org/10.1145/290941.291025, section 2.

    Args:
        scores: Tensor of shape `(batch, candidates)`, best first; minus infinity for what is no candidate.
        vectors: Tensor of shape `(batch, candidates, d)`.
        k: How many to choose, an int32 scalar.
        diversity: Tensor of shape `(batch,)` in [0, 1]; 0 keeps the order.

    Returns:
        int32 tensor of shape `(batch, k)`: positions among the candidates.
    """
    is_candidate = scores > -np.inf
    low = tf.reduce_min(tf.where(is_candidate, scores, np.inf), axis=1, keepdims=True)
    high = tf.reduce_max(scores, axis=1, keepdims=True)
    relevance = tf.where(is_candidate, (scores - low) / tf.maximum(high - low, 1e-12), -1e9)
    relevance = tf.where(is_candidate, (1 - diversity[:, None]) * relevance, relevance)
    unit = tf.math.l2_normalize(vectors, axis=2)

    def choose(
        i: tf.Tensor, likest: tf.Tensor, taken: tf.Tensor, chosen: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        value = relevance - tf.where(i > 0, diversity[:, None] * likest, 0.0)
        # What is no candidate comes last, in its own order; nothing comes twice.
        best = tf.argmax(tf.where(taken, -np.inf, value), axis=1, output_type=tf.int32)
        best_unit = tf.gather(unit, best, batch_dims=1)
        likest = tf.maximum(likest, tf.einsum("bd,bcd->bc", best_unit, unit))
        taken = taken | tf.one_hot(best, tf.shape(scores)[1], on_value=True, off_value=False)
        return i + 1, likest, taken, chosen.write(i, best)

    state = (
        tf.constant(0),
        tf.fill(tf.shape(scores), -1.0),
        tf.zeros(tf.shape(scores), tf.bool),
        tf.TensorArray(tf.int32, size=k, element_shape=[None]),
    )
    _, _, _, chosen = tf.while_loop(lambda i, *_: i < k, choose, state)
    return tf.ensure_shape(tf.transpose(chosen.stack()), [scores.shape[0], None])

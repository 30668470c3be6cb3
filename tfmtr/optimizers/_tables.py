"""Gradients of embedding tables, which come row by row."""

import keras
import tensorflow as tf


def is_table(variable):
    """Whether a variable is the table of a Keras `Embedding`."""
    return variable.name == "embeddings" and len(variable.shape) == 2


def take_rows(variable, rows):
    """Rows of a Keras or TensorFlow variable, without reading the others."""
    return tf.gather(variable.value if isinstance(variable, keras.Variable) else variable, rows)


def unique_rows(gradient):
    """The gradient with each touched row once, the gradients of its appearances summed; dense ones as they are."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, place = tf.unique(tf.cast(tf.reshape(gradient.indices, (-1,)), tf.int32))  # thrice as fast as of int64
    width = tf.shape(gradient.values)[-1]
    values = tf.reshape(gradient.values, (-1, width))
    total = tf.scatter_nd(place[:, None], values, tf.stack([tf.size(rows), width]))
    return tf.IndexedSlices(total, rows, gradient.dense_shape)


def clipped(optimizer, clip, gradients):
    """Clips dense gradients and rows alike, if the optimizer clips; `clip` takes and returns a list of tensors."""
    if not (optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue):
        return gradients
    gradients = [unique_rows(g) for g in gradients]
    values = clip([g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients])
    return [
        tf.IndexedSlices(value, g.indices, g.dense_shape) if isinstance(g, tf.IndexedSlices) else value
        for g, value in zip(gradients, values, strict=True)
    ]

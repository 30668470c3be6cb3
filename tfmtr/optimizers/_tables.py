"""Gradients of embedding tables, which come row by row."""

import keras
import tensorflow as tf


def is_table(variable):
    """Whether a variable is the table of a Keras `Embedding`."""
    return variable.name == "embeddings" and len(variable.shape) == 2


def take(variable, gradient):
    """What the gradient is of, without reading other rows: values of a Keras or TensorFlow variable."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.gather(variable.value if isinstance(variable, keras.Variable) else variable, gradient.indices)
    return keras.ops.convert_to_tensor(variable)


def put(optimizer, variable, gradient, values):
    """Writes new values where `take` read; each row must be in the gradient once.

    A scatter that replaces rows takes a fifth of the time of one that subtracts from them.
    """
    is_sparse = isinstance(gradient, tf.IndexedSlices)
    optimizer.assign(variable, tf.IndexedSlices(values, gradient.indices) if is_sparse else values)


def values_of(gradient, dtype):
    """The numbers of a gradient, sparse or not."""
    return keras.ops.cast(gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient, dtype)


def unique_rows(gradient):
    """The gradient with each touched row once, the gradients of its appearances summed; dense ones as they are."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, place = tf.unique(tf.cast(tf.reshape(gradient.indices, (-1,)), tf.int32))  # thrice as fast as of int64
    values = tf.reshape(gradient.values, (-1, tf.shape(gradient.values)[-1]))
    total = tf.math.unsorted_segment_sum(values, place, tf.size(rows))
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

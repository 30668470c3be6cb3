"""What the oracles of several heads need: NumPy's probabilities, and a head's losses and gradients on a few rows."""

import numpy as np
import tensorflow as tf

from tfmtr.schema import Task

nan = float("nan")
CLICK_AND_PURCHASE = [Task("click", mean=0.3), Task("purchase", mean=0.06, after="click")]
LOGITS = {"click": [0.3, -1.0, 2.0, -0.4], "purchase": [0.5, -2.0, 0.1, 1.2]}
LABELS = {"click": [1.0, 0.0, 1.0, 0.0], "purchase": [1.0, 0.0, 0.0, 0.0]}
P = {name: 1 / (1 + np.exp(-np.asarray(values))) for name, values in LOGITS.items()}


def cross_entropy(p, label):
    """Binary cross-entropy, elementwise."""
    label = np.asarray(label)
    return -(label * np.log(p) + (1 - label) * np.log(1 - p))


def tensors(values):
    return {name: tf.constant(value, tf.float32) for name, value in values.items()}


def outputs(head, logits):
    """The serving outputs, flat."""
    columns = {name: value[:, None] for name, value in tensors(logits).items()}
    return {name: np.asarray(value)[:, 0] for name, value in head.outputs(columns).items()}


def losses_and_gradients(head, logits, labels, **context):
    """The head's losses by name, and the gradient of their sum by each tower's logits."""
    logits = {name: tf.Variable(value[:, None]) for name, value in tensors(logits).items()}
    with tf.GradientTape() as tape:
        values = {name: tf.convert_to_tensor(value) for name, value in logits.items()}
        losses = head.losses(head.outputs(values), values, {}, tensors(labels), context)
        total = sum(losses.values())
    gradients = tape.gradient(total, logits, unconnected_gradients="zero")
    return {k: float(v) for k, v in losses.items()}, {k: np.asarray(v)[:, 0] for k, v in gradients.items()}


def losses(head, logits, labels, **context):
    """The head's losses by name."""
    return losses_and_gradients(head, logits, labels, **context)[0]

"""What the oracles of several balancers need: gradients by hand, their inner products, and a call of the balancer."""

import numpy as np
import tensorflow as tf

from tfmtr.balancing._balancer import Problem

# Two tasks whose gradients conflict, are equal, are orthogonal.
PAIRS = {
    "conflicting": np.asarray([[1.0, 2.0, 0.0], [1.0, -1.0, 1.0]]),
    "equal": np.asarray([[1.0, 2.0, -1.0], [1.0, 2.0, -1.0]]),
    "orthogonal": np.asarray([[3.0, 0.0, 0.0], [0.0, 1.0, 1.0]]),
}
LOSSES = np.asarray([0.7, 0.3])


def problem(size=2, shapes=((3,),)):
    return Problem(tuple("abcdef"[:size]), shapes)


def state_of(balancer):
    values = {**balancer.state, **balancer.parameters}
    return {name: tf.constant(value) for name, value in values.items()}


def run(balancer, gradients, losses=LOSSES, state=None):
    """The shared update, the own coefficients and the new state."""
    gradients, state = np.asarray(gradients, "float32"), state_of(balancer) if state is None else state
    losses = tf.constant(losses, tf.float32)
    if balancer.coefficients is not None:
        shared, own, updates = balancer.coefficients(tf.constant(gradients @ gradients.T), losses, state)
        return np.asarray(shared) @ gradients, np.asarray(own), {**state, **updates}
    update, updates = balancer.merge(tf.constant(gradients), 0, losses, state)
    return np.asarray(update), None, {**state, **updates}


def weights(balancer, losses=LOSSES, state=None):
    """What each loss counts: the gradient of the objective by the losses; and the new state."""
    state, losses = state_of(balancer) if state is None else state, tf.constant(losses, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(losses)
        total, updates = balancer.objective(losses, state)
    return float(total), np.asarray(tape.gradient(total, losses)), {**state, **updates}

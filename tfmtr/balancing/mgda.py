"""The direction in which no task gets worse: the shortest vector between the gradients."""

from typing import Literal

import tensorflow as tf
from keras import ops

from tfmtr.balancing._balancer import TINY, Balancer, Problem, Tensor, Tensors, check_two
from tfmtr.balancing._solve import least_norm
from tfmtr.checks import check_choice


def mgda(problem: Problem, *, normalize: Literal["none", "l2", "loss", "loss+"] = "none") -> Balancer:
    """Takes the point of least norm in the convex hull of the tasks' gradients.

        min_w |sum_t w_t g_t|^2    with    w >= 0, sum w = 1

    Reference: Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018,
    https://arxiv.org/abs/1810.04650, section 3.2, equation 3; the normalisations are those of the authors' code. Here
    over the shared parameters themselves (not the upper bound of section 3.3).

    Args:
        problem: The `Problem`.
        normalize: What each gradient is divided by first: `"none"`, `"l2"` its norm, `"loss"` its loss, `"loss+"` both.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or `normalize` is unknown.
    """
    check_two(problem, "mgda")
    check_choice("normalize", normalize, ("none", "l2", "loss", "loss+"))

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        by = ops.ones_like(losses)
        if normalize in ("l2", "loss+"):
            by = by * ops.sqrt(ops.diagonal(gram))
        if normalize in ("loss", "loss+"):
            by = by * losses
        # A task whose gradient is 0 is where the shortest vector is: it would stop all others.
        has_gradient = ops.diagonal(gram) > TINY
        factor = ops.where(has_gradient & (by > TINY), 1 / ops.maximum(by, TINY), 0.0)
        g = tf.cast(factor[:, None] * gram * factor[None, :], tf.float64)
        absent = 2 * tf.reduce_max(tf.linalg.diag_part(g)) + 1e-30
        g = g / tf.maximum(tf.reduce_max(g), 1e-30) + tf.linalg.diag(tf.where(has_gradient, tf.zeros_like(absent), 1e6))
        return tf.cast(least_norm(g), tf.float32) * factor, ops.ones_like(losses), {}

    return Balancer(coefficients=coefficients)

"""Gradients are turned and scaled until none conflicts and none dominates."""

from typing import Literal

import numpy as np
import tensorflow as tf

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors, check_two
from tfmtr.checks import check_choice


def aligned_mtl(problem: Problem, *, scale: Literal["min", "median", "rmse"] = "min") -> Balancer:
    """Replaces the matrix of gradients by the nearest one whose singular values are all equal.

        G = V diag(lambda) V^T,    w = sqrt(sigma) V diag(1 / sqrt(lambda)) V^T 1,    g = sum_t w_t g_t

    with G the inner products and `sigma` the least eigenvalue that is not 0: the aligned gradients are orthogonal and
    equally long, so each task has the same share. What is above 0 is above the largest times the number of losses times
    float32's epsilon, as in the published code (SamsungLabs/MTL, optim/aligned/solver.py).

    Reference: Senushkin et al., Independent Component Alignment for Multi-Task Learning, CVPR 2023,
    https://arxiv.org/abs/2305.19000, section 4, algorithm 1.

    Args:
        problem: The `Problem`.
        scale: `"min"` as above, `"median"` or `"rmse"`: the median or the mean eigenvalue in place of the least.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or `scale` is unknown.
    """
    check_two(problem, "aligned_mtl")
    check_choice("scale", scale, ("min", "median", "rmse"))

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        values, vectors = tf.linalg.eigh(tf.cast(gram, tf.float64))  # in ascending order
        # The inner products were summed in float32, so what is 0 comes out as a rounding error of the largest.
        is_there = values > len(problem.losses) * np.finfo("float32").eps * tf.maximum(values[-1], 1e-30)
        count = tf.reduce_sum(tf.cast(is_there, tf.int32))
        kept_values = tf.boolean_mask(values, is_there)
        size = tf.shape(values)[0]
        if scale == "min":
            sigma = tf.reduce_min(tf.where(is_there, values, values[-1]))
        elif scale == "median":
            sigma = tf.where(count > 0, values[size - 1 - count // 2], 0.0)
        else:
            sigma = tf.reduce_sum(kept_values) / tf.cast(tf.maximum(count, 1), tf.float64)
        root = tf.where(is_there, tf.math.rsqrt(tf.where(is_there, values, 1.0)), 0.0)
        mixed = tf.sqrt(tf.maximum(sigma, 0.0)) * tf.matmul(vectors * root, vectors, transpose_b=True)
        return tf.cast(tf.reduce_sum(mixed, axis=1), tf.float32), tf.ones_like(losses), {}

    return Balancer(coefficients=coefficients)

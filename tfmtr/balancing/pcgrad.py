"""Gradients that conflict are projected onto each other's normal planes."""

import numpy as np
import tensorflow as tf
from keras import ops

from tfmtr.balancing._balancer import TINY, Balancer, Problem, Tensor, Tensors, check_two


def pcgrad(problem: Problem, *, seed: int = 0) -> Balancer:
    """Removes from each task's gradient what conflicts with other tasks' gradients, one after the other.

        g_i <- g_i - min(<g_i, g_j>, 0) / |g_j|^2 g_j    for the other tasks j in random order;    g = sum_i g_i

    Every projection is a combination of the gradients, so their inner products suffice.

    Reference: Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, https://arxiv.org/abs/2001.06782,
    algorithm 1.

    Args:
        problem: The `Problem`.
        seed: Of the random order; together with the step it decides it.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only.
    """
    check_two(problem, "pcgrad")
    size = len(problem.losses)

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        draws = tf.random.stateless_uniform((size, size), seed=ops.stack([seed, state["step"]]))
        order = ops.argsort(draws, axis=1)
        mixed = ops.eye(size)  # row i: the coefficients of task i's projected gradient
        for place in range(size):
            other = ops.one_hot(order[:, place], size)  # (tasks, losses)
            inner = ops.sum(mixed * ops.matmul(other, gram), axis=1)
            norm = ops.matmul(other, ops.diagonal(gram))
            conflict = ops.where((inner < 0) & (norm > TINY), inner / ops.maximum(norm, TINY), 0.0)
            conflict = conflict * (1 - ops.diagonal(other))  # not with itself
            mixed = mixed - ops.expand_dims(conflict, 1) * other
        return ops.sum(mixed, axis=0), ops.ones_like(losses), {"step": state["step"] + 1}

    return Balancer(coefficients=coefficients, state={"step": np.zeros((), "int32")})

"""The direction that is best for the worst task, near the mean gradient."""

import tensorflow as tf
from keras import ops

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors, check_range, check_two
from tfmtr.balancing._solve import minimum_on_simplex


def cagrad(problem: Problem, *, c: float = 0.4) -> Balancer:
    """Maximises the least improvement of a task within a ball around the mean gradient `g_0`.

        max_d min_t <g_t, d>    with    |d - g_0| <= c |g_0|
        d = g_0 + c |g_0| g_w / |g_w|,    g_w = sum_t w_t g_t
        w = argmin over the simplex of <g_w, g_0> + c |g_0| |g_w|

    The update is `T d / (1 + c^2)`: the authors' code rescales by `1 + c^2`, and T makes it the sum for `c = 0`.

    Reference: Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021,
    https://arxiv.org/abs/2110.14048, equations 3 and 4, algorithm 1.

    Args:
        problem: The `Problem`.
        c: Radius, in [0, 1]. With 0 it is the sum of the losses.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or `c` is not in [0, 1].
    """
    check_two(problem, "cagrad")
    check_range(0, 1, c=c)
    size = len(problem.losses)

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        scale = tf.maximum(tf.reduce_max(gram), 1e-30)
        g = tf.cast(gram / scale, tf.float64)
        mean = tf.reduce_mean(g, axis=1)  # <g_t, g_0>
        radius = c * tf.sqrt(tf.maximum(tf.reduce_mean(g), 0))

        def norm(w: Tensor) -> Tensor:
            return tf.sqrt(tf.maximum(tf.einsum("ni,ij,nj->n", w, g, w), 1e-24))

        w = minimum_on_simplex(
            lambda w: tf.linalg.matvec(w, mean) + radius * norm(w),
            lambda w: mean + radius * tf.matmul(w, g) / norm(w)[:, None],
            size,
        )
        shared = (1 / size + radius / norm(w[None]) * w) * size / (1 + c**2)
        return tf.cast(shared, tf.float32), ops.ones_like(losses), {}

    return Balancer(coefficients=coefficients)

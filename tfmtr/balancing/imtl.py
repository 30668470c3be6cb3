"""Impartial learning: equal projections of the gradient, losses of equal scale."""

import numpy as np
import tensorflow as tf

from tfmtr.balancing._balancer import TINY, Balancer, Problem, Tensor, Tensors, check_positive, check_two


def imtl(problem: Problem, *, learning_rate: float = 0.01) -> Balancer:
    """Scales the losses to one size and takes the direction that has the same projection on every task's gradient.

        L'_t = exp(s_t) L_t - s_t, minimised over `s_t` too,    g = sum_t a_t g'_t with sum_t a_t = 1
        <g, u_t> equal for all t,    u_t = g'_t / |g'_t|
        (a_2 .. a_T) = g'_1 U^T (D U^T)^-1,    U = u_1 - u_t,    D = g'_1 - g'_t,    a_1 = 1 - sum

    Parameters of one task alone are updated by `exp(s_t) g_t`.

    Reference: Liu et al., Towards Impartial Multi-Task Learning, ICLR 2021,
    https://openreview.net/forum?id=IMPnRXEWpvr, sections 3.1 (IMTL-G) and 3.2 (IMTL-L), the hybrid. `s` starts at 0
    and is trained by plain gradient descent with a rate of its own and steps of at most that rate.

    Args:
        problem: The `Problem`.
        learning_rate: Of `s`; positive.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or `learning_rate` is not positive.
    """
    check_two(problem, "imtl")
    check_positive(learning_rate=learning_rate)

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        scale = tf.exp(state["log_scale"])
        g = tf.cast(gram * scale[:, None] * scale[None, :], tf.float64)
        has_gradient = tf.linalg.diag_part(gram) > TINY
        both = tf.cast(has_gradient[:, None] & has_gradient[None, :], tf.float64)
        largest = tf.maximum(tf.reduce_max(g), TINY)
        g = (g * both) / largest + tf.linalg.diag(tf.where(has_gradient, tf.zeros_like(largest), 1.0))
        norm = tf.sqrt(tf.linalg.diag_part(g))
        by_unit = g / norm[None, :]  # <g_i, u_j>
        right = by_unit[0, 0] - by_unit[0, 1:]  # g_1 U^T
        left = by_unit[0, 0] - by_unit[0, None, 1:] - by_unit[1:, 0, None] + by_unit[1:, 1:]  # D U^T
        rest = tf.linalg.matvec(tf.linalg.pinv(left, rcond=1e-9), right, transpose_a=True)
        a = tf.where(
            has_gradient, tf.cast(tf.concat([1 - tf.reduce_sum(rest, keepdims=True), rest], 0), tf.float32), 0.0
        )
        slope = tf.where(losses > 0, tf.minimum(scale * losses - 1, 1.0), 0.0)
        return a * scale, scale, {"log_scale": state["log_scale"] - learning_rate * slope}

    return Balancer(coefficients=coefficients, state={"log_scale": np.zeros(len(problem.losses), "float32")})

"""Where gradients disagree in sign, one sign is drawn and the others dropped."""

import numpy as np
import tensorflow as tf

from tfmtr.balancing._balancer import TINY, Balancer, Problem, Tensor, Tensors, check_range, check_two


def grad_drop(problem: Problem, *, leak: float = 0.0, seed: int = 0) -> Balancer:
    """Keeps, element by element, the gradients of one sign, drawn by how much of the whole has it.

        P = (1 + sum_t g_t / sum_t |g_t|) / 2,    U uniform in [0, 1]
        g = sum_t (leak + (1 - leak) M_t) g_t,    M_t = [U < P] [g_t > 0] + [U > P] [g_t < 0]

    Reference: Chen et al., Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout, NeurIPS 2020,
    https://arxiv.org/abs/2010.06808, section 3, algorithm 1. There a layer of activations is treated; here the shared
    parameters.

    Args:
        problem: The `Problem`.
        leak: Share of what is dropped that passes, in [0, 1].
        seed: Of the draws; together with the step it decides them.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or `leak` is not in [0, 1].
    """
    check_two(problem, "grad_drop")
    check_range(0, 1, leak=leak)
    last = len(problem.shapes) - 1

    def merge(gradients: Tensor, index: int, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        total = tf.reduce_sum(tf.abs(gradients), axis=0)
        purity = 0.5 * (1 + tf.reduce_sum(gradients, axis=0) / tf.maximum(total, TINY))
        u = tf.random.stateless_uniform(tf.shape(purity), seed=tf.stack([seed * 10_007 + index, state["step"]]))
        kept = tf.where(u < purity, tf.nn.relu(gradients), -tf.nn.relu(-gradients))
        mixed = leak * gradients + (1 - leak) * kept
        return tf.reduce_sum(mixed, axis=0), {"step": state["step"] + (1 if index == last else 0)}

    return Balancer(merge=merge, state={"step": np.zeros((), "int32")})

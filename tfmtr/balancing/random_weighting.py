"""Weights drawn anew at every step: the baseline that every method should beat."""

import numpy as np
import tensorflow as tf
from keras import ops

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors


def random_weighting(problem: Problem, *, seed: int = 0) -> Balancer:
    """Minimises `sum_t w_t L_t` with `w = T softmax(z)`, z standard normal at every step.

    Reference: Lin et al., Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning, TMLR
    2022, https://arxiv.org/abs/2111.10603, section 3. The factor T, which the paper leaves out, keeps the sum of the
    weights that of `equal`.

    Args:
        problem: The `Problem`.
        seed: Of the draws; together with the step it decides them.

    Returns:
        A `Balancer`.
    """
    size = len(problem.losses)

    def objective(losses: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        z = tf.random.stateless_normal((size,), seed=ops.stack([seed, state["step"]]))
        return ops.sum(size * ops.softmax(z) * losses), {"step": state["step"] + 1}

    return Balancer(objective, state={"step": np.zeros((), "int32")})

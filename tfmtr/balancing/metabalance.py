"""Gradients of auxiliary tasks are brought near the main task's, parameter by parameter."""

from typing import Literal

import numpy as np
import tensorflow as tf

from tfmtr.balancing._balancer import TINY, Balancer, Problem, Tensor, Tensors, check_range, check_two
from tfmtr.checks import check_choice


def metabalance(
    problem: Problem,
    *,
    main: str | None = None,
    relax: float = 0.7,
    beta: float = 0.9,
    strategy: Literal["reduce", "enlarge", "both"] = "both",
) -> Balancer:
    """Scales each auxiliary gradient of each parameter towards the length of the main task's.

        m_t <- beta m_t + (1 - beta) |g_t|,    g_t <- relax (m_main / m_t) g_t + (1 - relax) g_t,    g = sum_t g_t

    Reference: He et al., MetaBalance: Improving Multi-Task Recommendations via Adapting Gradient Magnitudes of
    Auxiliary Tasks, WWW 2022, https://arxiv.org/abs/2203.06801, section 4, algorithm 1. The authors' code
    (facebookresearch/MetaBalance, metabalance.py) has `strategy="both"` alone.

    Args:
        problem: The `Problem`.
        main: Name of the main loss; the first by default.
        relax: 0 leaves the gradients alone, 1 makes them as long as the main one.
        beta: Of the moving averages of the norms, in [0, 1].
        strategy: `"reduce"` auxiliary gradients that are longer, `"enlarge"` those that are shorter, or `"both"`.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, `main` is none of them, or an option is out of its range.
    """
    check_two(problem, "metabalance")
    main = problem.losses[0] if main is None else main
    check_choice("main", main, problem.losses)
    check_choice("strategy", strategy, ("reduce", "enlarge", "both"))
    check_range(0, 1, relax=relax, beta=beta)
    place = list(problem.losses).index(main)

    def merge(gradients: Tensor, index: int, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        axes = tuple(range(1, len(gradients.shape)))
        norms = tf.sqrt(tf.reduce_sum(gradients**2, axis=axes))
        averages = beta * state["norms"][index] + (1 - beta) * norms
        ratio = tf.where(averages > TINY, averages[place] / tf.maximum(averages, TINY), 1.0)
        is_scaled = {"reduce": ratio < 1, "enlarge": ratio > 1, "both": tf.fill(tf.shape(ratio), True)}[strategy]
        factor = tf.where(is_scaled, relax * ratio + 1 - relax, 1.0)
        known = tf.tensor_scatter_nd_update(state["norms"], [[index]], averages[None])
        return tf.tensordot(factor, gradients, 1), {"norms": known}

    return Balancer(merge=merge, state={"norms": np.zeros((len(problem.shapes), len(problem.losses)), "float32")})

"""Weights that make all tasks learn at similar rates, by the norms of their gradients."""

import numpy as np
from keras import ops

from tfmtr.balancing._balancer import TINY, Balancer, Problem, Tensor, Tensors, check_positive, check_two


def grad_norm(problem: Problem, *, alpha: float = 1.5, learning_rate: float = 0.025) -> Balancer:
    """Learns weights `w` for which each task's gradient norm fits its rate of training.

        G_t = |w_t g_t|,    r_t = (L_t / L_t(0)) / mean_u (L_u / L_u(0))
        w <- w - learning_rate d/dw sum_t |G_t - sg(mean_u G_u r_t^alpha)| / mean_u |g_u|,    then sum_t w_t = T

    All parameters are updated by the gradient of `sum_t w_t L_t`.

    Reference: Chen et al., GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks,
    ICML 2018, https://arxiv.org/abs/1711.02257, section 3, equations 1 and 2. There norms are of the last shared layer;
    here of all shared parameters. The division by the mean norm, which the paper has not, makes the rate one of `w`.

    Args:
        problem: The `Problem`.
        alpha: Strength with which slow tasks are pulled, not negative.
        learning_rate: Of `w`; positive.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or a number is out of its range.
    """
    check_two(problem, "grad_norm")
    check_positive(learning_rate=learning_rate)
    if alpha < 0:
        raise ValueError(f"`alpha` must not be negative. Received: alpha={alpha}")
    size = len(problem.losses)

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        w, norms = state["weights"], ops.sqrt(ops.diagonal(gram))
        first = ops.where(state["first"] > 0, state["first"], losses)
        is_observed = (losses > 0) & (norms > TINY)  # a task without labels in the batch is let be
        count = ops.maximum(ops.sum(ops.cast(is_observed, "float32")), 1.0)

        def mean(values: Tensor) -> Tensor:
            return ops.sum(ops.where(is_observed, values, 0.0)) / count

        progress = losses / ops.maximum(first, TINY)
        rate = ops.where(is_observed, progress / ops.maximum(mean(progress), TINY), 1.0)
        slope = ops.sign(w * norms - mean(w * norms) * rate**alpha) * norms / ops.maximum(mean(norms), TINY)
        new = ops.maximum(w - learning_rate * ops.where(is_observed, slope, 0.0), 1e-3)
        return w, w, {"weights": size * new / ops.sum(new), "first": first}

    state = {"weights": np.ones(size, "float32"), "first": np.zeros(size, "float32")}
    return Balancer(coefficients=coefficients, state=state)

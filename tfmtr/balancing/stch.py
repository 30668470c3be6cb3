"""A smooth maximum of the losses: the worst task counts most."""

import numpy as np
from keras import ops

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors, check_positive, check_two


def stch(problem: Problem, *, mu: float = 1.0, warmup: int = 100) -> Balancer:
    """Minimises the smooth Tchebycheff scalarisation of the losses, each relative to its mean of the first steps.

        L = T mu log sum_t exp(log(L_t / n_t) / mu),    n_t the mean of L_t over the first `warmup` steps

    During these the sum of the logarithms is minimised. A small `mu` comes near the maximum.

    Reference: Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML 2024,
    https://arxiv.org/abs/2402.19078, section 3, equation 6, with equal preferences. As in the authors' multi-task
    experiments the objectives are the logarithms of the losses over a reference value.

    Args:
        problem: The `Problem`.
        mu: Positive.
        warmup: Steps that the reference is taken from.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or a number is not positive.
    """
    check_two(problem, "stch")
    check_positive(mu=mu, warmup=warmup)
    size = len(problem.losses)

    def objective(losses: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        is_observed = losses > 0  # a batch may lack a task's labels
        logarithms = ops.log(ops.where(is_observed, losses, 1.0))
        is_warm = state["steps"] >= warmup
        relative = logarithms - ops.log(ops.maximum(state["total"] / warmup, 1e-12))
        smooth = size * mu * ops.logsumexp(ops.where(is_observed, relative / mu, float("-inf")))
        smooth = ops.where(ops.any(is_observed), smooth, 0.0)
        updates = {
            "total": ops.where(is_warm, state["total"], state["total"] + ops.stop_gradient(losses)),
            "steps": state["steps"] + 1,
        }
        # Both are differentiated: neither may be infinite while the other is chosen.
        return ops.where(is_warm, smooth, ops.sum(logarithms)), updates

    return Balancer(objective, state={"total": np.ones(size, "float32") * 1e-12, "steps": np.zeros((), "int32")})

"""Losses weighed by how uncertain each task turns out to be."""

import numpy as np
from keras import ops

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors


def uncertainty(problem: Problem) -> Balancer:
    """Minimises `sum_t exp(-s_t) L_t + s_t / 2` over the model and `s_t = log sigma_t^2`, which start at 0.

    Reference: Kendall et al., Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018,
    https://arxiv.org/abs/1705.07115, section 3.2, equations 7 and 10. A regression's loss is half the squared error
    already, so both kinds have this form.

    Args:
        problem: The `Problem`.

    Returns:
        A `Balancer`.
    """

    def objective(losses: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        s = state["log_variance"]
        return ops.sum(ops.exp(-s) * losses + s / 2), {}

    return Balancer(objective, parameters={"log_variance": np.zeros(len(problem.losses), "float32")})

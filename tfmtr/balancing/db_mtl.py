"""Losses of one scale by logarithms, gradients of one length by the longest."""

from keras import ops

from tfmtr.balancing._balancer import TINY, Balancer, Problem, Tensor, Tensors, check_two


def db_mtl(problem: Problem) -> Balancer:
    """Balances both scales: of the losses and of the gradients.

        g_t = gradient of log L_t,    g = max_u |g_u| sum_t g_t / |g_t|

    Parameters of one task alone are updated by the gradient of `sum_t log L_t`.

    Reference: Lin et al., Dual-Balancing for Multi-Task Learning, 2023, https://arxiv.org/abs/2308.12029, section 3,
    algorithm 1, with `beta = 0`: the moving average of the gradients, which would keep a copy of every shared table for
    each task, is left out.

    Args:
        problem: The `Problem`.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only.
    """
    check_two(problem, "db_mtl")

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        slope = ops.where(losses > TINY, 1 / ops.maximum(losses, TINY), 0.0)
        norms = ops.sqrt(ops.diagonal(gram)) * slope
        shared = ops.where(norms > TINY, slope * ops.max(norms) / ops.maximum(norms, TINY), 0.0)
        return shared, slope, {}

    return Balancer(coefficients=coefficients)

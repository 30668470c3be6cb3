"""Alpha-fair shares of the improvement."""

import tensorflow as tf

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors, check_positive, check_two
from tfmtr.balancing._solve import bargained, cut


def fair_grad(problem: Problem, *, alpha: float = 2.0, max_norm: float = 1.0, weighs_own: bool = False) -> Balancer:
    """Takes the direction that maximises the alpha-fair utility of the tasks' improvements.

        max_d sum_t <g_t, d>^(1 - alpha) / (1 - alpha)    over a ball
        d = sum_t w_t g_t    with    G w = w^(-1 / alpha),    G the inner products

    With `alpha` 1 it is Nash's bargaining, towards infinity the best for the worst task.

    Reference: Ban and Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024,
    https://arxiv.org/abs/2402.15638, section 4, equation 6, which is of the shared parameters. As in the authors' code
    (OptMN-Lab/fairgrad, methods/weight_methods.py) they are updated by `T d`, to match the sum of T losses, cut to the
    norm `max_norm`, and a task's own parameters by the gradient of its loss.

    Args:
        problem: The `Problem`.
        alpha: Positive.
        max_norm: Most norm of the shared parameters' update; 0 for no limit.
        weighs_own: Whether all parameters are updated by the gradient of `sum_t w_t L_t`, as in `nash_mtl` and LibMTL.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or a number is out of its range.
    """
    check_two(problem, "fair_grad")
    check_positive(alpha=alpha)

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        w = bargained(gram, 1 / alpha)
        if weighs_own:
            return cut(w, gram, max_norm), w, {}
        return cut(len(problem.losses) * w, gram, max_norm), tf.ones_like(losses), {}

    return Balancer(coefficients=coefficients)

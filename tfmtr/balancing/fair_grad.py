"""Alpha-fair shares of the improvement."""

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors, check_positive, check_two
from tfmtr.balancing._solve import bargained


def fair_grad(problem: Problem, *, alpha: float = 2.0, max_norm: float = 1.0) -> Balancer:
    """Takes the direction that maximises the alpha-fair utility of the tasks' improvements.

        max_d sum_t <g_t, d>^(1 - alpha) / (1 - alpha)    over a ball
        d = sum_t w_t g_t    with    G w = w^(-1 / alpha),    G the inner products

    With `alpha` 1 it is Nash's bargaining, towards infinity the best for the worst task.

    Reference: Ban and Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024,
    https://arxiv.org/abs/2402.15638, section 4, equation 6. All parameters are updated by the gradient of
    `sum_t w_t L_t`, the shared ones cut to the norm `max_norm`, as in `nash_mtl`.

    Args:
        problem: The `Problem`.
        alpha: Positive.
        max_norm: As for `nash_mtl`.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or a number is out of its range.
    """
    check_two(problem, "fair_grad")
    check_positive(alpha=alpha)

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        return bargained(gram, 1 / alpha, max_norm)

    return Balancer(coefficients=coefficients)

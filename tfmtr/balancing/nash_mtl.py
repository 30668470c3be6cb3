"""Tasks bargain for the direction; the weights are Nash's solution."""

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors, check_positive, check_two
from tfmtr.balancing._solve import bargained, cut


def nash_mtl(problem: Problem, *, max_norm: float = 1.0) -> Balancer:
    """Takes the direction that maximises the sum of the logarithms of the tasks' improvements.

        max_d sum_t log <g_t, d>    over a ball;    d = sum_t w_t g_t    with    G w = 1 / w,    G the inner products

    All parameters are updated by the gradient of `sum_t w_t L_t`, the shared ones cut to the norm `max_norm`.

    Reference: Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022, https://arxiv.org/abs/2202.01017,
    section 3.1, claim 3.1, equation 3. The paper approximates `w` by a sequence of convex problems; `G w = 1 / w` is
    the stationary point of the convex `w G w / 2 - sum log w`, which is found to high precision by Newton's method. A
    task without a gradient is left out of the bargain.

    Args:
        problem: The `Problem`.
        max_norm: Most norm of the shared parameters' update, as in the authors' code; 0 for no limit.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or `max_norm` is negative.
    """
    check_two(problem, "nash_mtl")
    if max_norm:
        check_positive(max_norm=max_norm)

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        w = bargained(gram, 1.0)
        return cut(w, gram, max_norm), w, {}

    return Balancer(coefficients=coefficients)

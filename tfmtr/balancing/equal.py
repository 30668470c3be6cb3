"""The plain sum of all losses."""

from keras import ops

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors


def equal(problem: Problem) -> Balancer:
    """Minimises `sum_t L_t`, with the tasks' own weights in the losses: what `balance=None` does, by the same step.

    Reference: Zhao et al., Joint Modeling in Recommendations: A Survey, 2025, equation 4.

    Args:
        problem: The `Problem`.

    Returns:
        A `Balancer`.
    """

    def objective(losses: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        return ops.sum(losses), {}

    return Balancer(objective)

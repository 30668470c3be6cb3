"""A weight for each loss, chosen beforehand."""

from collections.abc import Mapping

import numpy as np
from keras import ops

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors
from tfmtr.checks import check_choice


def fixed_weights(problem: Problem, *, weights: Mapping[str, float]) -> Balancer:
    """Minimises `sum_t w_t L_t`.

    Args:
        problem: The `Problem`.
        weights: `{loss: weight}`; 1 for those that are not named.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If a name is no loss's, or a weight is negative.
    """
    for name, weight in weights.items():
        check_choice("weights", name, problem.losses)
        if weight < 0:
            raise ValueError(f"`weights` must not be negative. Received: {name}={weight}")
    w = np.asarray([weights.get(name, 1.0) for name in problem.losses], "float32")

    def objective(losses: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        return ops.sum(w * losses), {}

    return Balancer(objective)

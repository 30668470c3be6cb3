"""More weight for losses that fall slowly."""

import numpy as np
from keras import ops

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors, check_positive, check_two


def dynamic_weight_average(problem: Problem, *, temperature: float = 2.0, period: int = 100) -> Balancer:
    """Weighs each loss by its latest rate of descent.

        w_t = T exp(r_t / temperature) / sum_u exp(r_u / temperature),    r_t = L_t(p - 1) / L_t(p - 2)

    with the mean losses of the last two periods; the weights are 1 in the first two.

    Reference: Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019, https://arxiv.org/abs/1803.10704,
    section 3.3, equation 7. The paper's period is an epoch; a number of steps needs no end of an epoch.

    Args:
        problem: The `Problem`.
        temperature: Positive; the higher, the more equal the weights.
        period: Steps of a period.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or a number is not positive.
    """
    check_two(problem, "dynamic_weight_average")
    check_positive(temperature=temperature, period=period)
    size = len(problem.losses)

    def objective(losses: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        is_known = state["periods"] >= 2
        ratio = state["last"] / ops.maximum(state["before"], 1e-12)
        weights = ops.where(is_known, size * ops.softmax(ratio / temperature), ops.ones_like(losses))
        total, steps = state["total"] + ops.stop_gradient(losses), state["steps"] + 1
        is_over = steps >= period
        updates = {
            "total": ops.where(is_over, 0.0, total),
            "steps": ops.where(is_over, 0, steps),
            "last": ops.where(is_over, total / period, state["last"]),
            "before": ops.where(is_over, state["last"], state["before"]),
            "periods": state["periods"] + ops.cast(is_over, "int32"),
        }
        return ops.sum(ops.stop_gradient(weights) * losses), updates

    zeros, count = np.zeros(size, "float32"), np.zeros((), "int32")
    state = {"total": zeros, "last": zeros, "before": zeros, "steps": count, "periods": count}
    return Balancer(objective, state=state)

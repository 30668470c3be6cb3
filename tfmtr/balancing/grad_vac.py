"""Gradients are turned towards the angle that two tasks usually have."""

import numpy as np
import tensorflow as tf
from keras import ops

from tfmtr.balancing._balancer import TINY, Balancer, Problem, Tensor, Tensors, check_range, check_two


def grad_vac(problem: Problem, *, rate: float = 0.01, seed: int = 0) -> Balancer:
    """Adds to each task's gradient so much of another's that their cosine reaches its moving average.

        if phi_ij < rho_ij:
            g_i <- g_i + |g_i| (rho sqrt(1 - phi^2) - phi sqrt(1 - rho^2)) / (|g_j| sqrt(1 - rho^2)) g_j
        rho_ij <- (1 - rate) rho_ij + rate phi_ij,    phi_ij the cosine of g_i, as changed so far, and g_j

    for the other tasks j in random order, and `g = sum_i g_i`. With `rho = 0` it is PCGrad.

    Reference: Wang et al., Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively
    Multilingual Models, ICLR 2021, https://arxiv.org/abs/2010.05874, section 3, equation 3 and algorithm 1. Here over
    all shared parameters together (the paper compares granularities).

    Args:
        problem: The `Problem`.
        rate: Of the moving averages, in [0, 1].
        seed: Of the random order.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or `rate` is not in [0, 1].
    """
    check_two(problem, "grad_vac")
    check_range(0, 1, rate=rate)
    size = len(problem.losses)

    def coefficients(gram: Tensor, losses: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        draws = tf.random.stateless_uniform((size, size), seed=ops.stack([seed, state["step"]]))
        order, mixed, rho = ops.argsort(draws, axis=1), ops.eye(size), state["rho"]
        for place in range(size):
            other = ops.one_hot(order[:, place], size)
            own = ops.sqrt(ops.maximum(ops.sum(mixed * ops.matmul(mixed, gram), axis=1), 0.0))
            norm = ops.sqrt(ops.matmul(other, ops.diagonal(gram)))
            inner = ops.sum(mixed * ops.matmul(other, gram), axis=1)
            is_other = (ops.diagonal(other) == 0) & (own * norm > TINY)
            phi = ops.where(is_other, inner / ops.maximum(own * norm, TINY), 0.0)
            phi, target = ops.clip(phi, -1.0, 1.0), ops.sum(rho * other, axis=1)
            root = ops.sqrt(ops.maximum(1 - target**2, TINY))
            more = own * (target * ops.sqrt(1 - phi**2) - phi * root) / ops.maximum(norm * root, TINY)
            more = ops.where(is_other & (phi < target), more, 0.0)
            mixed = mixed + ops.expand_dims(more, 1) * other
            moved = other * ops.expand_dims(ops.where(is_other, rate * (phi - target), 0.0), 1)
            rho = rho + moved
        return ops.sum(mixed, axis=0), ops.ones_like(losses), {"rho": rho, "step": state["step"] + 1}

    state = {"rho": np.zeros((size, size), "float32"), "step": np.zeros((), "int32")}
    return Balancer(coefficients=coefficients, state=state)

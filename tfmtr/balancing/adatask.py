"""Every task has its own accumulators of the adaptive learning rate."""

from typing import Literal

import numpy as np
import tensorflow as tf

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors, check_range, check_two
from tfmtr.checks import check_choice


def adatask(
    problem: Problem,
    *,
    method: Literal["adam", "adagrad", "rmsprop"] = "adam",
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> Balancer:
    """Lets each task take its own adaptive step on the shared parameters, so that none decides the others' rate.

        Adam:     m_t, v_t of g_t and g_t^2 as in Adam,    step = rate sum_t m_t' / (sqrt(v_t') + epsilon)
        Adagrad:  v_t <- v_t + g_t^2,                      step = rate sum_t g_t / (sqrt(v_t) + epsilon)
        RMSProp:  v_t <- beta_2 v_t + (1 - beta_2) g_t^2,  step = rate sum_t g_t / (sqrt(v_t) + epsilon)

    with Adam's corrections of the start (`'`). Parameters of one task alone are the model's optimizer's. Of an
    embedding table only the rows that are touched are read and written; the moments of the others wait.

    Reference: Yang et al., AdaTask: A Task-aware Adaptive Learning Rate Approach to Multi-task Learning, AAAI 2023,
    https://arxiv.org/abs/2211.15055, section 4.2, algorithms 1 to 3. The learning rate is the model's optimizer's.

    Args:
        problem: The `Problem`.
        method: `"adam"`, `"adagrad"` or `"rmsprop"`.
        beta_1: Of Adam's first moments, in [0, 1].
        beta_2: Of the second moments, in [0, 1].
        epsilon: Small number.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If there is one loss only, or an option is unknown or out of its range.
    """
    check_two(problem, "adatask")
    check_choice("method", method, ("adam", "adagrad", "rmsprop"))
    check_range(0, 1, beta_1=beta_1, beta_2=beta_2)
    last = len(problem.shapes) - 1

    def update(gradients: Tensor, index: int, losses: Tensor, state: Tensors, rate: Tensor) -> tuple[Tensor, Tensors]:
        count = tf.cast(state["step"] + 1, tf.float32)
        updates = {"step": state["step"] + (1 if index == last else 0)}
        if method == "adagrad":
            second = state["second"] + gradients**2
            step = gradients / (tf.sqrt(second) + epsilon)
        elif method == "rmsprop":
            second = beta_2 * state["second"] + (1 - beta_2) * gradients**2
            step = gradients / (tf.sqrt(second) + epsilon)
        else:
            first = beta_1 * state["first"] + (1 - beta_1) * gradients
            second = beta_2 * state["second"] + (1 - beta_2) * gradients**2
            step = first / (1 - beta_1**count) / (tf.sqrt(second / (1 - beta_2**count)) + epsilon)
            updates["first"] = first
        return rate * tf.reduce_sum(step, axis=0), updates | {"second": second}

    kinds = ("first", "second") if method == "adam" else ("second",)
    state = {"step": np.zeros((), "int32")}
    for index, shape in enumerate(problem.shapes):
        state |= {f"{kind}_{index}": np.zeros((len(problem.losses), *shape), "float32") for kind in kinds}
    return Balancer(update=update, state=state)

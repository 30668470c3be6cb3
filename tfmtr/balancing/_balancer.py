"""What every balancer is made of."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

    from tfmtr.models import JointModel

Tensor: TypeAlias = "tf.Tensor"
Tensors: TypeAlias = "dict[str, tf.Tensor]"
Outputs: TypeAlias = "dict[str, dict[str, tf.Tensor]]"  # of a `JointModel`

TINY = 1e-12


class Problem(NamedTuple):
    """What a balancer balances.

    Attributes:
        losses: Names of the head's losses.
        shapes: Shapes of the parameters that two or more of them reach.
        model: The `JointModel`.
    """

    losses: Sequence[str]
    shapes: Sequence[tuple[int, ...]] = ()
    model: Any = None


class Balancer(NamedTuple):
    """One of six functions, and what it remembers.

    All but the last need one forward pass and one batch a step. They return `updates` last, `{name: tensor}`, new
    values of what they want to remember. Losses are a float32 tensor of shape `(losses,)`, state is `{name: tensor}`.

    Attributes:
        objective: `objective(losses, state) -> (scalar, updates)`: one loss, one backward pass.
        objectives: `objectives(losses, state) -> (shared, own, updates)`: one scalar for the shared parameters and one
            for the others, two backward passes.
        coefficients: `coefficients(gram, losses, state) -> (shared, own, updates)`: the update of the shared parameters
            is `sum_t shared_t g_t`, that of the others `sum_t own_t g_t`. `gram`, of shape `(losses, losses)`, holds
            the inner products of the losses' gradients over the shared parameters. One backward pass a loss.
        merge: `merge(gradients, index, losses, state) -> (gradient, updates)` for the shared parameter of that index,
            with gradients of shape `(losses, ...)`. One backward pass a loss.
        update: `update(gradients, index, losses, state, rate) -> (step, updates)`: as `merge`, but the parameter is
            changed by `-step` itself, without the optimizer; `rate` is the optimizer's learning rate. What is kept
            under `"<name>_<index>"`, of shape `(losses, ...)`, is `name` in the function, of the rows that are touched.
        step: `step(model, state, backward, train) -> (outputs, loss, updates)`: a whole step of its own, which may need
            further forward passes and says so. `backward(variables)` makes one and returns the outputs, the sum of the
            losses and its gradients for these variables; after it `x` and `y` may name another batch.
            `train(variables)` does the same, lets the optimizer update the variables, and returns outputs and loss.
        state: `{name: initial array}`, remembered and checkpointed.
        parameters: `{name: initial array}`, the same and trained with the model; they are in `state` too.
        losses: `losses(outputs, labels, inputs) -> {name: scalar}`: further losses that the balancer brings along.
        owner: `{further loss: the loss it belongs to}`. A parameter is shared if losses of two owners reach it.
    """

    objective: Callable[[Tensor, Tensors], tuple[Tensor, Tensors]] | None = None
    objectives: Callable[[Tensor, Tensors], tuple[Tensor, Tensor, Tensors]] | None = None
    coefficients: Callable[[Tensor, Tensor, Tensors], tuple[Tensor, Tensor, Tensors]] | None = None
    merge: Callable[[Tensor, int, Tensor, Tensors], tuple[Tensor, Tensors]] | None = None
    update: Callable[[Tensor, int, Tensor, Tensors, Tensor], tuple[Tensor, Tensors]] | None = None
    step: Callable[["JointModel", Tensors, Callable, Callable], tuple[Outputs, Tensor, Tensors]] | None = None
    state: dict[str, np.ndarray] = {}  # noqa: RUF012 - a NamedTuple's default is never written to
    parameters: dict[str, np.ndarray] = {}  # noqa: RUF012
    losses: Callable[[Tensors, Tensors, Tensors], Tensors] | None = None
    owner: dict[str, str] = {}  # noqa: RUF012


def check_two(problem: Problem, name: str) -> None:
    """Raises a `ValueError` unless there are two or more losses to balance."""
    if len(problem.losses) < 2:
        raise ValueError(
            f"`balance={name}` balances two or more losses; leave out `balance` to train one. Received: "
            f"{list(problem.losses)}"
        )


def check_positive(**values: float) -> None:
    """Raises a `ValueError` that names the value which is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}")


def check_range(low: float, high: float, **values: float) -> None:
    """Raises a `ValueError` that names the value which is outside `[low, high]`."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"`{name}` must be in [{low}, {high}]. Received: {name}={value}")

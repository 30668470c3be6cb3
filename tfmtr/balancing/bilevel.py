"""Network and architecture weights take turns."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr.balancing._balancer import Balancer, Outputs, Problem, Tensor, Tensors, check_positive
from tfmtr.checks import check_choice
from tfmtr.layers.fusion_weight import FusionWeight
from tfmtr.private_names import layers_within

if TYPE_CHECKING:
    from tfmtr.models import JointModel

BETAS = (0.9, 0.999)  # of Adam


def bilevel(problem: Problem, *, every: int = 10, batch: str | tf.data.Dataset = "next") -> Balancer:
    """Updates the architecture's weights once in `every` steps, the network's in the others, both by the sum of losses.

        W <- W - rate grad_W L(batch)    for `every` - 1 batches,    then    a <- a - rate grad_a L(a batch)

    The architecture's weights are those of `FusionWeight` layers, M3oE's `alpha` and `beta`. They are updated by Adam
    with the optimizer's rate and moments of their own, which count their own turns.

    Reference: Zhang et al., M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework, SIGIR 2024,
    https://arxiv.org/abs/2404.18465, section 2.6.1, algorithm 1: the network is trained for one epoch, then the weights
    on one batch of training data; give the steps of an epoch as `every`.

    Args:
        problem: The `Problem`.
        every: Steps from one update of the architecture to the next.
        batch: Which batch the architecture learns from: `"next"`, one on which the network does not learn; `"same"`,
            the one on which it just has, with one more forward pass in that step; or a `tf.data.Dataset` of other
            batches `(x, y)`, such as validation's, read again and again.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If the model has no architecture weights, `every` is not positive or `batch` unknown, or the
            network would never have its turn.
    """
    check_positive(every=every)
    others = iter(batch.repeat()) if isinstance(batch, tf.data.Dataset) else None
    batch = "other" if others else batch
    if others is None:
        check_choice("batch", batch, ("next", "same"))
        if batch == "next" and every == 1:
            raise ValueError(
                '`every` must be 2 or more with `batch="next"`, as the network learns from the batches between. '
                "Received: every=1"
            )
    layers = layers_within(problem.model)
    chosen = [v for layer in layers if isinstance(layer, FusionWeight) for v in layer.trainable_variables]
    if not chosen:
        raise ValueError(
            "`balance=bilevel` alternates between network and architecture weights, so the model must have "
            "`FusionWeight` layers, as share=m3oe has. Received: a model without"
        )

    def learn(model: "JointModel", state: Tensors, backward: Callable[..., Any]) -> tuple[Outputs, Tensor, Tensors]:
        """One step of Adam for the architecture."""
        batch = {} if others is None else dict(zip(("x", "y"), next(others), strict=True), sample_weight=None)
        y_pred, loss, gradients = backward(chosen, **batch)
        turn, g = state["turn"] + 1, tf.concat(gradients, axis=0)
        first, second = (BETAS[i] * state[f"moment_{i}"] + (1 - BETAS[i]) * g ** (i + 1) for i in (0, 1))
        mean, square = (m / (1 - BETAS[i] ** tf.cast(turn, g.dtype)) for i, m in enumerate((first, second)))
        change = tf.cast(model.optimizer.learning_rate, g.dtype) * mean / (tf.sqrt(square) + keras.config.epsilon())
        for variable, part in zip(chosen, tf.split(change, [v.shape[0] for v in chosen]), strict=True):
            variable.assign_sub(part)
        return y_pred, loss, {"turn": turn, "moment_0": first, "moment_1": second}

    def step(
        model: "JointModel", state: Tensors, backward: Callable[..., Any], train: Callable[..., Any]
    ) -> tuple[Outputs, Tensor, Tensors]:
        network = [v for v in model.trainable_variables if not any(v is own for own in chosen)]
        is_turn = tf.equal(state["step"] % every, every - 1)
        kept = {name: state[name] for name in ("turn", "moment_0", "moment_1")}
        if batch == "next":
            y_pred, loss, kept = tf.cond(
                is_turn, lambda: learn(model, state, backward), lambda: (*train(network), kept)
            )
        else:
            y_pred, loss = train(network)
            kept = tf.cond(is_turn, lambda: learn(model, state, backward)[2], lambda: kept)
        return y_pred, loss, {"step": state["step"] + 1, **kept}

    zeros = np.zeros(sum(v.shape[0] for v in chosen), "float32")
    count = np.zeros((), "int32")
    return Balancer(step=step, state={"step": count, "turn": count, "moment_0": zeros, "moment_1": zeros})

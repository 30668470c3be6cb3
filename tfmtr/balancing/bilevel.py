"""Network and architecture weights take turns."""

import numpy as np
import tensorflow as tf

from tfmtr.balancing._balancer import Balancer, check_positive
from tfmtr.layers.fusion_weight import FusionWeight
from tfmtr.schema import check_choice


def bilevel(problem, *, every=10, batch="next"):
    """Updates the architecture's weights once in `every` steps, the network's in the others, both by the sum of losses.

        W <- W - rate grad_W L(batch)    for `every` - 1 batches,    then    a <- a - rate grad_a L(a batch)

    The architecture's weights are those of `FusionWeight` layers, M3oE's `alpha` and `beta`.

    Reference: Zhang et al., M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework, SIGIR 2024,
    https://arxiv.org/abs/2404.18465, section 2.6.1, algorithm 1: the network is trained for one epoch, then the weights
    on one batch of training data; give the steps of an epoch as `every`.

    Args:
        problem: The `Problem`.
        every: Steps from one update of the architecture to the next.
        batch: Which batch the architecture learns from: `"next"`, one on which the network does not learn, or
            `"same"`, the one on which it just has, with one more forward pass in that step.

    Returns:
        A `Balancer`.

    Raises:
        ValueError: If the model has no architecture weights, `every` is not positive or `batch` unknown.
    """
    check_positive(every=every)
    check_choice("batch", batch, ("next", "same"))
    layers = problem.model._flatten_layers()
    chosen = [v for layer in layers if isinstance(layer, FusionWeight) for v in layer.trainable_variables]
    if not chosen:
        raise ValueError(
            "`balance=bilevel` alternates between network and architecture weights, so the model must have "
            "`FusionWeight` layers, as share=m3oe has. Received: a model without"
        )

    def step(model, state, forward):
        network = [v for v in model.trainable_variables if not any(v is own for own in chosen)]
        is_turn = tf.equal(state["step"] % every, every - 1)
        if batch == "next":
            y_pred, loss = tf.cond(is_turn, lambda: forward(chosen), lambda: forward(network))
        else:
            y_pred, loss = forward(network)
            tf.cond(is_turn, lambda: forward(chosen)[1], lambda: loss)
        return y_pred, loss, {"step": state["step"] + 1}

    return Balancer(step=step, state={"step": np.zeros((), "int32")})

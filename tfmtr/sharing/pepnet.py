"""Gates on embeddings by scenario and on hidden layers by prior features of the user and the title."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import check_sizes
from tfmtr.layers.experts import Experts


def pepnet(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    scenario_features: KerasTensor,
    prior: KerasTensor,
    units: Sequence[int] = (256, 64),
    gate_units: int = 64,
    gamma: float = 2.0,
) -> dict[str, KerasTensor]:
    """Scales the representation for each scenario and the towers' hidden units for each user and task.

    A gate is two dense layers, `U(z) = gamma sigmoid(W' ReLU(W z + b) + b')`: it passes a unit at 1, mutes it
    at 0 and amplifies it up to `gamma`. EPNet gates the representation once, PPNet every hidden layer of every
    task's tower, for task t and layer l = 1 .. L:

        o = U_ep([scenario features, sg(x)]) * x
        d^l = U_pp^l([prior, sg(o)])                          the gates of all tasks, d^l = [d^l_1 .. d^l_T]
        h^l_t = d^l_t * ReLU(W^l_t h^{l-1}_t + b^l_t),        h^0_t = o,    u_t = h^L_t

    `sg` stops the gradient: gates read `x` and `o` without training them, and train the scenario's and the
    prior features' embeddings.

    Reference: Chang et al., PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized
    Prior Information, KDD 2023, https://doi.org/10.1145/3580305.3599884. The paper's layer-wise equation gates
    "hidden units" before the next product and leaves open whether the towers' input is among them; here it is
    not, because EPNet has just gated it. The last hidden layer is gated too, before the logit. The width of a
    gate's first layer is not given either: `gate_units`.

    In two-tower form `x` is the user tower's output and the prior features are those of the user's side.

    Args:
        x: Tensor of shape `(batch, width)`, the embeddings of all features side by side.
        scenario: Ignored: `scenario_features` tells the scenarios apart.
        towers: Names of the towers.
        num_scenarios: Ignored.
        scenario_features: Tensor of shape `(batch, width)`, embedding of the scenario.
        prior: Tensor of shape `(batch, width)`, embeddings of the features that say who is asking for what.
        units: Widths of each tower's layers.
        gate_units: Width of each gate's first layer.
        gamma: Upper bound of the gates; with 2 a gate starts about 1.

    Returns:
        `{tower: tensor of shape (batch, units[-1])}`.

    Raises:
        ValueError: If `units` is empty, or a size or `gamma` is not positive.
    """
    check_sizes(units=units, gate_units=gate_units)
    if gamma <= 0:
        raise ValueError(f"`gamma` must be positive: it is the largest gate. Received: gamma={gamma}")
    seen = ops.concatenate([scenario_features, ops.stop_gradient(x)], axis=-1)
    o = x * _gate(seen, x.shape[-1], gate_units, gamma, name="epnet")
    seen = ops.concatenate([prior, ops.stop_gradient(o)], axis=-1)
    h = o
    for i, width in enumerate(units):
        gate = _gate(seen, len(towers) * width, gate_units, gamma, name=f"ppnet_{i}")
        gate = ops.reshape(gate, (-1, len(towers), width))  # a gate of its own for each task
        h = gate * Experts(len(towers), width, activation="relu", name=f"towers_{i}")(h)
    return {tower: h[:, t] for t, tower in enumerate(towers)}


def _gate(inputs: KerasTensor, units: int, hidden_units: int, gamma: float, *, name: str) -> KerasTensor:
    """The paper's GateNU: `gamma sigmoid(W' ReLU(W inputs + b) + b')` of shape `(batch, units)`."""
    hidden = keras.layers.Dense(hidden_units, activation="relu", name=f"{name}_gate_hidden")(inputs)
    return gamma * keras.layers.Dense(units, activation="sigmoid", name=f"{name}_gate")(hidden)

"""Information is extracted by scenario first and by task second."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import check_sizes
from tfmtr.layers.expert_gate import ExpertGate
from tfmtr.layers.experts import Experts
from tfmtr.sharing._shared import SelectScenario, Shared
from tfmtr.sharing._towers import dense_towers


def hinet(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    scenario_features: KerasTensor,
    units: Sequence[int] = (256, 256),
    num_experts: int = 2,
    tower_units: Sequence[int] = (64,),
) -> Shared:
    """Gathers what is common, what is the scenario's own and what other scenarios know, and lets each task choose.

    A block of n sub-experts that a gate blends is `E(z) = sum_k softmax(W z)_k f_k(z)`. The scenario layer has
    one such block `S` for all scenarios and one, `S_j`, for each; a row of scenario i asks its own and, by the
    scenario-aware attentive network, all others:

        A_i = sum_{j != i} p_j S_j(x)    with    p = softmax over j != i of (W s_i)_j,    s_i: scenario features
        c = [S(x), S_i(x), A_i]

    The task layer is customized gate control: task t has experts `f_tk`, all tasks have `f_k`, and

        u_t = h_t(softmax(W_t c) [f_t1(c) .. f_tn(c), f_1(c) .. f_n(c)]).

    Reference: Zhou et al., HiNet: Novel Multi-Scenario & Multi-Task Learning with Hierarchical Information
    Extraction, ICDE 2023, https://arxiv.org/abs/2303.06095. Left open there and chosen here: an expert is one
    linear layer with ReLU; the task layer is one for all scenarios, which reach it by `c` alone. With one
    scenario there are no others and `A_i` is left out.

    In the authors' code (mrchor/HiNet, src/HiNet.py) the softmax is over all scenarios and the own one's weight is set
    to 0 after it, so that a row which takes its own scenario for the likeliest hears little of the others: `A_i` there
    is `1 - p_i` times this one. Its gates have biases and a ReLU before every softmax, the attention hidden layers.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)`.
        towers: Names of the towers.
        num_scenarios: Number of scenarios.
        scenario_features: Tensor of shape `(batch, width)`, embedding of the scenario.
        units: Widths of the experts in the scenario layer and in the task layer.
        num_experts: Number of experts in each block and of each task, shared ones as many.
        tower_units: Widths of each tower's layers; none for the task layer's output itself.

    Returns:
        A `Shared`: `{tower: tensor of shape (batch, width of the last layer)}`, and what each tower starts from.

    Raises:
        ValueError: If `units` has not two widths or a size is not positive.
    """
    check_sizes(units=units, num_experts=num_experts)
    if len(units) != 2:
        raise ValueError(
            f"`units` must have two widths, of the scenario layer's experts and the task layer's. Received: {units=}"
        )
    width, task_width = units

    blocks = _experts(x, num_scenarios + 1, num_experts, width, name="scenario_experts")
    blocks = ExpertGate(num_gates=num_scenarios + 1, name="scenario_gates")(x, blocks)  # (batch, scenarios + 1, width)
    shared, specific = blocks[:, -1], blocks[:, :-1]
    c = [shared, SelectScenario(name="own_scenario")(specific, scenario)]
    if num_scenarios > 1:
        logits = keras.layers.Dense(num_scenarios, use_bias=False, name="attention")(scenario_features)
        own = ops.one_hot(scenario, num_scenarios, dtype=logits.dtype)
        p = ops.softmax(logits - 1e4 * own)  # others only
        c.append(ops.einsum("bd,bdu->bu", p, specific))
    c = ops.concatenate(c, axis=-1)

    experts = _experts(c, len(towers) + 1, num_experts, task_width, name="task_experts")
    shared = ops.repeat(experts[:, -1:], len(towers), axis=1)
    seen = ops.concatenate([experts[:, :-1], shared], axis=2)  # (batch, towers, 2 num_experts, width)
    h = ExpertGate(num_gates=len(towers), name="task_gates")(c, seen)
    return dense_towers(h, towers, tower_units, normalize=False)


def _experts(x: KerasTensor, num_blocks: int, num_experts: int, units: int, *, name: str) -> KerasTensor:
    """Experts in blocks, shape `(batch, num_blocks, num_experts, units)`."""
    experts = Experts(num_blocks * num_experts, units, activation="relu", name=name)(x)
    return ops.reshape(experts, (-1, num_blocks, num_experts, units))

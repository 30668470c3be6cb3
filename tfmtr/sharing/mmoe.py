"""Shared experts, and one gate per task that blends them."""

from collections.abc import Sequence

from keras import KerasTensor

from tfmtr.layers._sizes import check_sizes
from tfmtr.layers.expert_gate import ExpertGate
from tfmtr.layers.experts import Experts
from tfmtr.sharing._shared import Shared
from tfmtr.sharing._towers import dense_towers


def mmoe(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    units: Sequence[int] = (256,),
    num_experts: int = 4,
    tower_units: Sequence[int] = (64,),
    normalize: bool = False,
) -> Shared:
    """Lets every task blend the same experts with a gate of its own.

        e_i = f_i(x),    g_t = softmax(W_t x),    u_t = h_t(sum_i g_ti e_i)

    Tasks that are alike learn gates that are alike, tasks that conflict part. With one expert it is shared
    bottom. Experts and towers are linear, ReLU.

    Reference: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts, KDD 2018, https://doi.org/10.1145/3219819.3220007, section 4.2.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Ignored.
        towers: Names of the towers.
        num_scenarios: Ignored.
        units: Widths of each expert's layers.
        num_experts: Number of experts.
        tower_units: Widths of each tower's layers; none for the blend of experts itself.
        normalize: Whether layers have layer normalisation before the ReLU, which the paper does not have.

    Returns:
        A `Shared`: `{tower: tensor of shape (batch, width of the last layer)}`, and what each tower starts from.

    Raises:
        ValueError: If a size is not positive or `units` is empty.
    """
    check_sizes(units=units, num_experts=num_experts)
    experts = x
    for i, width in enumerate(units):
        experts = Experts(num_experts, width, activation="relu", normalize=normalize, name=f"experts_{i}")(experts)
    blends = ExpertGate(num_gates=len(towers), name="gates")(x, experts)  # (batch, towers, units)
    return dense_towers(blends, towers, tower_units, normalize=normalize)

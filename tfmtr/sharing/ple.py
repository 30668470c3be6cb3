"""Experts of each task's own beside shared ones, in levels."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from tfmtr.layers._sizes import check_sizes
from tfmtr.layers.expert_gate import ExpertGate
from tfmtr.layers.experts import Experts
from tfmtr.sharing._shared import Shared
from tfmtr.sharing._towers import dense_towers


def ple(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    units: Sequence[int] = (256, 256),
    num_experts: int = 1,
    num_shared_experts: int = 1,
    tower_units: Sequence[int] = (64,),
    normalize: bool = False,
) -> Shared:
    """Separates what a task learns for itself from what all tasks share, level by level.

    At level l task t has experts `E_t = f_t(h_t)` and all tasks have `E_s = f_s(h_s)`, where at first
    `h_t = h_s = x`. Gates that see the same inputs blend them into the next level's:

        h_t <- softmax(W_t h_t) [E_t, E_s]             a task's gate sees its own and the shared experts
        h_s <- softmax(W_s h_s) [E_1 .. E_T, E_s]      the shared gate sees all; none at the last level

    The towers are `u_t = f_t(h_t)`. A task's own experts get the gradient of no other task at the last level,
    so that conflicting tasks do not pull at the same weights. With one level it is CGC (customized gate
    control). Every expert is one layer: linear, ReLU.

    Reference: Tang et al., Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for
    Personalized Recommendations, RecSys 2020, https://doi.org/10.1145/3383313.3412236, sections 4.1 (CGC)
    and 4.2.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Ignored.
        towers: Names of the towers.
        num_scenarios: Ignored.
        units: Width of the experts of each level, so that its length is the number of levels.
        num_experts: Number of each task's own experts at a level.
        num_shared_experts: Number of shared experts at a level.
        tower_units: Widths of each tower's layers; none for the last blend itself.
        normalize: Whether layers have layer normalisation before the ReLU, which the paper does not have.

    Returns:
        A `Shared`: `{tower: tensor of shape (batch, width of the last layer)}`, and what each tower starts from.

    Raises:
        ValueError: If a size is not positive or `units` is empty.
    """
    check_sizes(units=units, num_experts=num_experts, num_shared_experts=num_shared_experts)
    num_towers, options = len(towers), {"activation": "relu", "normalize": normalize}
    own, shared = x, x
    for i, width in enumerate(units):
        inputs = ops.repeat(own, num_experts, axis=1) if i else x  # expert by expert, a task's in a row
        own_experts = Experts(num_towers * num_experts, width, **options, name=f"own_experts_{i}")(inputs)
        shared_experts = Experts(num_shared_experts, width, **options, name=f"shared_experts_{i}")(shared)
        seen = ops.concatenate(  # (batch, towers, num_experts + num_shared_experts, width)
            [
                ops.reshape(own_experts, (-1, num_towers, num_experts, width)),
                ops.repeat(shared_experts[:, None], num_towers, axis=1),
            ],
            axis=2,
        )
        own = ExpertGate(num_gates=num_towers, name=f"own_gates_{i}")(own, seen)  # (batch, towers, width)
        if i < len(units) - 1:
            all_experts = ops.concatenate([own_experts, shared_experts], axis=1)
            shared = ExpertGate(name=f"shared_gate_{i}")(shared, all_experts)
    return dense_towers(own, towers, tower_units, normalize=normalize)

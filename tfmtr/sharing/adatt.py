"""Every task fuses all experts by a gate and adds its own experts as a residual, in levels."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import Shape, check_sizes
from tfmtr.layers.expert_gate import ExpertGate
from tfmtr.layers.experts import Experts
from tfmtr.sharing._shared import Shared
from tfmtr.sharing._towers import dense_towers


def adatt(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    units: Sequence[int] = (256, 256),
    num_experts: int = 2,
    num_shared_experts: int = 1,
    tower_units: Sequence[int] = (64,),
    normalize: bool = False,
) -> Shared:
    """Fuses all tasks' experts into each task and keeps the task's own experts as a residual, level by level.

    At level l each task unit t has native experts `E_t = f_t(h_t)`, and so has the shared unit s where there is
    one; at first all `h_t = x`. `E` is all experts of all units. Every unit fuses

        h_t <- softmax(W_t h_t) E + v_t E_t

    with weights `v_t` that are learnt, the same for all rows; one native expert has the weight 1. The shared
    unit has no fusion at the last level, where nothing would read it. The towers are `u_t = f_t(h_t)`.

    What sets it apart from PLE: a task's gate sees the other tasks' experts too, so sharing between two tasks
    is learnt pair by pair, and the residual makes sure that a task's own experts are not gated away. Without
    shared experts (`num_shared_experts=0`) it is AdaTT-sp.

    Reference: Li et al., AdaTT: Adaptive Task-to-Task Fusion Network for Multitask Learning in Recommendations,
    KDD 2023, https://doi.org/10.1145/3580305.3599769, section 3. `v_t` starts uniform between -1/sqrt(m) and
    1/sqrt(m) for m native experts, as in the authors' published code (facebookresearch/AdaTT, mtl_lib.py; with shared
    experts it learns the weight of a single native expert too, unless all units have one; here it is 1 always). Its
    gates have biases, which these do not.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Ignored.
        towers: Names of the towers.
        num_scenarios: Ignored.
        units: Width of the experts of each level, so that its length is the number of levels.
        num_experts: Number of each task's native experts at a level.
        num_shared_experts: Number of the shared unit's experts at a level; 0 for AdaTT-sp.
        tower_units: Widths of each tower's layers; none for the last fusion itself.
        normalize: Whether layers have layer normalisation before the ReLU, which the paper does not have.

    Returns:
        A `Shared`: `{tower: tensor of shape (batch, width of the last layer)}`, and what each tower starts from.

    Raises:
        ValueError: If a size is not positive, `units` is empty, or `num_shared_experts` is negative.
    """
    check_sizes(units=units, num_experts=num_experts)
    if num_shared_experts < 0:
        raise ValueError(
            "`num_shared_experts` must be 0 (AdaTT-sp) or a positive integer. "
            f"Received: num_shared_experts={num_shared_experts}"
        )
    num_towers, options = len(towers), {"activation": "relu", "normalize": normalize}
    own, shared = x, x
    for i, width in enumerate(units):
        inputs = ops.repeat(own, num_experts, axis=1) if i else x  # expert by expert, a task's in a row
        own_experts = Experts(num_towers * num_experts, width, **options, name=f"own_experts_{i}")(inputs)
        all_experts = own_experts
        if num_shared_experts:
            shared_experts = Experts(num_shared_experts, width, **options, name=f"shared_experts_{i}")(shared)
            all_experts = ops.concatenate([own_experts, shared_experts], axis=1)
        natives = ops.reshape(own_experts, (-1, num_towers, num_experts, width))
        fused = ExpertGate(num_gates=num_towers, name=f"own_gates_{i}")(own, all_experts)  # (batch, towers, width)
        own = fused + NativeExperts(name=f"own_natives_{i}")(natives)
        if num_shared_experts and i < len(units) - 1:
            fused = ExpertGate(name=f"shared_gate_{i}")(shared, all_experts)
            shared = fused + NativeExperts(name=f"shared_natives_{i}")(shared_experts[:, None])[:, 0]
    return dense_towers(own, towers, tower_units, normalize=normalize)


@keras.saving.register_keras_serializable(package="tfmtr")
class NativeExperts(keras.layers.Layer):
    """Sums a unit's own experts with learnt weights: `v_t E_t`; a single one has the weight 1 and nothing is learnt.

    Call arguments:
        inputs: Tensor of shape `(batch, num_units, num_experts, width)`.

    Returns:
        Tensor of shape `(batch, num_units, width)`.
    """

    def build(self, input_shape: Shape) -> None:
        """Creates `v`."""
        if input_shape[2] > 1:
            limit = input_shape[2] ** -0.5
            start = keras.initializers.RandomUniform(-limit, limit)
            self.weight = self.add_weight(shape=tuple(input_shape[1:3]), initializer=start, name="weight")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        """Sums the experts."""
        return inputs[:, :, 0] if inputs.shape[2] == 1 else ops.einsum("te,bteu->btu", self.weight, inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape without the axis of experts."""
        return (*input_shape[:2], input_shape[3])

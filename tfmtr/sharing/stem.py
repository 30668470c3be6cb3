"""Embedding tables of each task beside the shared ones."""

from collections.abc import Mapping, Sequence

from keras import KerasTensor, ops

from tfmtr.layers._sizes import check_sizes
from tfmtr.layers.expert_gate import ExpertGate
from tfmtr.layers.experts import Experts
from tfmtr.sharing._shared import Shared
from tfmtr.sharing._towers import dense_towers


def stem(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    task_representations: Mapping[str, KerasTensor],
    num_experts: int = 1,
    num_shared_experts: int = 1,
    units: Sequence[int] = (256,),
    tower_units: Sequence[int] = (64,),
) -> Shared:
    """Lets every task read the embeddings of all tasks and train only its own and the shared ones.

    Users with comparable feedback on two tasks can like different things on each of them, which one table for
    both cannot say. Task t has tables of its own, representation `x_t`, beside the shared `x`. All forward,
    task-specific backward:

        E_t = experts of task t on x_t,    E_s = shared experts on x
        h_t = sum_i g_ti e_i,              e_1 .. e_n = [E_t, sg(E_j) for all j != t, E_s]
        g_t = softmax(W_t [x_t, x]),       u_t = f_t(h_t)

    `sg` stops the gradient, so the loss of task t leaves the experts and tables of the other tasks alone.

    Reference: Su et al., STEM: Unleashing the Power of Embeddings for Multi-Task Recommendation, AAAI 2024,
    https://doi.org/10.1609/aaai.v38i8.28749. Experts and towers are dense layers with ReLU. What is stopped is
    the output of another task's experts, so tables and experts alike, as in the authors' published code
    (LiangcaiSu/STEM, models/STEM.py). There the gate reads `x_t + x` and is a network with hidden layers of 128 and 64
    and biases; here it is linear and reads the two side by side, because their widths differ in two-tower form, and
    the sum is the case of equal weights. One level, the published default: the shared stream of a second
    one would carry task t's gradient into every table.

    In two-tower form the tables are those of the user's side only and the title's vector is common to all
    tasks; in ranking form, as in the paper, the title's features have tables for each task too.

    Args:
        x: Tensor of shape `(batch, width)`, from the shared tables.
        scenario: Ignored.
        towers: Names of the towers.
        num_scenarios: Ignored.
        task_representations: `{tower: tensor of shape (batch, width)}`, from the task's own tables.
        num_experts: Number of experts of each task.
        num_shared_experts: Number of experts on the shared representation.
        units: Widths of each expert's layers.
        tower_units: Widths of each tower's layers; none for the blend of experts itself.

    Returns:
        A `Shared`: `{tower: tensor of shape (batch, width of the last layer)}`, and what each tower starts from.

    Raises:
        ValueError: If a tower has no task representation, a size is not positive or `units` is empty.
    """
    missing = sorted(set(towers) - set(task_representations))
    if missing:
        raise ValueError(
            "`task_representations` must have a tensor for every tower, made from embedding tables of its own; "
            f"add {missing}. Received: task_representations for {sorted(task_representations)}"
        )
    check_sizes(units=units, num_experts=num_experts, num_shared_experts=num_shared_experts)
    experts = {t: _experts(task_representations[t], num_experts, units, name=f"{t}_experts") for t in towers}
    stopped = {t: ops.stop_gradient(outputs) for t, outputs in experts.items()}
    shared = _experts(x, num_shared_experts, units, name="experts")
    blends = []
    for tower in towers:
        others = [stopped[other] for other in towers if other != tower]
        seen = ops.concatenate([experts[tower], *others, shared], axis=1)  # (batch, all experts, units)
        gate_input = ops.concatenate([task_representations[tower], x], axis=-1)
        blends.append(ExpertGate(name=f"{tower}_gate")(gate_input, seen))
    return dense_towers(ops.stack(blends, axis=1), towers, tower_units, normalize=False)


def _experts(x: KerasTensor, num_experts: int, units: Sequence[int], *, name: str) -> KerasTensor:
    """Dense layers of several experts on one input: tensor of shape `(batch, num_experts, units[-1])`."""
    for i, width in enumerate(units):
        x = Experts(num_experts, width, activation="relu", name=f"{name}_{i}")(x)
    return x

"""Hard parameter sharing with one dense block per territory group."""

from collections.abc import Callable, Sequence

from keras import KerasTensor

from tfmtr.layers.routed_dense import RoutedDense
from tfmtr.sharing._shared import Shared


def territory_branches(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    units: int | None = None,
    activation: str | Callable[[KerasTensor], KerasTensor] | None = None,
) -> Shared:
    """Puts one dense block per scenario on top of the shared representation.

    Shared layers learn from all rows, a scenario's block from its own rows only: `u = W_s x + b_s`.

    Reference: Gampa et al., Multi-Task Learning For Reduced Popularity Bias In Multi-Territory Video
    Recommendations, 2023, section 3.3. The paper says ReLU on all layers; a dot product of two
    non-negative vectors makes every probability at least one half, so the block is linear here and
    `activation="relu"` builds the paper's form.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)`.
        towers: Names of the towers, each with its own blocks.
        num_scenarios: Number of blocks for each tower.
        units: Width of the blocks; that of `x` by default.
        activation: Activation of the blocks.

    Returns:
        A `Shared` with vectors of shape `(batch, units)`.
    """
    units = units or x.shape[-1]
    vectors = {
        tower: RoutedDense(units, num_scenarios, activation=activation, name=f"{tower}_branches")(x, scenario)
        for tower in towers
    }
    return Shared(vectors, is_linear=activation is None and units == x.shape[-1])

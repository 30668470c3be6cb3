"""Nothing is specific to a scenario: the baseline."""

from collections.abc import Sequence

import keras
from keras import KerasTensor

from tfmtr.sharing._shared import Shared


def none(x: KerasTensor, scenario: KerasTensor, *, towers: Sequence[str], num_scenarios: int) -> Shared:
    """Returns the representation itself; several towers get one linear projection each.

    The global model that Gampa et al. 2023 (section 4.3) compare with. With one tower it is the
    identity, which tells a two-tower model to leave the user tower's last layer linear.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Ignored.
        towers: Names of the towers.
        num_scenarios: Ignored.

    Returns:
        A `Shared` with vectors of shape `(batch, width)`.
    """
    if len(towers) == 1:
        return Shared({towers[0]: x}, is_linear=True)
    vectors = {tower: keras.layers.Dense(x.shape[-1], name=f"{tower}_vector")(x) for tower in towers}
    return Shared(vectors, is_linear=True)

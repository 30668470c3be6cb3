"""One representation for all tasks, one tower each."""

import functools
from collections.abc import Sequence

import keras
from keras import KerasTensor

from tfmtr.layers.normalized_dense import NormalizedDense
from tfmtr.sharing._shared import Shared
from tfmtr.sharing._towers import dense_towers


def shared_bottom(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    units: Sequence[int] = (512, 256),
    tower_units: Sequence[int] = (64,),
    normalize: bool = False,
) -> Shared:
    """Puts one small tower per task on top of layers that all tasks share.

        h = f(x),    u_t = f_t(h)

    Layers are linear, ReLU. With `normalize=True`, trained on one scenario and one task, it is the MLP row of the
    M3oE paper.

    Reference: Caruana, Multitask Learning, Machine Learning 28, 1997, https://doi.org/10.1023/A:1007379606734.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Ignored.
        towers: Names of the towers.
        num_scenarios: Ignored.
        units: Widths of the shared layers.
        tower_units: Widths of each tower's layers; none for the shared representation itself.
        normalize: Whether layers have layer normalisation before the ReLU, which the paper does not have.

    Returns:
        A `Shared`: `{tower: tensor of shape (batch, width of the last layer)}`, and what each tower starts from.
    """
    for i, width in enumerate(units):
        layer = NormalizedDense if normalize else functools.partial(keras.layers.Dense, activation="relu")
        x = layer(width, name=f"bottom_{i}")(x)
    return dense_towers(x, towers, tower_units, normalize=normalize)

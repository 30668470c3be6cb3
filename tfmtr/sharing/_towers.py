"""The last block of most systems."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from tfmtr.layers.experts import Experts
from tfmtr.sharing._shared import Shared


def dense_towers(h: KerasTensor, towers: Sequence[str], units: Sequence[int], *, normalize: bool = False) -> Shared:
    """Puts dense layers with ReLU of its own on top of each tower's input.

        u_t = f_t(h_t)

    Args:
        h: Tensor of shape `(batch, num_towers, width)`, or `(batch, width)` where all towers have the same input.
        towers: Names of the towers.
        units: Widths of the layers; none to return the inputs.
        normalize: Whether layers have layer normalisation before the ReLU.

    Returns:
        A `Shared` whose vectors are as wide as the last layer and whose bases are the inputs.
    """
    bases = _by_tower(h, towers)
    for i, width in enumerate(units):  # all towers' layers at once
        h = Experts(len(towers), width, activation="relu", normalize=normalize, name=f"towers_{i}")(h)
    return Shared(_by_tower(h, towers), bases=bases)


def _by_tower(h: KerasTensor, towers: Sequence[str]) -> dict[str, KerasTensor]:
    parts = ops.unstack(h, len(towers), axis=1) if len(h.shape) == 3 else [h] * len(towers)
    return dict(zip(towers, parts, strict=True))

"""One network per task, stitched together after every layer."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import Shape, check_sizes
from tfmtr.layers.experts import Experts


def cross_stitch(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    units: Sequence[int] = (512, 256, 64),
    same_tower: float = 0.9,
    normalize: bool = False,
) -> dict[str, KerasTensor]:
    """Gives every tower a network of its own and mixes their activations after every layer.

        h_t = f_t(x_t),    x_t <- sum_j alpha_tj h_j

    Layers are linear, ReLU; at first all `x_t = x`, the last `x_t` is the tower's vector.
    How much is shared at which depth is learnt: with `alpha` the identity the networks are separate, with
    equal entries they are one ensemble for all tasks.

    The paper stitches two image networks, and leaves open what a dense layer of many tasks does. Here each
    layer has one `alpha` for all its units, as in equation 1 (implementations for images often have one for
    each channel), and starts it as a convex combination, so that activations keep their size: `same_tower`
    for a tower's own, the rest in equal parts for the others. The paper trains `alpha` with a larger learning
    rate than the networks; here all weights have the optimizer's.

    Reference: Misra et al., Cross-stitch Networks for Multi-task Learning, CVPR 2016,
    https://doi.org/10.1109/CVPR.2016.433.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Ignored.
        towers: Names of the towers.
        num_scenarios: Ignored.
        units: Widths of each tower's layers.
        same_tower: Where a tower's weight on its own activations starts, in `[0, 1]`.
        normalize: Whether layers have layer normalisation before the ReLU, which the paper does not have.

    Returns:
        `{tower: tensor of shape (batch, width of the last layer)}`.

    Raises:
        ValueError: If a width is not positive, `units` is empty or `same_tower` is not in `[0, 1]`.
    """
    check_sizes(units=units)
    for i, width in enumerate(units):
        x = Experts(len(towers), width, activation="relu", normalize=normalize, name=f"layers_{i}")(x)
        x = CrossStitch(same_tower, name=f"cross_stitch_{i}")(x)
    return {tower: x[:, t] for t, tower in enumerate(towers)}


@keras.saving.register_keras_serializable(package="tfmtr")
class CrossStitch(keras.layers.Layer):
    """Mixes the towers' activations: `x_t = sum_j alpha_tj h_j`, where the rows of `alpha` sum to one at first.

    Args:
        same_tower: Where the diagonal of `alpha` starts; 1 where there is only one tower.

    Call arguments:
        inputs: Tensor of shape `(batch, num_towers, width)`.

    Returns:
        Tensor of the same shape.

    Raises:
        ValueError: If `same_tower` is not in `[0, 1]`.
    """

    def __init__(self, same_tower: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= same_tower <= 1:
            raise ValueError(f"`same_tower` must be in [0, 1]. Received: same_tower={same_tower}")
        self.same_tower = same_tower

    def build(self, input_shape: Shape) -> None:
        """Creates `alpha`."""

        def near_identity(shape: tuple[int, int], dtype: str) -> KerasTensor:
            other = (1 - self.same_tower) / max(shape[0] - 1, 1)
            same = self.same_tower if shape[0] > 1 else 1.0
            return other * ops.ones(shape, dtype) + (same - other) * ops.eye(shape[0], dtype=dtype)

        self.alpha = self.add_weight(shape=(input_shape[1],) * 2, initializer=near_identity, name="alpha")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        """Mixes the towers."""
        return ops.einsum("tj,bju->btu", self.alpha, inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {**super().get_config(), "same_tower": self.same_tower}

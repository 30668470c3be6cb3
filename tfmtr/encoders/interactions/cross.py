"""Explicit products of features, layer by layer: DCN V2."""

from collections.abc import Mapping

import keras_rs
from keras import KerasTensor

from tfmtr.layers._sizes import check_sizes


def cross(
    x: KerasTensor, fields: Mapping[str, KerasTensor], *, num_layers: int = 2, projection_dim: int | None = None
) -> KerasTensor:
    """Multiplies features layer by layer, so that layer l holds products of up to l + 1 of them.

        x_{l+1} = x_0 ⊗ (W_l x_l + b_l) + x_l,    x_0 = x

    Reference: Wang et al., DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to
    Rank Systems, WWW 2021, https://arxiv.org/abs/2008.13535, section 3.2; the layer is keras-rs's `FeatureCross`.

    Args:
        x: Tensor of shape `(batch, width)`.
        fields: Ignored.
        num_layers: Number of cross layers.
        projection_dim: Rank of each `W_l`; full by default (section 3.3).

    Returns:
        Tensor of shape `(batch, width)`.

    Raises:
        ValueError: If a size is not positive.
    """
    check_sizes(num_layers=num_layers, **({} if projection_dim is None else {"projection_dim": projection_dim}))
    crossed = x
    for i in range(num_layers):
        crossed = keras_rs.layers.FeatureCross(projection_dim=projection_dim, name=f"cross_{i}")(x, crossed)
    return crossed

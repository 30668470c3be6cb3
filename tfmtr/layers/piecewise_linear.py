"""A number as how far it is through each of some bins."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from tfmtr.layers._sizes import Shape


@keras.saving.register_keras_serializable(package="tfmtr")
class PiecewiseLinear(keras.layers.Layer):
    """Encodes a number by bins, so that a linear layer makes any piecewise linear function of it.

        e_t = clip((x - b_{t-1}) / (b_t - b_{t-1}), 0, 1),    t = 1 ... T

    With quantiles as edges, a number whose values are far apart in size is told apart where most rows are. Beyond the
    outer edges the encoding stays as it is there; the authors' first and last parts go on.

    Reference: after Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022,
    https://arxiv.org/abs/2203.05556, by a copy of the authors' code (`rtdl_num_embeddings`); the paper was not read.

    Args:
        edges: Edges of the bins, two or more, ascending.

    Call arguments:
        inputs: Float tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `(batch, T)` with values from 0 to 1.

    Raises:
        ValueError: If `edges` are not two or more ascending numbers.

    Example:
    >>> np.asarray(PiecewiseLinear([0.0, 1.0, 3.0])(np.float32([-1.0, 0.5, 2.0]))).tolist()
    [[0.0, 0.0], [0.5, 0.0], [1.0, 0.5]]
    """

    def __init__(self, edges: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.edges = tuple(float(edge) for edge in edges)
        if len(self.edges) < 2 or not np.all(np.diff(self.edges) > 0) or not np.all(np.isfinite(self.edges)):
            raise ValueError(f"`edges` must be two or more ascending numbers. Received: edges={tuple(edges)}")

    def build(self, input_shape: Shape) -> None:
        """Has no variables."""
        self.built = True

    def call(self, inputs: KerasTensor) -> KerasTensor:
        """Encodes the numbers."""
        low, high = (np.asarray(edges, "float32") for edges in (self.edges[:-1], self.edges[1:]))
        x = ops.cast(inputs, "float32")[:, None]
        return ops.cast(ops.clip((x - low) / (high - low), 0.0, 1.0), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """A number of each bin."""
        return (input_shape[0], len(self.edges) - 1)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "edges": list(self.edges)}

"""The user's side of a field-weighted factorisation machine."""

from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import Shape, check_sizes


@keras.saving.register_keras_serializable(package="tfmtr")
class FieldQuery(keras.layers.Layer):
    """Weighs user fields by the title field that they will meet, as field-weighted factorisation machines do.

        q = [w_j + sum_i r_ij v_i for the title fields j,    r_jk for j < k]

    The dot product with `[v_j for all j, <v_j, v_k> for j < k]` is the machine's sum over all pairs that a title is in.

    Reference: Pan et al., Predicting Different Types of Conversions with Multi-Task Learning in Online Advertising,
    KDD 2019, https://arxiv.org/abs/1907.10235, section 4; `tfmtr/encoders/field_weighted.py` has the whole.

    Args:
        num_title_fields: Number of title fields.

    Call arguments:
        inputs: User fields, shape `(batch, user fields, width)`.

    Returns:
        Tensor of shape `(batch, d)` with `d = T width + T (T - 1) / 2` for T title fields.

    Raises:
        ValueError: If there is no title field.
    """

    def __init__(self, num_title_fields: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_sizes(num_title_fields=num_title_fields)
        self.num_title_fields = num_title_fields

    def build(self, input_shape: Shape) -> None:
        _, num_users, width = input_shape
        num_titles = self.num_title_fields
        # With r = 1 the machine starts as a plain factorisation machine.
        self.weight = self.add_weight(shape=(num_users, num_titles), initializer="ones", name="pair_weight")
        self.title_linear = self.add_weight(shape=(num_titles * width,), initializer="zeros", name="title_linear")
        pairs = num_titles * (num_titles - 1) // 2
        self.title_pairs = self.add_weight(shape=(pairs,), initializer="ones", name="title_pairs")

    def call(self, inputs: KerasTensor) -> KerasTensor:
        met = ops.einsum("bud,ut->btd", inputs, self.weight)
        met = ops.reshape(met, (-1, met.shape[1] * met.shape[2])) + self.title_linear
        pairs = ops.zeros_like(met[:, :1]) + self.title_pairs
        return ops.concatenate([met, pairs], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        titles = self.num_title_fields
        return (input_shape[0], titles * input_shape[-1] + titles * (titles - 1) // 2)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_title_fields": self.num_title_fields}

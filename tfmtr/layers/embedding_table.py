"""An embedding table of which a lookup reads the rows that are asked for and no others."""

from typing import Any

import keras
from keras import KerasTensor, ops

from tfmtr.backends import is_tensorflow
from tfmtr.layers._sizes import Shape, check_sizes


@keras.saving.register_keras_serializable(package="tfmtr")
class EmbeddingTable(keras.layers.Layer):
    """Embeddings of indices, for tables of any size.

    The same function as `keras.layers.Embedding`. On the TensorFlow backend rows are gathered from the variable itself:
    Keras reads the variable as a whole, which TensorFlow answers with a copy once an optimizer has written single rows,
    and in mixed precision casts all of it.

    Args:
        input_dim: Number of rows.
        output_dim: Width of a row.

    Call arguments:
        inputs: Integer tensor of any shape, values in `[0, input_dim)`.

    Returns:
        Tensor of the shape of `inputs` and `output_dim`.

    Raises:
        ValueError: If a size is not positive.

    Example:
    >>> tuple(EmbeddingTable(10, 4)(ops.array([[1, 2, 3]])).shape)
    (1, 3, 4)
    """

    def __init__(self, input_dim: int, output_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_sizes(input_dim=input_dim, output_dim=output_dim)
        self.input_dim, self.output_dim = input_dim, output_dim
        self.autocast = False  # inputs are indices
        self.initializer = keras.initializers.get("uniform")

    def build(self, input_shape: Shape) -> None:
        self.embeddings = self.add_weight(
            shape=(self.input_dim, self.output_dim), initializer=self.initializer, autocast=False, name="embeddings"
        )

    def call(self, inputs: KerasTensor) -> KerasTensor:
        indices = ops.cast(inputs, "int32")
        if is_tensorflow():
            import tensorflow as tf

            rows = tf.gather(self.embeddings.value, indices)
        else:
            rows = ops.take(self.embeddings, indices, axis=0)
        return ops.cast(rows, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "input_dim": self.input_dim, "output_dim": self.output_dim}

"""The values that a client has, turned into the indices and numbers that a model computes with.

Training does this with Arrow (`tfmtr.inputs`), the exported graph with the Keras layers here; a test
holds the two against each other.
"""

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import KerasTensor, ops

from tfmtr.kinds import KINDS
from tfmtr.names import SCENARIO, SEPARATOR
from tfmtr.schema import Scenario, Schema

if TYPE_CHECKING:
    import tensorflow as tf


def raw_inputs(schema: Schema, *roles: str, scenario: bool = False) -> dict[str, KerasTensor]:
    """Keras inputs for raw values: `{column: KerasTensor}`.

    Ids and strings have shape `(batch,)` and are text, numbers `(batch,)` float32, vectors
    `(batch, width)` float32, sets and sequences `(batch, width)` text padded with "".

    Args:
        schema: The `Schema`.
        *roles: Roles whose features are wanted.
        scenario: Whether the scenario's columns are wanted too.
    """
    inputs = {}
    for feature in schema.by_role(*roles):
        kind = KINDS[feature.kind]
        inputs[feature.name] = keras.Input(kind.shape(feature), dtype=kind.raw_dtype, name=feature.name)
    for column in schema.scenario.columns if scenario else ():
        inputs.setdefault(column, keras.Input((), dtype="string", name=column))
    return inputs


def look_up(
    raw: Mapping[str, KerasTensor], schema: Schema, *roles: str, scenario: bool = False
) -> dict[str, KerasTensor]:
    """Model inputs from raw values, in the graph: the serving side of `tfmtr.inputs.model_inputs`.

    Args:
        raw: `{column: tensor}` as `raw_inputs` describes.
        schema: The `Schema`.
        *roles: Roles whose features are wanted.
        scenario: Whether the scenario's index is wanted too.

    Returns:
        `{name: tensor}` with the names, shapes and dtypes of `encode_inputs`.
    """
    encoded = {f.name: KINDS[f.kind].look_up(raw[f.name], f) for f in schema.by_role(*roles)}
    if scenario:
        encoded[SCENARIO] = _scenario_index(raw, schema.scenario)
    return encoded


def lookup(vocabulary: Iterable[str], **options: Any) -> keras.layers.StringLookup:
    """A `StringLookup` with 0 for unknown text (with `mask_token`, 0 for that and 1 for unknown).

    TensorFlow keeps a table for as long as the process lives; this one goes with the layer.
    """
    # No value of a client is a token of the layer's own, and a lookup table cannot be empty.
    layer = keras.layers.StringLookup(vocabulary=list(vocabulary) or ["\x01"], oov_token="\x00", **options)
    table = layer.lookup_table
    weakref.finalize(table, _destroy, table.resource_handle).atexit = False
    return layer


def _destroy(handle: "tf.Tensor") -> None:
    """Frees a table's memory."""
    import tensorflow as tf

    with tf.init_scope():  # a collection of garbage may come in the middle of a function's tracing
        if tf.executing_eagerly():
            tf.raw_ops.DestroyResourceOp(resource=handle, ignore_lookup_error=True)


def _scenario_index(raw: Mapping[str, KerasTensor], scenario: Scenario) -> KerasTensor:
    key = raw[scenario.columns[0]]
    if len(scenario.columns) > 1:
        key = JoinText()([raw[column] for column in scenario.columns])
    index = lookup([SEPARATOR.join(values) for values in scenario.groups])(key)
    groups = [0, *(scenario.names.index(group) + 1 for group in scenario.groups.values())]
    return ops.take(np.asarray([*groups, 0], "int32"), index)  # the last 0: for an empty table


@keras.saving.register_keras_serializable(package="tfmtr")
class JoinText(keras.layers.Layer):
    """Joins text tensors of shape `(batch,)` with a separator that no value has."""

    def call(self, inputs: Sequence[KerasTensor]) -> KerasTensor:
        """Joins the tensors."""
        import tensorflow as tf

        return tf.strings.join(inputs, separator=SEPARATOR)

    def compute_output_spec(self, inputs: Sequence[KerasTensor]) -> KerasTensor:
        """Shape and dtype of one input."""
        return keras.KerasTensor(inputs[0].shape, dtype="string")

"""Model inputs to one representation: embeddings, numbers and vectors side by side."""

from collections.abc import Mapping, Sequence

import keras
from keras import KerasTensor, ops

from tfmtr.kinds import KINDS, categorical
from tfmtr.layers.piecewise_linear import PiecewiseLinear
from tfmtr.names import SCENARIO
from tfmtr.parameter_servers import table
from tfmtr.schema import Feature, Schema


def encode_inputs(schema: Schema, *roles: str, scenario: bool = False) -> dict[str, KerasTensor]:
    """Keras inputs of the encoded features: `{name: KerasTensor}`.

    Indices are int32 of shape `(batch,)`, or `(batch, width)` for sets and sequences; numbers `(batch,)`
    and vectors `(batch, width)` are float32. Index 0 of an id is the unknown value; of a set or
    sequence it is padding, and 1 the unknown value.

    Args:
        schema: The `Schema`.
        *roles: Roles whose features are wanted.
        scenario: Whether the input `scenario`, int32 of shape `(batch,)`, is wanted too.
    """
    inputs = {}
    for feature in schema.by_role(*roles):
        kind = KINDS[feature.kind]
        inputs[feature.name] = keras.Input(kind.shape(feature), dtype=kind.dtype, name=feature.name)
    if scenario:
        inputs[SCENARIO] = keras.Input((), dtype="int32", name=SCENARIO)
    return inputs


def embed(
    inputs: Mapping[str, KerasTensor], features: Sequence[Feature], *, embedding_dim: int = 16, name: str | None = None
) -> KerasTensor:
    """Joins features into one representation (the papers' E^Merge): the fields of `embed_fields` side by side.

    Args:
        inputs: `{name: tensor}` as `encode_inputs` describes.
        features: The features to join, in this order.
        embedding_dim: Positive integer, width of one embedding.
        name: Prefix of the tables' names, for a second set of tables over the same features.

    Returns:
        Tensor of shape `(batch, width)`.

    Raises:
        ValueError: If there is no feature.
    """
    return join(embed_fields(inputs, features, embedding_dim=embedding_dim, name=name))


def join(fields: Mapping[str, KerasTensor]) -> KerasTensor:
    """Puts the tensors of `{name: tensor of shape (batch, width)}` side by side."""
    parts = list(fields.values())
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def stack(encode: str, fields: Mapping[str, KerasTensor]) -> KerasTensor:
    """Embeddings as one tensor of shape `(batch, fields, embedding_dim)`, for products of pairs of them.

    Raises:
        ValueError: If there are fewer than two.
    """
    if len(fields) < 2:
        raise ValueError(
            f"`encode={encode}` multiplies pairs of embeddings, so the schema must have two or more features of "
            f"kind {', '.join(categorical())}. Received: {sorted(fields)}"
        )
    return ops.stack(list(fields.values()), axis=1)


def embed_fields(
    inputs: Mapping[str, KerasTensor], features: Sequence[Feature], *, embedding_dim: int = 16, name: str | None = None
) -> dict[str, KerasTensor]:
    """One tensor a feature.

    Ids and hashed strings become embeddings, sets and sequences the mean embedding of their values,
    numbers and vectors stay as they are, a number with quantiles becomes how far it is through each of its bins.
    Arguments as for `embed`.

    Returns:
        `{feature: tensor of shape (batch, width)}`; the width is `embedding_dim` but for numbers and vectors.

    Raises:
        ValueError: If there is no feature.
    """
    if not features:
        raise ValueError("A tower needs at least one feature; give the table one more column or a vector store.")
    prefix = f"{name}_" if name else ""
    fields = {}
    for feature in features:
        kind, embedding = KINDS[feature.kind], None
        if kind.rows is not None:
            embedding = table(kind.rows(feature), embedding_dim, name=f"{prefix}{feature.name}_embedding")
        value = inputs[feature.name]
        if feature.quantiles:
            edges = [(value - feature.mean) / feature.std for value in feature.quantiles]
            fields[feature.name] = PiecewiseLinear(edges, name=f"{prefix}{feature.name}_bins")(value)
        else:
            fields[feature.name] = kind.embed(value, embedding)
    return fields

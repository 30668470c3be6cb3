"""What each kind of feature is: its values, its input, look-up, table and embedding, in one table.

`KINDS` is the table. A new kind is one more entry; all that reads, encodes, embeds, grows, exports and serves features
asks the entry and compares no names. Which column of a log becomes a feature of which kind is the question of
`tfmtr.datasets.features`.

Importing this stays free of Arrow and Keras: a schema is made and read without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from tfmtr.schema import Feature


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of feature.

    A feature's values exist three times: raw, as a client has them; encoded, as a model's input; and embedded.

    Args:
        name: What `Feature.kind` calls it.
        is_text: Whether raw values are text; else they are float32.
        width: What `Feature.width` counts: `"values"` of a row, raw and encoded; `"buckets"` of a hash; or `None` where
            a feature has none.
        encode: `encode(column, feature, vocabulary)`: a column of the examples, an Arrow array, as the model's input,
            int32 or float32; `vocabulary` is the feature's as an Arrow array. `None` if the values are vectors of a
            store, whose rows the examples have in the column `<role>_row`.
        look_up: `look_up(value, feature)`: the same of a tensor of raw values in the exported graph.
        request: `request(value, feature)`: a client's value of one row, `None` where it says nothing, as the array of
            raw values that the exported graph takes.
        embed: `embed(value, table)`: a tensor of encoded values as one of shape `(batch, width)`; `table` is the layer
            that embeds indices, `None` where `rows` is.
        rows: `rows(feature)`: of the table whose indices the encoded values are, int32; or `None` for numbers, float32,
            that have no table.
        unknown: Index of the unknown value in the table; new values start as its embedding.
        has_vocabulary: Whether values are those of `Feature.vocabulary`.
        in_training: Whether a feature may be known in training only.
        tells_taste: Whether it says what a user likes: users are cold of whom all such values are zero or empty. Of
            kinds with several values.
        is_filter: Whether a request may choose titles by its values.
        has_quantiles: Whether a model may see how far a value is through bins between `Feature.quantiles`.

    Raises:
        ValueError: If there is a table without an unknown value, or an unknown value without a table; or if one value
            is to tell tastes.
    """

    name: str
    is_text: bool
    width: Literal["values", "buckets"] | None
    encode: Callable[[Any, Feature, Any], np.ndarray] | None
    look_up: Callable[[Any, Feature], Any]
    request: Callable[[Any, Feature], np.ndarray]
    embed: Callable[[Any, Any], Any]
    rows: Callable[[Feature], Any] | None = None
    unknown: int | None = None
    has_vocabulary: bool = False
    in_training: bool = False
    tells_taste: bool = False
    is_filter: bool = False
    has_quantiles: bool = False

    def __post_init__(self) -> None:
        if (self.rows is None) != (self.unknown is None):
            raise ValueError(
                f"`unknown` of the kind {self.name!r} must be the place of the unknown value in the table of `rows`; "
                f"give both or none. Received: unknown={self.unknown}"
            )
        if self.tells_taste and not self.is_wide:
            raise ValueError(
                f'`tells_taste` of the kind {self.name!r} must be False unless `width="values"`: a user is cold whose '
                f"values are all zero or empty. Received: width={self.width!r}"
            )

    @property
    def is_wide(self) -> bool:
        """Whether a row has several values."""
        return self.width == "values"

    @property
    def is_categorical(self) -> bool:
        """Whether encoded values are indices of a table, which become embeddings."""
        return self.rows is not None

    @property
    def is_stored(self) -> bool:
        """Whether its values are vectors of a store."""
        return self.encode is None

    @property
    def has_fixed_width(self) -> bool:
        """Whether a model's weights depend on `Feature.width`: vectors, unlike lists, are never padded or cut."""
        return self.is_wide and not self.is_text

    @property
    def raw_dtype(self) -> str:
        """Dtype of raw values."""
        return "string" if self.is_text else "float32"

    @property
    def dtype(self) -> str:
        """Dtype of encoded values."""
        return "int32" if self.is_categorical else "float32"

    def shape(self, feature: Feature) -> tuple[int | None, ...]:
        """Shape of one row's values, raw and encoded."""
        return (feature.width,) if self.is_wide else ()


def categorical() -> list[str]:
    """Names of the kinds that become embeddings.

    >>> categorical()
    ['id', 'string', 'set', 'sequence']
    """
    return [name for name, kind in KINDS.items() if kind.is_categorical]


def _encode_number(column: pa.Array, feature: Feature, vocabulary: pa.Array) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.fill_null(column.cast(pa.float64()), feature.mean).to_numpy(zero_copy_only=False)
    return ((values - feature.mean) / feature.std).astype("float32")


def _encode_id(column: pa.Array, feature: Feature, vocabulary: pa.Array) -> np.ndarray:
    return by_value(column, lambda values: index(values, vocabulary)) + 1


def _encode_string(column: pa.Array, feature: Feature, vocabulary: pa.Array) -> np.ndarray:
    import keras
    import numpy as np
    import pyarrow.compute as pc

    def buckets(values: Any) -> np.ndarray:
        values = pc.fill_null(values, "").to_numpy(zero_copy_only=False)
        return np.asarray(keras.layers.Hashing(num_bins=feature.width)(values), "int32")

    return by_value(column, buckets)


def _encode_set(column: pa.Array, feature: Feature, vocabulary: pa.Array) -> np.ndarray:
    """Of longer lists the first values are kept."""
    return _padded(column, feature, vocabulary, is_newest=False)


def _encode_sequence(column: pa.Array, feature: Feature, vocabulary: pa.Array) -> np.ndarray:
    """Of longer lists the newest values are kept."""
    return _padded(column, feature, vocabulary, is_newest=True)


def _padded(column: pa.Array, feature: Feature, vocabulary: pa.Array, *, is_newest: bool) -> np.ndarray:
    """Indices of a list column, shape `(rows, width)`: 0 pads, 1 is unknown."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_null(column.type):
        column = column.cast(pa.list_(pa.string()))
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        raise pa.ArrowTypeError(f"{column.type}, which are no lists")
    offsets = column.offsets.to_numpy()
    lengths = np.where(np.asarray(column.is_valid()), np.diff(offsets), 0)
    kept = np.minimum(lengths, feature.width)  # pyright: ignore[reportArgumentType, reportCallIssue]
    start = offsets[:-1] + (lengths - kept if is_newest else 0)
    values = index(column.values.cast(pa.string()), vocabulary) + 2
    position = np.arange(feature.width)  # pyright: ignore[reportArgumentType, reportCallIssue]
    source = np.minimum(start[:, None] + position, max(len(values) - 1, 0))
    inside = position < kept[:, None]
    return np.where(inside, values[source] if len(values) else 0, 0).astype("int32")


def by_value(column: Any, function: Callable[[Any], np.ndarray]) -> np.ndarray:
    """`function` of a text column, called with its different values only where these are known: of dictionaries."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return function(column.cast(pa.string()))
    null = pa.array([None], pa.string())
    by_entry = function(pa.concat_arrays([column.dictionary.cast(pa.string()), null]))
    return by_entry[pc.fill_null(column.indices, len(by_entry) - 1).to_numpy(zero_copy_only=False)]


def index(values: Any, vocabulary: Any) -> np.ndarray:
    """Position in the vocabulary, -1 where unknown, int32."""
    import pyarrow.compute as pc

    places = pc.index_in(values, value_set=vocabulary, skip_nulls=True)  # pyright: ignore[reportAttributeAccessIssue]
    return pc.fill_null(places, -1).to_numpy(zero_copy_only=False).astype("int32")


def _look_up_number(value: Any, feature: Feature) -> Any:
    """What is no finite number is missing, as in the examples: the mean stands for it."""
    from keras import ops

    return (ops.where(ops.isfinite(value), value, feature.mean) - feature.mean) / feature.std


def _look_up_id(value: Any, feature: Feature) -> Any:
    from tfmtr.encoders.raw import lookup

    return lookup(feature.vocabulary)(value)


def _look_up_list(value: Any, feature: Feature) -> Any:
    from tfmtr.encoders.raw import lookup

    return lookup(feature.vocabulary, mask_token="")(value)


def _look_up_string(value: Any, feature: Feature) -> Any:
    import keras

    return keras.layers.Hashing(num_bins=feature.width)(value)


def _request_number(value: Any, feature: Feature) -> np.ndarray:
    import numpy as np

    return np.asarray([feature.mean if value is None else value], np.float32)


def _request_text(value: Any, feature: Feature) -> np.ndarray:
    import numpy as np

    return np.asarray(["" if value is None else str(value)], object)


def _request_set(value: Any, feature: Feature) -> np.ndarray:
    return _padded_texts(list(value or [])[: feature.width], feature.width)  # pyright: ignore[reportArgumentType]


def _request_sequence(value: Any, feature: Feature) -> np.ndarray:
    return _padded_texts(list(value or [])[-feature.width :], feature.width)  # pyright: ignore[reportArgumentType]


def _padded_texts(values: Any, width: int) -> np.ndarray:
    import numpy as np

    return np.asarray([values + [""] * (width - len(values))], object)


def _request_vector(value: Any, feature: Feature) -> np.ndarray:
    import numpy as np

    return np.asarray(np.zeros(feature.width) if value is None else value, np.float32)[None]  # pyright: ignore[reportArgumentType, reportCallIssue]


def _embed_number(value: Any, table: Any) -> Any:
    from keras import ops

    return ops.expand_dims(value, -1)


def _embed_index(value: Any, table: Any) -> Any:
    return table(value)


def _embed_list(value: Any, table: Any) -> Any:
    """The mean embedding of a row's values."""
    from keras import ops

    mask = ops.expand_dims(ops.cast(ops.not_equal(value, 0), "float32"), -1)  # (batch, width, 1)
    return ops.sum(table(value) * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)


KINDS = {
    kind.name: kind
    for kind in (
        # A categorical value of a vocabulary. Index 0 is the unknown value.
        Kind(
            "id",
            is_text=True,
            width=None,
            encode=_encode_id,
            look_up=_look_up_id,
            request=_request_text,
            embed=_embed_index,
            rows=lambda feature: len(feature.vocabulary) + 1,
            unknown=0,
            has_vocabulary=True,
            in_training=True,
            is_filter=True,
        ),
        # Open-ended text, hashed.
        Kind(
            "string",
            is_text=True,
            width="buckets",
            encode=_encode_string,
            look_up=_look_up_string,
            request=_request_text,
            embed=_embed_index,
            rows=lambda feature: feature.width,
            unknown=0,
            in_training=True,
            is_filter=True,
        ),
        # A number, normalised. A missing one is the mean.
        Kind(
            "number",
            is_text=False,
            width=None,
            encode=_encode_number,
            look_up=_look_up_number,
            request=_request_number,
            embed=_embed_number,
            in_training=True,
            has_quantiles=True,
        ),
        # Floats of the feature store.
        Kind(
            "vector",
            is_text=False,
            width="values",
            encode=None,
            look_up=lambda value, feature: value,
            request=_request_vector,
            embed=lambda value, table: value,
            tells_taste=True,
        ),
        # A list of values of a vocabulary. Index 0 is padding, 1 the unknown value.
        Kind(
            "set",
            is_text=True,
            width="values",
            encode=_encode_set,
            look_up=_look_up_list,
            request=_request_set,
            embed=_embed_list,
            rows=lambda feature: len(feature.vocabulary) + 2,
            unknown=1,
            has_vocabulary=True,
            tells_taste=True,
            is_filter=True,
        ),
        # The same in order of time, newest last.
        Kind(
            "sequence",
            is_text=True,
            width="values",
            encode=_encode_sequence,
            look_up=_look_up_list,
            request=_request_sequence,
            embed=_embed_list,
            rows=lambda feature: len(feature.vocabulary) + 2,
            unknown=1,
            has_vocabulary=True,
            tells_taste=True,
        ),
    )
}

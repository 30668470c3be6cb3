"""Which titles a request may be answered with: availability, seen titles, allow-lists, attributes; what is popular."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr.encoders.raw import lookup


def constant(layer: keras.layers.Layer, name: str, value: np.ndarray) -> keras.Variable:
    """A variable of a layer that keeps its value."""
    return layer.add_weight(
        shape=value.shape,
        initializer=lambda shape, dtype: value,
        trainable=False,
        dtype=value.dtype.name,
        name=name,
    )


class Catalogue(keras.layers.Layer):
    """Titles by their ids, where they are available, and what they are.

    An unknown territory gets the titles that are available in at least half of the territories, and what is popular in
    all of them together.

    Args:
        titles: Ids, a sequence of text.
        availability: `{territory: boolean array of shape (titles,)}`.
        attributes: `{attribute: one list of texts for each title}`, such as `{"genres": [["Comedy"], ...]}`.
        popularity: `{territory: array of shape (titles,)}`, how many users had each title; none by default.

    Call arguments:
        territory: Text tensor of shape `(batch,)`.
        seen: Text tensor of shape `(batch, n)`: titles that are left out; "" and unknown ids are ignored.
        allow: Text tensor of shape `(batch, n)` or `(1, n)`: only these titles; a row of "" allows all.
        where: Text tensor of shape `(batch, n)` or `(1, n)` of conditions, `"genres=Comedy"` or `"genres!=Horror"`; ""
            is none. A title must have one of the values that are asked for of every attribute, and none of the others.
            No title has a value that the catalogue does not know.

    Returns:
        Boolean tensor of shape `(batch, titles)`.

    Raises:
        ValueError: If the arguments do not have one entry for each title.
        tf.errors.InvalidArgumentError: If `where` names an attribute that titles do not have.
    """

    def __init__(
        self,
        titles: Sequence[str],
        availability: Mapping[str, np.ndarray],
        attributes: Mapping[str, Sequence[Sequence[str]]] | None = None,
        popularity: Mapping[str, np.ndarray] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})  # whatever the towers compute in
        titles, attributes = [str(title) for title in titles], attributes or {}
        if len(set(titles)) != len(titles):
            raise ValueError(
                f"`titles` must be different ids. Received: {len(titles)} ids ({len(set(titles))} different)"
            )
        for territory, mask in availability.items():
            if np.shape(mask) != (len(titles),):
                raise ValueError(
                    f"`availability` must have shape ({len(titles)},) for each territory. "
                    f"Received: {territory!r} with shape {np.shape(mask)}"
                )
        for attribute, values in attributes.items():
            if len(values) != len(titles):
                raise ValueError(
                    f"`attributes` must have one list of texts for each of {len(titles)} titles. Received: "
                    f"{attribute!r} with {len(values)}"
                )
        masks = np.asarray(list(availability.values()), bool).reshape(len(availability), len(titles))
        unknown = masks.mean(axis=0) >= 0.5 if len(masks) else np.ones(len(titles), bool)
        self.num_titles, self.attributes = len(titles), sorted(attributes)
        self.title_index = lookup(titles)
        self.title_id = lookup(titles, invert=True)
        self.territory_index = lookup(availability)
        self.attribute_index = lookup(self.attributes)
        values, codes = encode(self.attributes, attributes)
        self.value_index = lookup(values)
        self.available = constant(self, "available", np.vstack([unknown, masks]))
        self.codes = constant(self, "attributes", codes)
        popular = np.zeros((len(availability) + 1, len(titles)), "float16")
        popular[0] = np.log1p(sum((popularity or {}).values(), np.zeros(len(titles))))
        for row, territory in enumerate(availability, start=1):
            popular[row] = np.log1p((popularity or {}).get(territory, 0.0))
        self.popularity = constant(self, "popularity", popular)
        self.built = True

    def call(
        self, territory: tf.Tensor, seen: tf.Tensor, allow: tf.Tensor | None = None, where: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Allowed titles; see the class."""
        allowed = tf.gather(tf.convert_to_tensor(self.available), self.territory_index(territory))
        allowed = allowed & ~self.listed(seen, tf.shape(allowed)[0])  # pyright: ignore[reportOperatorIssue]
        if allow is not None:
            given = tf.reduce_any(allow != "", axis=1, keepdims=True)
            allowed = allowed & (self.listed(allow, tf.shape(allow)[0]) | ~given)
        return allowed if where is None else allowed & self.matching(where)

    def is_known(self, territory: tf.Tensor) -> tf.Tensor:
        """Which territories the catalogue knows, boolean of shape `(batch,)`."""
        return self.territory_index(territory) > 0

    def popular(self, territory: tf.Tensor) -> tf.Tensor:
        """Log popularity of all titles in each row's territory, float32 of shape `(batch, titles)`."""
        rows = tf.gather(tf.convert_to_tensor(self.popularity), self.territory_index(territory))
        return tf.cast(rows, tf.float32)

    def listed(self, ids: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Which titles a list of ids names, shape `(rows, titles)`."""
        index = self.title_index(ids) - 1
        cells = tf.where(index >= 0)  # (pairs, 2)
        cells = tf.stack([cells[:, 0], tf.gather_nd(index, cells)], axis=1)
        mask = tf.zeros([rows, self.num_titles], tf.bool)
        return tf.tensor_scatter_nd_update(mask, cells, tf.ones(tf.shape(cells)[:1], tf.bool))

    def matching(self, where: tf.Tensor) -> tf.Tensor:
        """Which titles fit the conditions, shape `(rows, titles)`."""
        is_negative = tf.strings.regex_full_match(where, "[^=]*!=.*")
        plain = tf.strings.regex_replace(where, "^([^=]*)!=", r"\1=")
        attribute = self.attribute_index(tf.strings.regex_replace(plain, "=.*", ""))  # 0 for none
        is_condition = tf.strings.regex_full_match(where, "[^=]+=.*") & (attribute > 0)
        is_understood = tf.reduce_all(is_condition | (where == ""))
        text = f"`where` must be attribute=value or attribute!=value, of the attributes {self.attributes}."
        with tf.control_dependencies([tf.debugging.Assert(is_understood, [text, where], summarize=20)]):
            value = tf.cast(self.value_index(plain), tf.int32) - 1  # -1 for one that no title has
        codes, rows = tf.convert_to_tensor(self.codes), tf.shape(where)[0]
        nothing = tf.zeros([rows, self.num_titles], tf.bool)

        def add(i: tf.Tensor, excluded: tf.Tensor, *found: tf.Tensor) -> tuple[tf.Tensor, ...]:
            value_asked = value[:, i][:, None]
            has = tf.zeros_like(nothing)
            for column in range(self.codes.shape[1]):  # no (batch, titles, values) at once
                has = has | ((codes[:, column][None, :] == value_asked) & (value_asked >= 0))
            negative, attribute_asked = is_negative[:, i][:, None], attribute[:, i][:, None]
            updated = [f | (has & (attribute_asked == a) & ~negative) for a, f in enumerate(found, start=1)]
            return i + 1, excluded | (has & negative & (attribute_asked > 0)), *updated

        start = (tf.constant(0), nothing, *(nothing for _ in self.attributes))
        _, excluded, *found = tf.while_loop(lambda i, *_: i < tf.shape(where)[1], add, start)
        fits = ~excluded
        for a, f in enumerate(found, start=1):
            is_asked = tf.reduce_any((attribute == a) & ~is_negative, axis=1, keepdims=True)
            fits = fits & (f | ~is_asked)
        return fits


def encode(names: Sequence[str], attributes: Mapping[str, Sequence[Sequence[str]]]) -> tuple[list[str], np.ndarray]:
    """Texts `"attribute=value"` and, for each title, their positions, padded with -1: shape `(titles, most values)`."""
    values, columns = [], []
    for name in names:
        texts = sorted({str(value) for row in attributes[name] for value in row})
        place = {text: len(values) + i for i, text in enumerate(texts)}
        values += [f"{name}={text}" for text in texts]
        rows = [[place[str(value)] for value in row] for row in attributes[name]]
        width = max(map(len, rows), default=0)
        columns.append(np.asarray([row + [-1] * (width - len(row)) for row in rows], "int32").reshape(len(rows), width))
    return values, np.concatenate(columns, axis=1) if columns else np.zeros((0, 0), "int32")

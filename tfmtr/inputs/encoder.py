"""Columns of examples as the numbers that a model takes: features, scenario, labels, weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.inputs.store_rows import stored_vectors
from tfmtr.kinds import KINDS, by_value, index
from tfmtr.names import SEPARATOR

if TYPE_CHECKING:
    from tfmtr.schema import Schema


class Encoder:
    """Encodes the features of tables that are no vectors, with the names, shapes and dtypes of `encode_inputs`.

    Vocabularies are made into what looks values up once; encode tables of many rows with one encoder. Text columns are
    faster as dictionaries: a value is then looked up once, however many rows have it.

    Args:
        schema: The `Schema`.

    Call arguments:
        table: Arrow table of examples (or of users or titles); features that have no column in it are left out.

    Returns:
        `{name: array}` of int32 or float32.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.vocabularies = {f.name: pa.array(f.vocabulary, pa.string()) for f in schema.features if f.vocabulary}
        keys = [SEPARATOR.join(values) for values in schema.scenario.groups]
        self.scenario_keys = pa.array(keys, pa.string())
        numbers = [schema.scenario.names.index(group) + 1 for group in schema.scenario.groups.values()]
        self.groups = np.asarray([0, *numbers], "int32")

    def __call__(self, table: pa.Table) -> dict[str, np.ndarray]:
        """Encodes a table."""
        features = [f for f in self.schema.features if not f.is_stored and f.name in table.column_names]
        none, arrays = pa.array([], pa.string()), {}
        for feature in features:
            with naming_column(feature.name):
                vocabulary = self.vocabularies.get(feature.name, none)
                column = table[feature.name].combine_chunks()
                arrays[feature.name] = KINDS[feature.kind].encode(column, feature, vocabulary)  # pyright: ignore[reportOptionalCall]
        if set(self.schema.scenario.columns) <= set(table.column_names):
            arrays["scenario"] = self._scenario(table)
        return arrays

    def _scenario(self, table: pa.Table) -> np.ndarray:
        """Scenario of every row: 0 where no group lists it."""
        columns = [table[column].combine_chunks() for column in self.schema.scenario.columns]
        if len(columns) == 1:
            places = by_value(columns[0], lambda values: index(pc.fill_null(values, ""), self.scenario_keys))
        else:
            columns = [pc.fill_null(column.cast(pa.string()), "") for column in columns]
            places = index(pc.binary_join_element_wise(*columns, SEPARATOR), self.scenario_keys)  # pyright: ignore[reportAttributeAccessIssue]
        return self.groups[places + 1]


def with_unknown_context(table: pa.Table, schema: Schema) -> pa.Table:
    """A table of users with what only a request has, of which nothing is known: nulls."""
    missing = [f.name for f in schema.by_role("context")] + list(schema.scenario.columns)
    for name in dict.fromkeys(missing):
        if name not in table.column_names:
            kind = next((f.kind for f in schema.features if f.name == name), "id")
            values = pa.nulls(len(table), pa.float64() if kind == "number" else pa.string())
            table = table.append_column(name, values)
    return table


def model_inputs(table: pa.Table, schema: Schema, stores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Encoded features of an Arrow table, vectors among them, as `encode_inputs` wants them.

    Args:
        table: Rows of the examples (or of the users or titles table).
        schema: The `Schema`; features whose role has no column in the table are left out.
        stores: `{role: VectorStore.vectors}`; row -1 of a store is the zero vector.

    Returns:
        `{name: array}` of int32 or float32.
    """
    return Encoder(schema)(table) | stored_vectors(table, schema, stores)


@contextlib.contextmanager
def naming_column(column: str) -> Iterator[None]:
    """Turns what Arrow says of a column's values into a `ValueError` that names the column."""
    try:
        yield
    except pa.ArrowException as error:
        raise ValueError(f"`{column}` must have values of one kind, that of the schema. Received: {error}") from None


def labels(table: pa.Table, schema: Schema) -> dict[str, np.ndarray]:
    """`{label column: float32 array of shape (rows,)}` with NaN where a label was not observed."""
    arrays = {}
    for task in schema.tasks:
        with naming_column(task.column):  # pyright: ignore[reportArgumentType]
            values = pc.fill_null(table[task.column].cast(pa.float32()), float("nan"))
            arrays[task.column] = values.to_numpy(zero_copy_only=False)
    return arrays


def row_weights(table: pa.Table, name: str) -> np.ndarray:
    """Weights of rows, float32 of shape `(rows,)`: a column's, 1 where it is null, as it is of sampled negatives.

    Raises:
        ValueError: If a weight is negative or not finite.
    """
    weights = pc.fill_null(table[name].cast(pa.float32()), 1.0).to_numpy(zero_copy_only=False)
    if (bad := weights[~(np.isfinite(weights) & (weights >= 0))]).size:
        raise ValueError(
            f"`row_weights` must name a number that is finite and never negative. Received: {name!r} with {bad[0]:g}"
        )
    return weights


def check_row_weights(files: Iterable[Path], name: str) -> None:
    """Raises a `ValueError` unless the weights of example files are finite, not negative and somewhere positive."""
    weights = [row_weights(pq.read_table(file, columns=[name], partitioning=None), name) for file in files]  # pyright: ignore[reportArgumentType]
    if not any(part.any() for part in weights):
        raise ValueError(
            f"`row_weights` must name a number that is somewhere positive, or nothing is learnt. Received: {name!r}, "
            "which is 0 in every row"
        )

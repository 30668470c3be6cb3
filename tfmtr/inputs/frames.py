"""What `fit` and `predict` are given at hand, checked and encoded: DataFrames, arrays, batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tfmtr.inputs.encoder import Encoder, labels, naming_column
from tfmtr.kinds import KINDS

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

    from tfmtr.schema import Feature, Schema


def encode_frame(frame: pd.DataFrame, schema: Schema) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features and labels of a pandas DataFrame, as `fit` and `predict` of a joint model take them.

    Args:
        frame: Columns as the log has them: text for ids, numbers, lists for sets, sequences and vectors; the scenario's
            columns; and the label columns that there are.
        schema: The `Schema`.

    Returns:
        `({name: array}, {label column: float32 array with NaN where it is null})`.

    Raises:
        ValueError: If a feature or a column of the scenario is missing, a vector has another width, or a value is not
            of its feature's kind or not finite.
    """
    lacking = sorted({*(f.name for f in schema.features), *schema.scenario.columns} - set(frame.columns))
    training = {feature.name for feature in schema.by_role("training")}
    if lacking := [name for name in lacking if name not in training]:
        raise ValueError(
            f"`frame` must have a column for every feature and for the scenario. Received: none for {lacking}"
        )
    if not len(frame):
        raise ValueError("`frame` must have a row. Received: none")
    if twice := sorted({str(name) for name in frame.columns[frame.columns.duplicated()]}):
        raise ValueError(f"`frame` must have each column once. Received more than once: {twice}")
    vectors = {f.name: _matrix(frame[f.name], f) for f in schema.features if f.is_stored}  # pyright: ignore[reportArgumentType]
    tasks = [task for task in schema.tasks if task.column in frame.columns]
    column_names = {f.name for f in schema.features} | {task.column for task in tasks} | set(schema.scenario.columns)
    columns = {}
    for name in [name for name in frame.columns if name in column_names - set(vectors)]:
        with naming_column(name):
            columns[name] = pa.array(frame[name], from_pandas=True)
    table = pa.table(columns)
    encoded = Encoder(schema)(table) | vectors
    for name, array in encoded.items():
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise ValueError(f"`{name}` must be finite or null. Received: NaN or infinity, as float32 of its scale")
    return encoded, labels(table, schema.replace(tasks=tasks)) if tasks else {}


def _matrix(column: pd.Series, feature: Feature) -> np.ndarray:
    """A column of lists as float32 of shape `(rows, width)`."""
    try:
        matrix = np.stack(column.tolist()).astype("float32")
    except (TypeError, ValueError) as error:  # null, or rows of different lengths
        raise ValueError(f"`{feature.name}` must have {feature.width} numbers in each row. Received: {error}") from None
    if matrix.shape[1:] != (feature.width,):
        raise ValueError(f"`{feature.name}` must have {feature.width} numbers in each row. Received: {matrix.shape}")
    return matrix


def as_arrays(x: Mapping[str, Any], y: Any, schema: Schema) -> tuple[Mapping[str, Any], dict[str, np.ndarray]]:
    """Encoded features as they are, and labels as float32 arrays, when a joint model can be fitted from them.

    Args:
        x: `{name: array}` as `encode_frame` makes it.
        y: `{label column: array of shape (rows,)}`, or a DataFrame with these columns.
        schema: The model's `Schema`.

    Returns:
        `(x, y)`.

    Raises:
        ValueError: If a feature or a label is missing, a feature is not encoded, a scenario is none of the schema's
            groups, a value is none of its vocabulary, there is no row, or not one of each for each of the others, or a
            label is not what its task can be.
    """
    names = [*(feature.name for feature in schema.features), "scenario"]
    x = {name: np.asarray(value) if isinstance(value, list | tuple) else value for name, value in x.items()}
    _check_encoded({name: np.asarray(x[name]).dtype.kind if name in x else "missing" for name in names})
    y, scenario = as_labels(y, schema), np.asarray(x["scenario"])
    if not len(scenario):
        raise ValueError("`x` must have a row. Received: none")
    given = {**{name: x[name] for name in names}, **{f"label {name}": y[name] for name in y}}
    if bad := {name: len(value) for name, value in given.items() if len(value) != len(scenario)}:
        raise ValueError(
            f"`x` and `y` must have one row for each of the {len(scenario)} of `scenario`. Received: {bad}"
        )
    for feature in schema.features:
        rows = KINDS[feature.kind].rows
        values = np.asarray(x[feature.name])
        if rows is not None and values.size and not 0 <= values.min() <= values.max() < rows(feature):
            raise ValueError(
                f"`{feature.name}` must have places in its vocabulary, from 0 to {rows(feature) - 1}, as "
                f"`tfmtr.inputs.encode_frame` makes them. Received: {values.min()} to {values.max()}"
            )
    if not 0 <= scenario.min() <= scenario.max() <= schema.scenario.num_groups:
        raise ValueError(
            f"`scenario` must be a group's number, from 0 to {schema.scenario.num_groups}; encode with the model's "
            f"schema, for a recipe with `groups` that is `recipe.adapt(schema)`. Received: {scenario.min()} to "
            f"{scenario.max()}"
        )
    return x, y


def _check_encoded(kinds: Mapping[str, str]) -> None:
    """Raises a `ValueError` unless features are there and are numbers, by the letters of their dtypes' kinds."""
    if bad := sorted(name for name, kind in kinds.items() if kind not in "biuf"):
        raise ValueError(
            "`x` must have encoded features, {name: array of numbers}, as `tfmtr.inputs.encode_frame` makes them; a "
            f"DataFrame may be given as it is. Received: {bad} missing or not encoded"
        )


def _kind_of(value: Any) -> str:
    return "dict" if isinstance(value, Mapping) else type(value).__name__


def as_batches(batches: tf.data.Dataset, schema: Schema) -> tf.data.Dataset:
    """Batches `(x, y)` or `(x, y, weights)`, of which a joint model can be fitted, with labels as float32.

    Args:
        batches: The dataset; its features are encoded as `encode_frame` does it.
        schema: The model's `Schema`.

    Raises:
        ValueError: If the items are no such batches, or a feature or a label is missing or no number.
    """
    import tensorflow as tf

    parts: Any = batches.element_spec
    if not isinstance(parts, tuple) or len(parts) not in (2, 3) or not isinstance(parts[0], Mapping):
        items = f"{len(parts)} item{'s' * (len(parts) != 1)}" if isinstance(parts, tuple) else f"a {_kind_of(parts)}"
        raise ValueError(
            "A dataset must have batches of (x, y) or (x, y, weights), where x and y are dictionaries by name. "
            f"Received: {items}"
        )
    x, y = parts[:2]
    names = [*(feature.name for feature in schema.features), "scenario"]
    _check_encoded({name: np.dtype(x[name].dtype.as_numpy_dtype).kind if name in x else "missing" for name in names})
    if bad := [name for name in names if x[name].shape.rank == 0]:
        raise ValueError(f"A dataset must have batches; `dataset.batch` makes them. Received: single rows of {bad}")
    columns = [task.column for task in schema.tasks]
    if not isinstance(y, Mapping) or not set(columns) <= set(y):
        raise ValueError(
            f"`y` must have the labels {columns} by name, {{column: array of shape (rows,)}}. Received: "
            f"{sorted(y) if isinstance(y, Mapping) else f'a {_kind_of(y)}'}"
        )
    for name in columns:
        if np.dtype(y[name].dtype.as_numpy_dtype).kind not in "biuf":
            raise ValueError(f"`{name}` must be a label, numbers or null. Received: {y[name].dtype.name}")
    if all(y[name].dtype == tf.float32 for name in columns):
        return batches

    def cast(x: Any, y: Mapping[str, tf.Tensor], *weights: Any) -> tuple[Any, ...]:
        return x, {**y, **{name: tf.cast(y[name], tf.float32) for name in columns}}, *weights

    return batches.map(cast)


def as_labels(y: Any, schema: Schema, index: pd.Index | None = None) -> dict[str, np.ndarray]:
    """`{label column: float32 array}` with NaN where a label was not observed, of a dictionary or a DataFrame.

    Args:
        y: `{label column: array of shape (rows,)}`, or a DataFrame with these columns.
        schema: The `Schema`.
        index: Index that columns of pandas must have.

    Raises:
        ValueError: If a label is missing, has another index, is no number, or is not what its task can be.
    """
    columns = [task.column for task in schema.tasks]
    if not hasattr(y, "keys") or not set(columns) <= set(y.keys()):
        given_names = sorted(map(str, y.keys())) if hasattr(y, "keys") else type(y).__name__
        raise ValueError(
            f"`y` must have the labels {columns} by name, {{column: array of shape (rows,)}}, or be in the DataFrame. "
            f"Received: {given_names}"
        )
    arrays = {}
    for task in schema.tasks:
        values = y[task.column]
        if hasattr(values, "iloc"):  # a column of pandas
            if index is not None and not values.index.equals(index):
                raise ValueError(
                    f"`y` must have the index of `x`, row by row. Received: {task.column!r} with another index"
                )
            values = values.to_numpy(na_value=float("nan"))
        try:
            array = np.asarray(values, "float32")
        except (TypeError, ValueError) as error:
            raise ValueError(f"`{task.column}` must be a label, numbers or null. Received: {error}") from None
        is_possible = np.isin(array, (0.0, 1.0)) if task.kind == "binary" else ~np.isinf(array)
        if (bad := array[~(is_possible | np.isnan(array))]).size:
            must = "0, 1 or null" if task.kind == "binary" else "finite or null"
            raise ValueError(
                f"`{task.column}` must be {must}, as the task is {task.kind}. Received: {bad[0]:g} in {bad.size} of "
                f"{array.size} rows"
            )
        arrays[task.column] = array
    return arrays

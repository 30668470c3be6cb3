"""Rows at hand, as arrays, DataFrames or batches: what a recipe means for them, and what Keras's `fit` takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tfmtr import inputs
from tfmtr.models import is_frame
from tfmtr.recipe import Recipe
from tfmtr.schema import Schema

SAMPLING = "sampling"  # column of prepared examples, read as one table, that says which users a row is of
RANDOM, ACTIVE = "random", "active"


def rows_at_hand(argument: str, rows: Any, schema: Schema, recipe: Recipe) -> Any:
    """Rows as Keras's `fit` takes them, weighted as a recipe says.

    Args:
        argument: Name of the argument that they are, for messages.
        rows: `(x, y)` or `(x, y, weights)` of encoded arrays; a DataFrame; or a `tf.data.Dataset` of such batches.
        schema: The `Schema`, as the recipe has adapted it.
        recipe: The `Recipe`.

    Returns:
        The rows as they are; of a DataFrame `(x, y)`, or `(x, y, weights)` where the recipe has `row_weights`.

    Raises:
        ValueError: If the recipe weights rows and these have no weights, or weights are not one for each row, finite,
            never negative and somewhere positive.
    """
    name = recipe.row_weights
    if is_frame(rows):
        if name is None:
            return inputs.encode_frame(rows, schema)
        if name not in rows.columns:
            raise ValueError(
                f"`{argument}` must have the column by which the recipe's `row_weights` counts rows. Received: a "
                f"DataFrame without {name!r}"
            )
        weights = inputs.row_weights(pa.Table.from_pandas(rows[[name]], preserve_index=False), name)
        return (*inputs.encode_frame(rows, schema), weights)
    if isinstance(rows, tuple) and len(rows) == 3 and isinstance(rows[0], Mapping) and rows[2] is not None:
        _check_weights(argument, rows[0], rows[2])
    parts = rows if isinstance(rows, tuple) else getattr(rows, "element_spec", ())
    if name is not None and len(parts) != 3:
        raise ValueError(
            f"`{argument}` must have the weights of its rows as a third item, (x, y, weights), or be a DataFrame, "
            "where the recipe has `row_weights`: numbers among the features are standardised. Received: "
            f"row_weights={name!r} and {len(parts)} items"
        )
    return rows


def _check_weights(argument: str, x: Mapping[str, Any], weights: Any) -> None:
    """Raises a `ValueError` unless there is a weight for each row, finite, never negative and somewhere positive."""
    rows = len(x["scenario"]) if "scenario" in x else None  # which is missed later, by name
    try:
        numbers = np.asarray(weights, "float32")
        is_column = not isinstance(weights, Mapping) and rows in (None, *numbers.shape) and numbers.ndim == 1
        received = f"weights of shape {numbers.shape}"
    except (TypeError, ValueError):
        numbers, is_column, received = np.zeros(0), False, f"a {type(weights).__name__}"
    if not is_column:
        raise ValueError(f"`{argument}` must have a weight for each of its {rows} rows. Received: {received}")
    bad = numbers[~(np.isfinite(numbers) & (numbers >= 0))]
    if bad.size or not numbers.any():
        raise ValueError(
            f"The weights of `{argument}` must be finite, never negative and somewhere positive. Received: "
            f"{f'{bad.size} rows with {bad[0]:g}' if bad.size else 'zeros only'}"
        )


def chosen_by_sampling(rows: Any, recipe: Recipe) -> Any:
    """The training rows that a recipe wants: without `upsample` those of active users are left out.

    Raises:
        ValueError: If they are to be left out, and nothing says which they are.
    """
    if recipe.upsample:
        return rows
    has_column = is_frame(rows) and SAMPLING in rows.columns
    if not has_column or not set(rows[SAMPLING]) <= {RANDOM, ACTIVE}:
        raise ValueError(
            "`upsample=False` leaves out the rows of active users, so `train` must be a DataFrame that tells them "
            f"apart by a column `{SAMPLING}` of {RANDOM!r} and {ACTIVE!r}, as prepared examples have; otherwise leave "
            "`upsample` out and give the rows to train on. Received: upsample=False and rows without"
        )
    return rows[rows[SAMPLING] == RANDOM]

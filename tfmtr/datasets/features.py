"""Extra columns of the users and titles tables as features, by their type."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import numpy as np

from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.names import inside, outside
from tfmtr.datasets.report import counted
from tfmtr.kinds import KINDS
from tfmtr.schema import Feature

MAX_VOCABULARY = 10_000
MAX_SET = 32
MOST_NAMES = 5  # of features in a warning
LARGEST = float(np.finfo("float32").max)
WHOLE = 2**24  # whole numbers up to it are exact in float32


def column_kind(dtype: dt.DataType) -> Literal["id", "number", "set", "vector"] | None:
    """What a column of this Ibis type becomes: `"id"`, `"number"`, `"set"`, `"vector"` or `None` (nothing).

    Text and booleans are categories, integers are numbers (cast codes to text), lists of text are sets,
    lists of floats vectors. Times, structs and the like are no features.
    """
    if dtype.is_string() or dtype.is_boolean() or dtype.is_uuid():
        return "id"
    if dtype.is_numeric():
        return "number"
    if dtype.is_array() and dtype.value_type.is_string():
        return "set"
    if dtype.is_array() and dtype.value_type.is_floating():
        return "vector"
    return None


def column_kinds(table: ibis.Table, keys: Collection[str]) -> dict[str, str | None]:
    """`{name: kind}` of the columns that a user brings; `keys` are the table's ids and the like."""
    return {outside(name): column_kind(table[name].type()) for name in table.columns if name not in keys}


def check_drift(kinds: Mapping[str, Mapping[str, str]], before: Mapping[str, Mapping[str, str]]) -> None:
    """Raises a `ValueError` unless the tables have the features of the data that they continue.

    Args:
        kinds: `{argument: {column: kind}}`.
        before: The same of the earlier data.
    """
    for argument, found in kinds.items():
        expected = before[argument]
        drift = {
            "lost": {name: kind for name, kind in expected.items() if name not in found},
            "added": {name: kind for name, kind in found.items() if name not in expected},
            "changed": {
                name: f"{expected[name]} to {kind}" for name, kind in found.items() if expected.get(name, kind) != kind
            },
        }
        if any(drift.values()):
            raise ValueError(
                f"`{argument}` must have the columns, of the same kinds, of the data that these continue; bring back "
                "what is lost or changed and drop what is added, or prepare and train anew. Received: "
                f"{', '.join(f'{what} {names}' for what, names in drift.items() if names)}"
            )


def check_widths(features: Iterable[Feature], before: Iterable[Feature]) -> None:
    """Raises a `ValueError` unless the vectors among the features are as wide as in the data that they continue."""
    widths = {feature.name: feature.width for feature in before if KINDS[feature.kind].has_fixed_width}
    for feature in features:
        if KINDS[feature.kind].has_fixed_width and widths.get(feature.name) != feature.width:
            raise ValueError(
                f"`{feature.name}` must be as wide as in the data that these continue: {widths.get(feature.name)}; "
                f"bring back the stores and vector columns, or prepare and train anew. Received: {feature.width}"
            )


def find_features(
    engine: Engine, table: ibis.Table, role: Literal["user", "title", "training", "context"], names: Iterable[str]
) -> list[Feature]:
    """Features of the named columns.

    Args:
        engine: An `Engine`.
        table: Rows that vocabularies and means are taken from, with the names that columns have inside.
        role: Role of the features.
        names: The features' names, columns of the kinds `"id"`, `"number"` and `"set"`.

    Returns:
        List of `Feature`.
    """
    features, kinds = [], {name: column_kind(table[inside(name)].type()) for name in names}
    moments = number_moments(engine, table, [inside(name) for name, kind in kinds.items() if kind == "number"])
    for name, kind in kinds.items():
        column = table[inside(name)]
        if kind == "number":
            mean, std = moments[inside(name)]
            features.append(Feature(name, role, kind, mean=mean, std=std))
        elif kind == "id":
            values = vocabulary(engine, table.select(value=column.cast("string")), MAX_VOCABULARY)
            features.append(Feature(name, role, kind, values))
        else:
            longest = engine.execute(column.length().max())
            width = min(MAX_SET, max(1, 0 if longest != longest or longest is None else int(longest)))
            values = vocabulary(engine, table.select(value=column.unnest()), MAX_VOCABULARY)
            features.append(Feature(name, role, "set", values, width=width))
    return features


def is_finite(value: ir.Value) -> ir.BooleanValue:
    """Whether a float is neither infinite nor NaN, which is the largest number for every engine; null for null.

    Not by `isinf` and `notnull`: Ibis compiles the one to false for Spark, and the other to false for NaN.
    """
    return value.abs() < math.inf


def fits(value: ir.Value) -> ir.BooleanValue:
    """Whether a float is a finite float32, which examples are written in; null for null."""
    return value.abs() <= LARGEST


def count_changed(engine: Engine, table: ibis.Table, names: Sequence[str]) -> list[str]:
    """Warnings about numbers that the examples cannot have as they are.

    Args:
        engine: An `Engine`.
        table: Rows, with the names that columns have inside.
        names: Names of features or labels that are numbers.

    Returns:
        List of text: of infinite values and those that are too large, which count as missing, and of whole numbers that
        float32 rounds.
    """
    if not names:
        return []
    values = {name: table[inside(name)].cast("float64") for name in names}
    # One short look first: what is no larger than `WHOLE` stays as it is. NaN is the largest number for every engine.
    found = engine.rows(table.aggregate(**{inside(name): value.abs().max() for name, value in values.items()}))[0]
    names = [name for name in names if found[inside(name)] is not None and not found[inside(name)] <= WHOLE]
    counts = {}
    for place, name in enumerate(names):
        value = values[name]
        known = fits(value).ifelse(value, None)
        is_whole = (known == known.floor()) & (known.abs() > WHOLE)
        counts[f"lost_{place}"] = ((value > LARGEST) | (value < -LARGEST)).sum() - value.isnan().sum()
        counts[f"rounded_{place}"] = (is_whole & (known.cast("float32").cast("float64") != known)).sum()
    found = engine.rows(table.aggregate(**counts))[0] if counts else {}
    texts = {"lost": "are infinite or too large and count as missing", "rounded": "were rounded to float32"}
    return [
        counted(found[f"{what}_{place}"], f"values of {name!r} {text}")
        for place, name in enumerate(names)
        for what, text in texts.items()
        if found[f"{what}_{place}"]
    ]


def count_missing(engine: Engine, table: ibis.Table, argument: str, names: Sequence[str]) -> list[str]:
    """A warning about numbers that rows of a table lack, or that no float32 can be.

    Args:
        engine: An `Engine`.
        table: Rows, with the names that columns have inside.
        argument: What the table is called in messages.
        names: Names of features that are numbers.

    Returns:
        List of one text with the features that lack most, or an empty list.
    """
    if not names:
        return []
    known = {inside(name): fits(table[inside(name)].cast("float64")).ifelse(1, None).count() for name in names}
    found = engine.rows(table.aggregate(rows=table.count(), **known))[0]
    lacking = [(name, found["rows"] - found[inside(name)]) for name in names]
    lacking = sorted((pair for pair in lacking if pair[1]), key=lambda pair: -pair[1])
    counts = ", ".join(f"{name!r} in {count}" for name, count in lacking[:MOST_NAMES])
    others = f", and {counted(len(lacking) - MOST_NAMES, 'others')}" if lacking[MOST_NAMES:] else ""
    what = f"numbers are missing, for which a model takes the mean: of {found['rows']} {argument}"
    return [f"{what}, {counts}{others}"] if lacking else []


def number_moments(engine: Engine, table: ibis.Table, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """`{name: (mean, standard deviation)}` of the columns' finite values, to nine digits; 0 and 1 where are none."""
    sums = {}
    for place, name in enumerate(names):
        value = table[name].cast("float64")
        known = fits(value).ifelse(value, None)
        sums |= {f"mean_{place}": known.mean(), f"std_{place}": known.std(how="pop")}
    row = engine.rows(table.aggregate(**sums))[0] if sums else {}
    # Nine digits: parallel sums of floats differ in the last ones from run to run.
    row = {name: float(f"{value or 0.0:.9g}") for name, value in row.items()}
    found = {name: (row[f"mean_{place}"], row[f"std_{place}"]) for place, name in enumerate(names)}
    return {name: (mean, std if std > 0 else 1.0) for name, (mean, std) in found.items()}


def is_value(text: ir.Value) -> ir.BooleanValue:
    """Whether a text is a value of a vocabulary: neither null nor empty."""
    return text.notnull() & (text != "")


def vocabulary(engine: Engine, values: ibis.Table, most: int) -> list[str]:
    """The most frequent values of the column `value`, ties in order of the text; null and empty text left out."""
    counts = values.filter(is_value(values.value)).group_by("value").aggregate(rows=lambda t: t.count())
    counts = counts.order_by(counts.rows.desc(), counts.value).limit(most)
    return engine.to_pyarrow(counts)["value"].to_pylist()


def as_feature(table: ibis.Table, feature: Feature) -> ir.Value:
    """The column as it is written, with its own name.

    Null text is empty, and so is a null set. A number that is null, infinite or too large for float32 is null: who
    reads it puts the mean of a model's schema in its place, whatever the mean of these data is.
    """
    column = table[inside(feature.name)]
    if feature.kind == "number":
        value = column.cast("float64")
        return fits(value).ifelse(value, ibis.null("float64")).cast("float32").name(feature.name)
    if feature.kind == "id":
        return column.cast("string").fill_null("").name(feature.name)
    return column.fill_null(ibis.literal([], "array<string>")).name(feature.name)

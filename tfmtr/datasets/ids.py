"""Ids of users and titles as text, the same whatever type a table keeps them in."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import unicodedata
from collections.abc import Collection, Mapping
from typing import NoReturn

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from tfmtr.datasets.column_types import WHOLE
from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.features import is_finite

SAMPLE = 500  # ids that are looked at for what they differ in
CHANGES = (  # what ids may differ in, and how it is undone
    ("Unicode normalisation (NFC)", lambda text: unicodedata.normalize("NFC", text)),
    ("Unicode normalisation (NFD)", lambda text: unicodedata.normalize("NFD", text)),
    ("blanks around them", str.strip),
    ("upper and lower case", str.lower),
    ("upper and lower case", str.upper),
    ("leading zeros", lambda text: text.lstrip("0") or "0"),
    ("a trailing .0", lambda text: text.removesuffix(".0")),
)


def as_id(engine: Engine, table: ibis.Table, argument: str, column: str) -> ir.Value:
    """The column as text, null where it is empty: a number that is whole is the same id as an integer or a float.

    Args:
        engine: An `Engine`.
        table: Ibis table.
        argument: What the table is called in messages.
        column: Name of the column.

    Raises:
        ValueError: If it holds lists, times or other values that name nothing, or numbers that are not whole or, as
            floats, too large to be exact.
    """
    value, dtype = table[column], table[column].type()
    if dtype.is_string():
        return value.nullif("")
    if dtype.is_integer() or dtype.is_uuid() or dtype.is_null():
        return value.cast("string")
    if not (dtype.is_floating() or dtype.is_decimal()):
        raise ValueError(
            f"Column {column!r} of `{argument}` must be text or a number; write it as text. Received: {dtype}"
        )
    if dtype.is_decimal():
        whole, wide = value.cast("decimal(38, 0)"), f"decimal(38, {dtype.scale})"
        is_id, text = value.cast(wide) == whole.cast(wide), whole.cast("string")
    else:
        bound = {16: 2**11, 32: 2**24}.get(8 * dtype.nbytes, WHOLE)  # up to which the type has every whole number
        value = is_finite(value.cast("float64")).ifelse(value.cast("float64"), None)  # NaN is how pandas writes a null
        is_id = (value == value.floor()) & (value.abs() < bound)
        text = is_id.ifelse(value, None).cast("int64").cast("string")
    bad = table.filter(~is_id).select(id=table[column])
    count = engine.execute(bad.count())
    if count:
        first = [row["id"] for row in engine.rows(bad.distinct().order_by("id").limit(3))]
        raise ValueError(
            f"Column {column!r} of `{argument}` must be ids or names: text, or numbers that are whole and, where a "
            "null has made them floats, exact there (below 2**53, float32 2**24); write others as text. Received: "
            f"{count} others, first {first} ({dtype})"
        )
    return text


def refuse_mismatch(
    engine: Engine,
    tables: Mapping[str, ibis.Table],
    key: str,
    dtypes: Mapping[str, dt.DataType | None],  # pyright: ignore[reportGeneralTypeIssues]
) -> NoReturn:
    """Raises a `ValueError` that shows ids of two tables: none of the first has one that the second has.

    Args:
        engine: An `Engine`.
        tables: `{argument: table with a column key}`: the one that is wrong, and the one whose ids it must have.
        key: `"user"`, `"title"` or `"territory"`.
        dtypes: `{argument: type of the ids as they came}` of both, for the message.
    """
    (argument, strangers), (owner, table) = tables.items()
    changes = differences(engine, strangers, table, key)
    hint = f" They would match but for {changes}." if changes else ""
    ids = {name: _sample(engine, table, key)[:3] for name, table in tables.items()}
    shown = ", ".join(f"{name} {some} ({dtypes[name]})" for name, some in ids.items())
    keys = key.replace("territory", "territorie") + "s"
    raise ValueError(
        f"`{argument}` must have {keys} of the {owner} table: write the ids alike in both, or map another column."
        f"{hint} Received: none that match, {shown}"
    )


def differences(engine: Engine, strangers: ibis.Table, table: ibis.Table, key: str) -> str:
    """What ids that a table does not have, but would have, differ in from its own, as text; empty if in nothing known.

    Args:
        engine: An `Engine`.
        strangers: Table with a column `key`: rows whose ids the other table does not have.
        table: The other table.
        key: Name of the column.
    """
    found = {
        *would_match(engine, _sample(engine, strangers, key), table, key),
        *would_match(engine, _sample(engine, table, key), strangers, key),
    }
    return ", or ".join(sorted(found))


def would_match(engine: Engine, ids: Collection[str], table: ibis.Table, key: str) -> list[str]:
    """What ids differ in from those of a table: names of `CHANGES` that make one of them the same.

    Args:
        engine: An `Engine`.
        ids: List of text.
        table: Table with a column `key`.
        key: Name of the column.
    """
    forms = [(name, {change(text) for text in ids} - set(ids)) for name, change in CHANGES]
    wanted = sorted(set().union(*(changed for _, changed in forms)))
    if not wanted:
        return []
    found = {row[key] for row in engine.rows(table.filter(table[key].isin(wanted)).select(key).distinct())}
    return [name for name, changed in forms if changed & found]


def _sample(engine: Engine, table: ibis.Table, key: str) -> list[str]:
    rows = table.filter(table[key].notnull()).select(key).distinct().order_by(key).limit(SAMPLE)
    return [row[key] for row in engine.rows(rows)]

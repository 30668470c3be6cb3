"""One type for each column of a table, whatever its files say: a common one that loses nothing, or an error.

Example:
>>> common_type(pa.int32(), pa.float64()), common_type(pa.date32(), pa.timestamp("ms"))
(DataType(double), TimestampType(timestamp[us]))
>>> common_type(pa.int8(), pa.string()) is None
True
"""

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WHOLE = 2**53  # whole numbers up to it are exact in float64
EXACT_DIGITS = 15  # decimal digits that are exact in float64
MAX_DIGITS = 38  # of a decimal128
TIME = pa.timestamp("us")
INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}  # of the largest integer of so many bits


def plain(dtype: pa.DataType) -> pa.DataType:
    """The type without what says only how values are stored: dictionaries, views and large offsets.

    >>> plain(pa.dictionary(pa.int8(), pa.large_string()))
    DataType(string)
    """
    if isinstance(dtype, pa.BaseExtensionType):
        return dtype
    if pa.types.is_dictionary(dtype):
        return plain(dtype.value_type)
    if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return pa.string()
    if pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype):
        return pa.binary()
    if pa.types.is_date(dtype):
        return pa.date32()
    if pa.types.is_decimal(dtype) and dtype.precision <= MAX_DIGITS:
        return pa.decimal128(dtype.precision, dtype.scale)
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype):
        return pa.list_(plain(dtype.value_type))
    return dtype


def common_type(one: pa.DataType, two: pa.DataType, *, is_id: bool = False) -> pa.DataType | None:
    """The type that holds all values of two types exactly, or `None`.

    Whole numbers of 64 bits and floats have `float64`, if the numbers are no larger than `WHOLE`, which the caller must
    see to; see `needs_bound`.

    Args:
        one: Arrow type, as `plain` gives it.
        two: The other one.
        is_id: Whether the values are ids, which may be numbers in one file and text in another.
    """
    kinds = pa.types
    if one == two or kinds.is_null(two):
        return one
    if kinds.is_null(one):
        return two
    if kinds.is_list(one) and kinds.is_list(two):
        inner = common_type(one.value_type, two.value_type)
        return None if inner is None else pa.list_(inner)
    if _is_time(one) and _is_time(two):
        return TIME
    if is_id and {kinds.is_string(one), kinds.is_string(two)} == {True, False}:
        other = two if kinds.is_string(one) else one
        return pa.string() if kinds.is_integer(other) else None
    if not (_is_number(one) and _is_number(two)):
        return None
    if kinds.is_boolean(one) or kinds.is_boolean(two):
        other = two if kinds.is_boolean(one) else one
        return other if kinds.is_integer(other) else None
    if kinds.is_floating(one) and kinds.is_floating(two):
        return one if one.bit_width >= two.bit_width else two
    if kinds.is_floating(one) or kinds.is_floating(two):
        exact = two if kinds.is_floating(one) else one
        return pa.float64() if kinds.is_integer(exact) or exact.precision <= EXACT_DIGITS else None
    if kinds.is_integer(one) and kinds.is_integer(two):
        return _common_integer(one, two)
    whole, scale = (max(values) for values in zip(_digits(one), _digits(two), strict=True))
    return pa.decimal128(whole + scale, scale) if whole + scale <= MAX_DIGITS else None


def needs_bound(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether numbers of `source` are exact as `target` only up to `WHOLE`."""
    return pa.types.is_floating(target) and pa.types.is_integer(source) and source.bit_width == 64


def _is_time(dtype: pa.DataType) -> bool:
    return pa.types.is_date(dtype) or pa.types.is_timestamp(dtype)


def _is_number(dtype: pa.DataType) -> bool:
    kinds = pa.types
    return kinds.is_integer(dtype) or kinds.is_floating(dtype) or kinds.is_decimal(dtype) or kinds.is_boolean(dtype)


def _common_integer(one: pa.DataType, two: pa.DataType) -> pa.DataType:
    signed = [pa.types.is_signed_integer(dtype) for dtype in (one, two)]
    if signed[0] == signed[1]:
        return one if one.bit_width >= two.bit_width else two
    unsigned, other = (two, one) if signed[0] else (one, two)
    if other.bit_width > unsigned.bit_width:
        return other
    wider = [dtype for dtype in INTEGERS if dtype.bit_width > unsigned.bit_width]
    return wider[0] if wider else pa.decimal128(DIGITS[64], 0)


def _digits(dtype: pa.DataType) -> tuple[int, int]:
    """Digits before and after the point."""
    if pa.types.is_decimal(dtype):
        return dtype.precision - dtype.scale, dtype.scale
    return DIGITS[dtype.bit_width], 0


def unify(
    files: Sequence[Path], argument: str, *, ids: Collection[str] = ()
) -> tuple[dict[str, pa.DataType], list[tuple[dict[str, pa.DataType], list[Path]]]]:
    """Opens Parquet files and decides one type for each of their columns.

    Columns that hold only nulls, and files without rows, decide nothing.

    Args:
        files: Paths.
        argument: What the table is called in messages.
        ids: Columns that are ids.

    Returns:
        `(types, parts)`: `{column: Arrow type}`, the null type where all files hold nothing else; and the files that
        have rows (all, if none has) by their own types, `[({column: Arrow type}, [paths])]`.

    Raises:
        ValueError: If a file is damaged, has decimals that no engine holds, has other columns, has a column twice or in
            two spellings that differ in case only, or if a column's types have no common one.
    """
    parts, empty = {}, []
    for file in files:
        with naming(file, argument), pq.ParquetFile(file) as opened:
            schema, rows = opened.schema_arrow, opened.metadata.num_rows
        check_spelling(schema.names, argument, file)
        for field in schema:
            if pa.types.is_decimal(field.type) and field.type.precision > MAX_DIGITS:
                raise ValueError(
                    f"`{argument}` must have no decimals of more than {MAX_DIGITS} digits; write the column as text, "
                    f"or with fewer. Received: column {field.name!r} is {field.type} in {file}"
                )
        own = tuple((field.name, plain(field.type)) for field in schema)
        (parts.setdefault(own, []) if rows else empty).append(file)
    parts = parts or {tuple((field.name, plain(field.type)) for field in pq.read_schema(empty[0])): empty[:1]}
    (first, (file, *_)), *others = parts.items()
    types, origin = dict(first), dict.fromkeys(dict(first), file)
    for own, (other, *_) in others:
        if names := {name for name, _ in own} ^ set(types):
            raise ValueError(
                f"`{argument}` must have the same columns in every file. Received: {other} differs from {file} in "
                f"{sorted(names)}"
            )
        for name, dtype in own:
            common = common_type(types[name], dtype, is_id=name in ids)
            if common is None:
                raise ValueError(
                    f"`{argument}` must have one type for each column; write the column alike in all files. Received: "
                    f"column {name!r} is {types[name]} in {origin[name]} and {dtype} in {other}"
                )
            if common != types[name]:
                types[name], origin[name] = common, other
    return types, [(dict(own), paths) for own, paths in parts.items()]


@contextlib.contextmanager
def naming(file: Path, argument: str) -> Iterator[None]:
    """Makes Arrow's error about a Parquet file a `ValueError` that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"`{argument}` must be complete Parquet files; copy or write the file again. Received: {file}: {error}"
        ) from error


def check_pages(file: Path, argument: str) -> None:
    """Reads a Parquet file to its end; raises a `ValueError` that names it if a part between its ends is damaged."""
    with naming(file, argument), pq.ParquetFile(file) as opened:
        for _ in opened.iter_batches():
            pass


def header_hint(names: Iterable[str]) -> str:
    """What to say of names one of which is a number or a date, as where a CSV file has no header; empty otherwise.

    >>> header_hint(["u1", "2024-03-01 10:00:00"]), header_hint(["user", "2nd"])
    (" The names look like values: a CSV file must begin with a line of its columns' names.", '')
    """
    is_value = any(re.fullmatch(r"-?\d+([.]\d*)?|\d{4}-\d\d-\d\d([ T].*)?", name) for name in names)
    return " The names look like values: a CSV file must begin with a line of its columns' names." if is_value else ""


def check_spelling(names: Iterable[str], argument: str, file: Path) -> None:
    """Raises a `ValueError` if two of the names are the same, or differ in case only: engines take them for one."""
    seen = {}
    for name in names:
        if not name:
            raise ValueError(f"`{argument}` must have names for all columns. Received: one without, in {file}")
        if name.casefold() in seen:
            raise ValueError(
                f"`{argument}` must have columns whose names differ in more than case; rename one of them."
                f"{header_hint([name])} Received: {seen[name.casefold()]!r} and {name!r} in {file}"
            )
        seen[name.casefold()] = name

"""The JSON body of a REST predict response: floats as short as they round-trip, layout as TF Serving prints it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfmtr.serving.errors import invalid_argument

if TYPE_CHECKING:
    import tensorflow as tf


INDENT = "    "
SPECIAL_FLOATS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def type_name(dtype: np.dtype | tf.DType) -> str:
    """C++'s name of a dtype, which error texts use.

    Example:
    >>> [type_name(np.dtype(name)) for name in ("float32", "float64", "float16", "int64")]
    ['float', 'double', 'half', 'int64']
    """
    return {"float32": "float", "float64": "double", "float16": "half"}.get(dtype.name, dtype.name)


def format_floats(array: np.ndarray) -> list[str]:
    """Each float of an array in 6 digits if they round-trip in its dtype, else in 9 (float32) or 17 (float64).

    Example:
    >>> format_floats(np.array([3, 0.3, 9e6, 1 / 3, -np.inf], "float32"))
    ['3.0', '0.3', '9e+06', '0.333333343', '-Infinity']
    """
    values = array.ravel().tolist()
    texts = ["%g" % value for value in values]  # noqa: UP031
    with np.errstate(over="ignore"):
        is_exact = np.array([float(text) for text in texts], array.dtype) == array.ravel()
    precise = "%.9g" if array.dtype == np.float32 else "%.17g"
    for index in np.flatnonzero(~is_exact).tolist():
        texts[index] = precise % values[index]
    return [SPECIAL_FLOATS.get(text) or (text if "." in text or "e" in text else text + ".0") for text in texts]


def format_leaves(alias: str, array: np.ndarray, indent: str) -> list[str]:
    """Every value of an array as JSON text, in C order.

    Args:
        alias: Name of the output. Strings of an output whose name ends in `_bytes` are base64 objects.
        array: Array or scalar.
        indent: Indentation of the value's line, for these objects.

    Raises:
        ServerError: INVALID_ARGUMENT for a dtype that JSON cannot carry.
    """
    values = array.ravel()
    if array.dtype == object:
        if alias.endswith("_bytes"):
            inner = f'{{\n{indent}{INDENT}"b64": "%s"\n{indent}}}'
            return [inner % base64.b64encode(value).decode() for value in values]
        # Bytes that are no UTF-8 travel as lone surrogates and leave the server as they were.
        return [json.dumps(v.decode(errors="surrogateescape"), ensure_ascii=False) for v in values]
    if array.dtype in (np.float32, np.float64):
        return format_floats(values)
    if array.dtype == bool:
        return ["true" if value else "false" for value in values]
    if array.dtype.kind in "iu" and array.dtype != np.uint16:
        return list(map(str, values.tolist()))
    raise invalid_argument(f"Failed to write JSON value for tensor type: {type_name(array.dtype)}")


def _nest(leaves: Sequence[str], shape: Sequence[int], indent: str, is_single_line: bool) -> str:
    """Brackets around `leaves` (consumed in order) by `shape`."""
    if not shape:
        return leaves[0]
    size = len(leaves) // shape[0] if shape[0] else 0
    items = [
        _nest(leaves[i * size : (i + 1) * size], shape[1:], indent + INDENT, is_single_line) for i in range(shape[0])
    ]
    if is_single_line or not items:
        return "[" + ", ".join(items) + "]"
    return f"[\n{indent}{INDENT}" + f",\n{indent}{INDENT}".join(items) + f"\n{indent}]"


def write_columns(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The response to `inputs`: `{"outputs": ...}`, the bare value if there is one output.

    Args:
        arrays: `{alias: array}`.

    Returns:
        Bytes.
    """
    indent = INDENT if len(arrays) == 1 else INDENT * 2
    texts = {
        alias: _nest(format_leaves(alias, array, indent + INDENT * array.ndim), array.shape, indent, False)
        for alias, array in arrays.items()
    }
    return _finish("outputs", next(iter(texts.values())) if len(texts) == 1 else _object(texts, INDENT))


def write_rows(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The response to `instances`: `{"predictions": [...]}`, one value or object an instance.

    Args:
        arrays: `{alias: array}`, all with the same first dimension.

    Returns:
        Bytes.

    Raises:
        ServerError: INVALID_ARGUMENT for a scalar output or different first dimensions.
    """
    num_rows = None
    for alias, array in arrays.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {alias} has no shape information ")
        num_rows = len(array) if num_rows is None else num_rows
        if len(array) != num_rows:
            raise invalid_argument(
                f"Tensor name: {alias} has inconsistent batch size: {len(array)} expecting: {num_rows}"
            )
    num_rows, is_plain = num_rows or 0, len(arrays) == 1
    columns = {}
    for alias, array in arrays.items():
        depth = 1 + array.ndim if is_plain else 2 + array.ndim
        leaves = format_leaves(alias, array, INDENT * depth)
        size = len(leaves) // max(1, num_rows)
        columns[alias] = [_nest(leaves[i * size : (i + 1) * size], array.shape[1:], "", True) for i in range(num_rows)]
    if not num_rows:
        return _finish("predictions", "[]")
    if is_plain:
        return write_list("predictions", next(iter(columns.values())))
    rows = [_object(dict(zip(columns, row, strict=True)), INDENT * 2) for row in zip(*columns.values(), strict=True)]
    separator = f"\n{INDENT * 2}"
    return _finish("predictions", f"[{separator}" + f",{separator}".join(rows) + f"\n{INDENT}]")


def write_list(key: str, texts: Iterable[str]) -> bytes:
    """The body of a list whose items are JSON text already."""
    return _finish(key, "[" + ", ".join(texts) + f"\n{INDENT}]")


def write_error(message: str | None) -> bytes:
    """The body of every failure: `{"error": message}`."""
    return _finish("error", json.dumps(message, ensure_ascii=False))


def _object(texts: Mapping[str, str], indent: str) -> str:
    members = f",\n{indent}{INDENT}".join(f"{json.dumps(k, ensure_ascii=False)}: {v}" for k, v in texts.items())
    return f"{{\n{indent}{INDENT}{members}\n{indent}}}"


def _finish(key: str, text: str) -> bytes:
    return f'{{\n{INDENT}"{key}": {text}\n}}'.encode(errors="surrogateescape")

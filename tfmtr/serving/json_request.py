"""The JSON body of a REST predict request, as rows or columns, to one array an input.

The parser is RapidJSON, the one that TF Serving uses, so syntax errors have its words and offsets; what is nested
deeper than Python's recursion limit, or not UTF-8, is read by one of our own. Bytes that are no UTF-8 travel through
Python's strings as lone surrogates.
"""

import base64
import binascii
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
import numpy as np
import rapidjson
import tensorflow as tf

from tfmtr.serving.errors import ServerError, invalid_argument
from tfmtr.serving.json_response import format_floats, type_name

MAX_VALUE_BYTES = 256
PART_BYTES = 2**16
MAX_RANK = 64  # of NumPy; TensorFlow has 254
INTEGER_RANGES = {  # TF Serving checks the small types as int32 and then keeps their low bits
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint8), (-(2**31), 2**31 - 1)),
    tf.int64: (-(2**63), 2**63 - 1),
    tf.uint32: (0, 2**32 - 1),
    tf.uint64: (0, 2**64 - 1),
}
FLOATS = (tf.float32, tf.float64)
JSON_TYPES = {str: "String", int: "Number", float: "Number", list: "Array", dict: "Object", type(None): "Null"}


def json_type(value: Any) -> str:
    """RapidJSON's name of a value's type."""
    return str(value) if type(value) is bool else JSON_TYPES[type(value)]


class _Decoder(rapidjson.Decoder):
    """Objects keep the first of two equal keys."""

    def start_object(self) -> list[Any]:
        return []

    def end_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(reversed(pairs)) if len(pairs) > len(dict(pairs)) else dict(pairs)


def parse_json(body: bytes) -> dict[str, Any]:
    """Parses the first JSON value of `body`; what follows it is ignored.

    Args:
        body: Bytes.

    Returns:
        The top-level object.

    Raises:
        ServerError: INVALID_ARGUMENT with RapidJSON's text and byte offset.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = _decode(body)
    except (ValueError, RecursionError) as error:  # also of an integer of more than 4300 digits
        offset, text = re.fullmatch(r"Parse error at offset (\d+): (.*)", str(error)).groups()
        text = text.replace("']'", "]").replace("'}'", "}")
        text = text.replace("Invalid integer value", "Number too big to be stored in double.")
        raise invalid_argument(f"JSON Parse error: {text} at offset: {offset}") from error
    if type(document) is not dict:
        raise invalid_argument(f"JSON Value: {show(document)} Is not object")
    return document


class _Parts:
    """A body in parts: between two of them other threads have their turn, which a parser in C gives nobody."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def read(self, size: int) -> bytes:
        part = self._body[self._at : self._at + size]
        self._at += size
        return part


def _decode(body: bytes) -> Any:
    decode = _Decoder(number_mode=rapidjson.NM_NAN)
    try:
        stream: Any = body if len(body) <= PART_BYTES else _Parts(body)
        return decode(stream, chunk_size=PART_BYTES)
    except (RecursionError, UnicodeDecodeError):
        return decode_any(body.decode(errors="surrogateescape"))
    except rapidjson.JSONDecodeError as error:
        tail = re.match(r"Parse error at offset (\d+): The document root must not be followed", str(error))
        if not tail:
            raise
        return decode(body[: int(tail[1])])


TOKEN = re.compile(r'[ \t\r\n]*(?:([\[\]{},:])|("(?:[^"\\]|\\.)*")|([^\s\[\]{},:"]+))', re.DOTALL)
FAULTS = {
    "value": "Invalid value.",
    "name": "Missing a name for object member.",
    ":": "Missing a colon after a name of object member.",
    "[": "Missing a comma or ] after an array element.",
    "{": "Missing a comma or } after an object member.",
}


def decode_any(text: str) -> Any:
    """Parses JSON without recursion, however deep it is nested; what follows the first value is ignored.

    Raises:
        ValueError: With RapidJSON's text and offset.
    """
    stack, position = [], 0  # of [bracket, container, name]
    expected = {"value"}  # what may come: "value", "name", ":", "," or the end of the container

    def fault() -> ValueError:
        kind = next((k for k in ("name", ":", "value") if k in expected), stack[-1][0] if stack else "value")
        at = re.compile(r"[ \t\r\n]*").match(text, position).end()
        return ValueError(f"Parse error at offset {len(to_bytes(text[:at]))}: {FAULTS[kind]}")

    def leaf(string: str | None, scalar: str | None) -> Any:
        try:
            if string:
                return json.loads(string, strict=False)
            return rapidjson.loads(scalar or "", number_mode=rapidjson.NM_NAN)
        except ValueError as error:
            raise fault() from error

    while True:
        token = TOKEN.match(text, position)
        if not token:
            raise fault()
        mark, string, scalar = token.groups()
        is_value = not mark and "value" in expected
        if string and "name" in expected:
            stack[-1][2], expected = leaf(string, None), {":"}
        elif mark == ":" and ":" in expected:
            expected = {"value"}
        elif mark == "," and "," in expected:
            expected = {"value"} if stack[-1][0] == "[" else {"name"}
        elif mark and mark in "[{" and "value" in expected:
            stack.append([mark, [] if mark == "[" else {}, None])
            expected = {"value", "]"} if mark == "[" else {"name", "}"}
        elif is_value or (mark and mark in "]}" and mark in expected):
            value = leaf(string, scalar) if is_value else stack.pop()[1]
            if not stack:
                return value
            bracket, container, name = stack[-1]
            if bracket == "[":
                container.append(value)
            else:
                container.setdefault(name, value)  # of two equal keys the first counts
            expected = {",", "]" if bracket == "[" else "}"}
        else:
            raise fault()
        position = token.end()


def signature_name(document: Mapping[str, Any]) -> str:
    """The request's `signature_name`, empty if there is none.

    Raises:
        ServerError: INVALID_ARGUMENT if it is not a string.
    """
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise invalid_argument(
            f"JSON Value: {show(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read_inputs(document: Mapping[str, Any], dtypes: Mapping[str, tf.DType]) -> tuple[dict[str, np.ndarray], bool]:
    """The input arrays of a request.

    Args:
        document: Result of `parse_json`.
        dtypes: `{input name: tf.DType}` of the signature.

    Returns:
        `({name: array}, is_row)`: with rows, dimension 0 counts the instances.

    Raises:
        ServerError: INVALID_ARGUMENT, or UNIMPLEMENTED for a dtype that JSON cannot carry.
    """
    if "instances" not in document and "inputs" not in document:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    if "instances" not in document:
        return _read_columns(document["inputs"], dtypes), False
    if "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {show(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if type(document["instances"]) is not list:
        raise invalid_argument(f"JSON Value: {show(document)} Expecting 'instances' to be an list/array")
    if not document["instances"]:
        raise invalid_argument(f"JSON Value: {show(document)} No values in 'instances' array")
    return _read_rows(document["instances"], dtypes), True


def _read_columns(value: Any, dtypes: Mapping[str, tf.DType]) -> dict[str, np.ndarray]:
    if _is_object(value):
        for name in sorted(dtypes):
            if name not in value:
                raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        return {name: to_array(value[name], dtype) for name, dtype in dtypes.items()}
    if len(dtypes) > 1:
        raise invalid_argument(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map"
        )
    return {name: to_array(value, dtype) for name, dtype in dtypes.items()}


def _read_rows(rows: list[Any], dtypes: Mapping[str, tf.DType]) -> dict[str, np.ndarray]:
    if type(rows[0]) is not dict and len(dtypes) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    try:
        if not _is_object(rows[0]):
            return {name: to_array(rows, dtype) for name, dtype in dtypes.items()}
        if all(_is_object(row) and row.keys() == dtypes.keys() for row in rows):
            return {name: to_array([row[name] for row in rows], dtype) for name, dtype in dtypes.items()}
    except ServerError:
        pass  # found wrong as a whole: the rows one by one tell which and why
    return _read_rows_one_by_one(rows, dtypes)


def _read_rows_one_by_one(rows: list[Any], dtypes: Mapping[str, tf.DType]) -> NoReturn:
    are_objects = _is_object(rows[0])
    first = {}
    for index, row in enumerate(rows):
        if are_objects and not _is_object(row):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        if not are_objects and _is_object(row):
            raise invalid_argument(f"Expecting value/list but got object at item {index} of input list")
        for name, value in row.items() if are_objects else ((next(iter(dtypes)), row),):
            try:
                if name not in dtypes:
                    raise invalid_argument(f"JSON object: does not have named input: {name}")
                array = to_array(value, dtypes[name])
                _check_same_shape(first.setdefault(name, array), array)
            except ServerError as error:
                key = f" key: {name}" if are_objects else ""
                raise invalid_argument(
                    f"Failed to process element: {index}{key} of 'instances' list. Error: {error}"
                ) from error
        if are_objects and row.keys() != dtypes.keys():
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {show(row)} keys must be "
                f"equal to: {','.join(sorted(dtypes))}"
            )
    raise RuntimeError("the rows are well-formed one by one but not together")


def _check_same_shape(first: np.ndarray, array: np.ndarray) -> None:
    if array.size != first.size:
        raise invalid_argument(f"Expecting tensor size: {first.size} but got: {array.size}")
    if array.shape != first.shape:
        shapes = ["[" + ",".join(map(str, shape)) + "]" for shape in (first.shape, array.shape)]
        raise invalid_argument(f"Expecting shape {shapes[0]} but got: {shapes[1]}")


def to_array(value: Any, dtype: tf.DType) -> np.ndarray:
    """The array that a JSON value stands for.

    Args:
        value: Parsed JSON: a scalar, or equally long lists of lists.
        dtype: `tf.DType` of the input. Strings become an object array of bytes.

    Raises:
        ServerError: If the lists are ragged or a value has another type; nothing is cast but numbers to floats.

    Example:
    >>> to_array([[1, 2.5]], tf.float32)
    array([[1. , 2.5]], dtype=float32)
    """
    shape, head = [], value
    while type(head) is list:
        shape.append(len(head))
        head = head[0] if head else None
    if len(shape) > MAX_RANK:
        raise invalid_argument(f"a tensor has at most {MAX_RANK} dimensions; this value has {len(shape)}")
    leaves = [value]
    for size in shape:
        if not all(type(item) is list and len(item) == size for item in leaves):
            _raise_first_fault(value, 0, shape, dtype)
        leaves = list(itertools.chain.from_iterable(leaves))
    if dtype == tf.string:
        try:
            leaves = [to_bytes(leaf) if type(leaf) is str else decode_base64(leaf) for leaf in leaves]
        except ServerError:
            _raise_first_fault(value, 0, shape, dtype)
        array = np.empty(len(leaves), object)
        array[:] = leaves
        return array.reshape(shape)
    if not all(map(_checker(dtype), leaves)):
        _raise_first_fault(value, 0, shape, dtype)
    if dtype in FLOATS:
        try:
            with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, as in C++
                return np.array(leaves, np.float64).astype(dtype.as_numpy_dtype).reshape(shape)
        except OverflowError as error:  # an integer of more than 308 digits
            raise invalid_argument("JSON Parse error: Number too big to be stored in double.") from error
    wide = dtype.as_numpy_dtype if dtype in (tf.bool, tf.uint32, tf.uint64) else np.int64
    return np.array(leaves, wide).astype(dtype.as_numpy_dtype).reshape(shape)


def _checker(dtype: tf.DType) -> Callable[[Any], bool]:
    if dtype in FLOATS:
        return lambda leaf: type(leaf) is float or type(leaf) is int
    if dtype == tf.bool:
        return lambda leaf: type(leaf) is bool
    if dtype == tf.string:
        return lambda leaf: type(leaf) is str
    if dtype in INTEGER_RANGES:
        low, high = INTEGER_RANGES[dtype]
        return lambda leaf: type(leaf) is int and low <= leaf <= high
    return lambda leaf: False


def _raise_first_fault(value: Any, level: int, shape: Sequence[int], dtype: tf.DType) -> None:
    """Walks in TF Serving's order, depth first, and raises for the first value out of place."""
    rank = len(shape)
    if type(value) is list:
        if level >= rank:
            raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {rank}")
        if len(value) != shape[level]:
            raise invalid_argument(
                f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
            )
        for item in value:
            _raise_first_fault(item, level + 1, shape, dtype)
    elif level != rank:
        raise invalid_argument(
            f"JSON Value: {show(value)} found at incorrect level: {level + 1} in the JSON DOM. "
            f"Expected at level: {rank}"
        )
    elif type(value) is dict and dtype == tf.string:
        decode_base64(value)
    elif not _checker(dtype)(value):
        if type(value) is not dict and dtype not in (*FLOATS, tf.bool, tf.string, *INTEGER_RANGES):
            raise ServerError(
                grpc.StatusCode.UNIMPLEMENTED, f"Conversion of JSON Value: {show(value)} to type: {type_name(dtype)}"
            )
        kind = json_type(value)
        raise invalid_argument(f"JSON Value: {show(value)} Type: {kind} is not of expected type: {type_name(dtype)}")


def to_bytes(text: str) -> bytes:
    """UTF-8 of a parsed string, its lone surrogates as the bytes that they stand for."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half of an escaped pair
        return text.encode(errors="surrogatepass")


def _is_base64(value: Any) -> bool:
    return type(value) is dict and list(value) == ["b64"] and type(value["b64"]) is str


def _is_object(value: Any) -> bool:
    return type(value) is dict and not _is_base64(value)


def decode_base64(value: Any) -> bytes:
    """The bytes of `{"b64": text}`; white space in it is ignored and padding optional.

    Raises:
        ServerError: INVALID_ARGUMENT for another form or other characters.
    """
    if not _is_base64(value):
        raise invalid_argument(f"JSON Value: {show(value)} not formatted correctly for base64 data")
    text = "".join(value["b64"].split())
    if "=" not in text:
        text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def show(value: Any) -> str:
    """`value` as pretty JSON for an error text, cut at 256 bytes."""
    if type(value) is float:
        return format_floats(np.array([value]))[0]
    try:
        text = rapidjson.dumps(value, indent=4, number_mode=rapidjson.NM_NAN, ensure_ascii=False)
    except RecursionError:
        text = "(too deeply nested to be shown)"
    except UnicodeEncodeError:  # bytes that are no UTF-8
        text = json.dumps(value, indent=4, ensure_ascii=False)
    return to_bytes(text)[:MAX_VALUE_BYTES].decode(errors="ignore")

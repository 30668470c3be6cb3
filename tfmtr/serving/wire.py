"""TF Serving's messages as clients need them, and tensors in them as NumPy has them; imports no TensorFlow.

The messages of `tensorflow-serving-api` import the whole of TensorFlow. These have the same numbers and names of
fields, so their bytes are the same.
"""

import math
from typing import Any

import numpy as np

from tfmtr.serving.protos import messages

DEFAULT_SIGNATURE = "serving_default"
WIRE: dict[str, Any] = messages("wire.proto")

STRING = 7
DTYPES = {  # number of TensorFlow's dtype -> NumPy's name of it, and the field of its values
    1: ("float32", "float_val"),
    2: ("float64", "double_val"),
    3: ("int32", "int_val"),
    4: ("uint8", "int_val"),
    5: ("int16", "int_val"),
    6: ("int8", "int_val"),
    8: ("complex64", "scomplex_val"),
    9: ("int64", "int64_val"),
    10: ("bool", "bool_val"),
    14: ("bfloat16", "half_val"),
    17: ("uint16", "int_val"),
    18: ("complex128", "dcomplex_val"),
    19: ("float16", "half_val"),
    22: ("uint32", "uint32_val"),
    23: ("uint64", "uint64_val"),
    24: ("float8_e5m2", "float8_val"),
    25: ("float8_e4m3fn", "float8_val"),
    # Quantized types, which NumPy has as plain integers.
    11: ("int8", "int_val"),
    12: ("uint8", "int_val"),
    13: ("int32", "int_val"),
    15: ("int16", "int_val"),
    16: ("uint16", "int_val"),
}
NUMBERS = {name: number for number, (name, _) in reversed(DTYPES.items())}


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of a name; those that NumPy itself lacks are of the package `ml_dtypes`."""
    if name == "bfloat16" or name.startswith("float8"):
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


def to_proto(name: str, value: Any, dtype: int | None = None) -> Any:
    """A `TensorProto` of an array, a list or a scalar.

    Args:
        name: Name of the input, for the error.
        value: The values.
        dtype: Number of TensorFlow's dtype, or `None` for the value's own.

    Raises:
        ValueError: If the value is not of the dtype, ragged, or of no dtype that can be sent.

    Example:
    >>> np.frombuffer(to_proto("x", [1, 2], 1).tensor_content, "float32")
    array([1., 2.], dtype=float32)
    """
    ragged = f"`inputs` must have lists of one length for {name!r}; fill up the shorter ones. Received: {name}="
    try:
        array = np.asarray(value, object if dtype == STRING else None)
    except ValueError as error:  # of NumPy, which names no input
        raise ValueError(f"{ragged}{value!r}") from error
    is_text = array.dtype.kind in "USO"
    if array.size == 0 and (dtype == STRING or dtype in DTYPES):  # an empty list has no dtype of its own
        array = array.astype(object if dtype == STRING else numpy_dtype(DTYPES[dtype][0]))
    elif is_text != (dtype == STRING) and dtype is not None:
        raise ValueError(f"`inputs` must have {_kind(dtype)} for {name!r}. Received: {name}={value!r}")
    if array.dtype.kind in "USO":
        leaves = [leaf.encode() if isinstance(leaf, str) else leaf for leaf in array.ravel().tolist()]
        if not all(isinstance(leaf, bytes) for leaf in leaves):
            if any(isinstance(leaf, (list, tuple, np.ndarray)) for leaf in leaves):
                raise ValueError(f"{ragged}{value!r}")
            must = "text" if dtype == STRING else "text, bytes or numbers"
            raise ValueError(f"`inputs` must have {must} for {name!r}. Received: {name}={value!r}")
        proto = WIRE["TensorProto"](dtype=STRING, string_val=leaves)
    else:
        array = _cast(name, array, dtype)
        number = dtype if dtype is not None else NUMBERS.get(array.dtype.name)
        if number is None:
            raise ValueError(f"`inputs` must have text, bytes or numbers for {name!r}. Received: {name}={value!r}")
        proto = WIRE["TensorProto"](dtype=number, tensor_content=_little_endian(array).tobytes())
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def _kind(dtype: int) -> str:
    return "text" if dtype == STRING else f"values of {DTYPES[dtype][0]}" if dtype in DTYPES else f"the dtype {dtype}"


def _little_endian(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array


def _cast(name: str, array: np.ndarray, dtype: int | None) -> np.ndarray:
    """Numbers as a dtype: whole ones as any that holds them, others as floating or complex ones only."""
    if dtype is None:
        return array
    if dtype in DTYPES:
        target = numpy_dtype(DTYPES[dtype][0])
        kinds = {"b": "b", "i": "iu", "u": "iu", "c": "iufcV"}.get(target.kind, "iufV")  # V: of `ml_dtypes`
        if array.dtype.kind in kinds:
            with np.errstate(over="ignore"):
                cast = array.astype(target)
            if target.kind not in "iu" or np.array_equal(cast, array):
                return cast
    raise ValueError(f"`inputs` must have {_kind(dtype)} for {name!r}. Received: {name}={array.tolist()!r}")


def to_array(proto: Any) -> np.ndarray:
    """The array of a `TensorProto`; strings are an object array of bytes.

    Raises:
        ValueError: If it has a dtype that NumPy has nothing for.
    """
    shape = [dim.size for dim in proto.tensor_shape.dim]
    count = math.prod(shape)
    if proto.dtype == STRING:
        array = np.empty(count, object)
        array[:] = list(proto.string_val) or [b""] * count
        return array.reshape(shape)
    if proto.dtype not in DTYPES:
        raise ValueError(f"a tensor must be of a dtype that NumPy has. Received: TensorFlow's dtype {proto.dtype}")
    kind, field = DTYPES[proto.dtype]
    dtype, values = numpy_dtype(kind), getattr(proto, field)
    if content := proto.tensor_content or (values if field == "float8_val" else b""):
        return np.frombuffer(content, dtype).reshape(shape).copy()
    if field == "half_val":
        array = np.array(values, np.uint16).view(dtype)
    elif field in ("scomplex_val", "dcomplex_val"):
        array = np.array(values, np.float32 if field == "scomplex_val" else np.float64).view(dtype)
    else:
        array = np.array(values, dtype)
    if len(array) < count:  # fewer values repeat the last one, none are zeros
        array = np.pad(array, (0, count - len(array)), mode="edge") if len(array) else np.zeros(count, dtype)
    return array.reshape(shape)

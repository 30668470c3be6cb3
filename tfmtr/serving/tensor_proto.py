"""TensorProto to array and back, with the conventions of TensorFlow's C++ `Tensor`."""

import math
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from tfmtr.serving.errors import ServerError, invalid_argument

# dtype -> field of typed values. Small integers share `int_val`, both half floats travel as their 16 bits.
VALUE_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint16, tf.uint8), "int_val"),
}

QUANTIZED = {dtype.as_datatype_enum: dtype for dtype in (tf.qint8, tf.quint8, tf.qint16, tf.quint16, tf.qint32)}
FLOAT8 = tf.dtypes.experimental.float8_e5m2, tf.dtypes.experimental.float8_e4m3fn  # a byte each, in one field of bytes
SENDABLE = {*QUANTIZED, *(dtype.as_datatype_enum for dtype in (*VALUE_FIELDS, *FLOAT8))}

PLAIN = {  # what NumPy reads as TensorFlow does: enum -> dtype and field
    dtype.as_datatype_enum: (np.dtype(object if dtype == tf.string else dtype.as_numpy_dtype), field)
    for dtype, field in VALUE_FIELDS.items()
    if field != "half_val" and not dtype.is_complex
}
MAX_RANK = 8


def to_array(alias: str, proto: TensorProto) -> np.ndarray:
    """The array that `proto` stands for.

    A proto that holds just what its shape needs is read by NumPy, in a fraction of the time. Of others TensorFlow's own
    parser decides what is well-formed: too few values repeat the last one, none are zeros, surplus values are ignored.

    Args:
        alias: Name of the input, for the error.
        proto: A `TensorProto`, with `tensor_content` or with typed values.

    Returns:
        Array of the proto's dtype and shape; strings are an object array of bytes.

    Raises:
        ServerError: INVALID_ARGUMENT if no tensor can be made of it.
    """
    try:
        array = _read_plain(proto)
        if array is not None:
            return array
        return as_array(tf.io.parse_tensor(proto.SerializeToString(), proto.dtype).numpy())
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def _read_plain(proto: TensorProto) -> np.ndarray | None:
    """The array of a proto with as many values or bytes as its shape needs, else `None`."""
    dtype, field = PLAIN.get(proto.dtype, (None, ""))
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    if dtype is None or proto.tensor_shape.unknown_rank or len(sizes) > MAX_RANK or min(sizes, default=0) < 0:
        return None
    count = math.prod(sizes)
    if content := proto.tensor_content:
        if dtype.kind in "Ob" or len(content) != count * dtype.itemsize:
            return None
        return np.frombuffer(content, dtype).reshape(sizes)
    values = getattr(proto, field)
    if len(values) != count:
        return None
    first = np.dtype(np.int32) if field == "int_val" else dtype
    return np.array(values, first).astype(dtype, copy=False).reshape(sizes)


def as_array(value: Any) -> np.ndarray:
    """`value` as an array; TensorFlow hands out scalar strings as bare bytes."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def to_proto(array: Any, *, declared: int = 0, as_content: bool = False) -> TensorProto:
    """A `TensorProto` with typed values, which is what clients of TF Serving read.

    Args:
        array: Array, scalar or bytes, as a session returns it.
        declared: Number of the dtype that the signature declares, 0 for none; a session returns quantized values as
            plain integers.
        as_content: Whether numbers are raw bytes instead.

    Raises:
        ServerError: UNIMPLEMENTED if a `TensorProto` has no values of the dtype.

    Example:
    >>> list(to_proto(np.array([1.5, 2.0], "float32")).float_val)
    [1.5, 2.0]
    """
    array = as_array(array)
    dtype = QUANTIZED.get(declared) or (tf.string if array.dtype == object else tf.as_dtype(array.dtype))
    if dtype.as_datatype_enum not in SENDABLE:
        raise ServerError(grpc.StatusCode.UNIMPLEMENTED, f"a tensor of the type {dtype.name} cannot be sent")
    proto = TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if as_content and array.dtype != object:
        proto.tensor_content = array.tobytes()
        return proto
    if dtype in FLOAT8:
        proto.float8_val = array.tobytes()
        return proto
    values = array.ravel()
    field = VALUE_FIELDS.get(dtype, "int_val")
    if field == "half_val":
        values = values.view(np.uint16)
    elif dtype.is_complex:
        values = values.view(dtype.real_dtype.as_numpy_dtype)
    getattr(proto, field).extend(values.tolist())
    return proto

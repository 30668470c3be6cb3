"""TF Serving's messages as clients need them, and tensors in them as NumPy has them; imports no TensorFlow.

The messages of `tensorflow-serving-api` import the whole of TensorFlow. These have the same numbers and names of
fields, so their bytes are the same.
"""

import math
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

DEFAULT_SIGNATURE = "serving_default"
Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "bool": Field.TYPE_BOOL,
    "bytes": Field.TYPE_BYTES,
    "double": Field.TYPE_DOUBLE,
    "enum": Field.TYPE_INT32,  # its number: on the wire they are alike
    "float": Field.TYPE_FLOAT,
    "int32": Field.TYPE_INT32,
    "int64": Field.TYPE_INT64,
    "string": Field.TYPE_STRING,
    "uint32": Field.TYPE_UINT32,
    "uint64": Field.TYPE_UINT64,
}
STATES = {"UNKNOWN": 0, "START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}
# {message: {number: "name [repeated|map] type"}}; the keys of maps are text.
MESSAGES = {
    "Dim": {1: "size int64", 2: "name string"},
    "TensorShapeProto": {2: "dim repeated Dim", 3: "unknown_rank bool"},
    "TensorProto": {
        1: "dtype enum",
        2: "tensor_shape TensorShapeProto",
        4: "tensor_content bytes",
        5: "float_val repeated float",
        6: "double_val repeated double",
        7: "int_val repeated int32",
        8: "string_val repeated bytes",
        9: "scomplex_val repeated float",
        10: "int64_val repeated int64",
        11: "bool_val repeated bool",
        12: "dcomplex_val repeated double",
        13: "half_val repeated int32",
        16: "uint32_val repeated uint32",
        17: "uint64_val repeated uint64",
        18: "float8_val bytes",
    },
    "TensorInfo": {1: "name string", 2: "dtype enum", 3: "tensor_shape TensorShapeProto"},
    "SignatureDef": {
        1: "inputs map TensorInfo",
        2: "outputs map TensorInfo",
        3: "method_name string",
        4: "defaults map TensorProto",
    },
    "Int64Value": {1: "value int64"},
    "Any": {1: "type_url string", 2: "value bytes"},
    "StatusProto": {1: "error_code enum", 2: "error_message string"},
    "ModelSpec": {1: "name string", 2: "version Int64Value", 3: "signature_name string", 4: "version_label string"},
    "PredictRequest": {1: "model_spec ModelSpec", 2: "inputs map TensorProto", 3: "output_filter repeated string"},
    "PredictResponse": {1: "outputs map TensorProto", 2: "model_spec ModelSpec"},
    "GetModelMetadataRequest": {1: "model_spec ModelSpec", 2: "metadata_field repeated string"},
    "GetModelMetadataResponse": {1: "model_spec ModelSpec", 2: "metadata map Any"},
    "SignatureDefMap": {1: "signature_def map SignatureDef"},
    "GetModelStatusRequest": {1: "model_spec ModelSpec"},
    "ModelVersionStatus": {1: "version int64", 2: "state State", 3: "status StatusProto"},
    "GetModelStatusResponse": {1: "model_version_status repeated ModelVersionStatus"},
}


def _add_field(message: descriptor_pb2.DescriptorProto, number: int, text: str) -> None:
    name, *how, kind = text.split()
    label = Field.LABEL_REPEATED if how else Field.LABEL_OPTIONAL
    if how == ["map"]:
        entry = message.nested_type.add(name=name.title().replace("_", "") + "Entry")
        entry.options.map_entry = True
        _add_field(entry, 1, "key string")
        _add_field(entry, 2, f"value {kind}")
        kind = f"{message.name}.{entry.name}"
    field = message.field.add(name=name, number=number, label=label)
    if kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        field.type = Field.TYPE_ENUM if kind == "State" else Field.TYPE_MESSAGE
        field.type_name = f".tfmtr.wire.{'ModelVersionStatus.State' if kind == 'State' else kind}"


def _make_messages() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="tfmtr/wire.proto", package="tfmtr.wire", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, text in fields.items():
            _add_field(message, number, text)
        if name == "ModelVersionStatus":
            state = message.enum_type.add(name="State")
            for value, number in STATES.items():
                state.value.add(name=value, number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tfmtr.wire.{name}")) for name in MESSAGES
    }


WIRE: dict[str, Any] = _make_messages()

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
        wanted = numpy_dtype(DTYPES[dtype][0])
        kinds = {"b": "b", "i": "iu", "u": "iu", "c": "iufcV"}.get(wanted.kind, "iufV")  # V: of `ml_dtypes`
        if array.dtype.kind in kinds:
            with np.errstate(over="ignore"):
                cast = array.astype(wanted)
            if wanted.kind not in "iu" or np.array_equal(cast, array):
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

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from tfmtr.serving.errors import ServerError
from tfmtr.serving.tensor_proto import VALUE_FIELDS, to_array, to_proto


def _proto(shape, **fields):
    proto = TensorProto(**fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (_proto([3], dtype=1, float_val=[1, 2, 3]), [1, 2, 3]),
        (_proto([2], dtype=1, tensor_content=np.array([1, 2], "<f4").tobytes()), [1, 2]),
        (_proto([4], dtype=1, float_val=[1, 2]), [1, 2, 2, 2]),
        (_proto([2], dtype=1), [0, 0]),
        (_proto([2], dtype=1, float_val=[1, 2, 3]), [1, 2]),
        (_proto([0], dtype=1), []),
        (_proto([], dtype=7, string_val=[b"\xff\x00"]), b"\xff\x00"),
        (_proto([2], dtype=7, string_val=[b"a"]), [b"a", b"a"]),
    ],
)
def test_to_array_fills_as_tensorflow_does(proto, expected):
    array = to_array("x", proto)
    assert array.shape == tuple(dim.size for dim in proto.tensor_shape.dim)
    assert array.tolist() == expected


@pytest.mark.parametrize(
    "proto",
    [
        _proto([2], dtype=1, tensor_content=b"abc"),
        _proto([2], dtype=0),
        _proto([2], dtype=99),
        _proto([-1], dtype=1, float_val=[1]),
        _proto([1], dtype=tf.resource.as_datatype_enum),
    ],
)
def test_to_array_refuses(proto):
    with pytest.raises(ServerError, match=r"^INVALID_ARGUMENT: tensor parsing error: x$"):
        to_array("x", proto)


@pytest.mark.parametrize("dtype", VALUE_FIELDS, ids=lambda dtype: dtype.name)
def test_every_dtype_travels_in_its_typed_field(dtype):
    array = np.array([[b"a", b"\xff"]], object) if dtype == tf.string else np.array([[1, 0]], dtype.as_numpy_dtype)
    proto = to_proto(array)
    assert len(getattr(proto, VALUE_FIELDS[dtype])) == (4 if dtype.is_complex else 2)
    assert not proto.tensor_content
    for back in (to_array("x", proto), tf.make_ndarray(proto)):
        assert back.dtype == array.dtype
        assert back.tolist() == array.tolist()


@pytest.mark.parametrize("value", [np.float32(2.5), b"text\x00", np.zeros((0, 2), np.int64)])
def test_scalars_and_empty_arrays_keep_their_shape(value):
    back = to_array("x", to_proto(value))
    assert back.shape == np.shape(value)
    assert back.tolist() == (value if isinstance(value, bytes) else value.tolist())


@pytest.mark.parametrize("dtype", VALUE_FIELDS, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 1, 2)])
@pytest.mark.parametrize("surplus", [-1, 0, 1])
def test_numpy_reads_what_tensorflow_s_parser_reads(dtype, shape, surplus):
    size = int(np.prod(shape))
    values = [b"a\x00", b"\xff", b"", b"d"] if dtype == tf.string else [1, 0, 5, 100]
    array = np.resize(np.array(values, object if dtype == tf.string else dtype.as_numpy_dtype), shape)
    whole = to_proto(array)
    field = getattr(whole, VALUE_FIELDS[dtype])
    if surplus < 0 < size:
        del field[-1]
    elif surplus > 0 and size:
        field.append(field[-1])
    protos = [whole, *([] if dtype == tf.string else [to_proto(array, as_content=True)])]
    for proto in protos:
        expected = tf.io.parse_tensor(proto.SerializeToString(), proto.dtype).numpy()
        found = to_array("x", proto)
        assert (found.dtype, found.shape) == (np.asarray(expected, array.dtype).dtype, shape)
        assert found.tolist() == np.asarray(expected, array.dtype).tolist()


def test_small_integers_wrap_as_tensorflow_s():
    proto = _proto([2], dtype=tf.uint8.as_datatype_enum, int_val=[300, -1])
    assert to_array("x", proto).tolist() == tf.io.parse_tensor(proto.SerializeToString(), tf.uint8).numpy().tolist()

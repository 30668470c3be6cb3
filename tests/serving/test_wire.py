"""The messages without TensorFlow are those with it, byte by byte, and so are tensors."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import any_pb2, wrappers_pb2
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2, status_pb2

from tfmtr.serving.wire import DTYPES, WIRE, to_array, to_proto

HOMES = (
    *(tensor_pb2, tensor_shape_pb2, tensor_shape_pb2.TensorShapeProto, meta_graph_pb2, any_pb2, wrappers_pb2),
    *(get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2, status_pb2),
)


@pytest.mark.parametrize("name", WIRE)
def test_fields_are_those_of_the_real_messages(name):
    real = next(getattr(home, name) for home in HOMES if hasattr(home, name)).DESCRIPTOR
    for number, field in WIRE[name].DESCRIPTOR.fields_by_number.items():
        other = real.fields_by_number[number]
        assert (field.name, field.is_repeated) == (other.name, other.is_repeated)
        is_enum = other.enum_type is not None and field.enum_type is None
        assert field.type == (field.TYPE_INT32 if is_enum else other.type)
        if field.message_type and not field.message_type.GetOptions().map_entry:
            assert field.message_type.name == other.message_type.name
    if name == "ModelVersionStatus":
        assert get_model_status_pb2.ModelVersionStatus.State.items() == WIRE[name].State.items()


@pytest.mark.parametrize("number", DTYPES)
def test_numbers_travel_as_tensorflow_s_tensors(number):
    kind = tf.as_dtype(number)
    plain = {"q": kind.name.replace("q", ""), "f": kind.as_numpy_dtype}.get(kind.name[0], kind.as_numpy_dtype)
    expected = np.array([[1, 0, 1]]).astype(plain)
    sent = to_proto("x", [[True, False, True]] if kind == tf.bool else [[1, 0, 1]], number)
    tensor = tf.io.parse_tensor(sent.SerializeToString(), kind)
    assert (tensor.dtype, tensor.shape) == (kind, [1, 3])
    real = tf.make_tensor_proto(expected, kind).SerializeToString()
    found = to_array(WIRE["TensorProto"].FromString(real))
    assert to_array(sent).tolist() == found.tolist()
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()
    if kind.name[0] != "q":
        from tfmtr.serving.tensor_proto import to_proto as typed

        assert (
            to_array(WIRE["TensorProto"].FromString(typed(expected).SerializeToString())).tolist() == expected.tolist()
        )


def test_texts_empty_lists_and_values_that_are_repeated():
    texts = ["a", "é", b"\xff"], np.array(["a", "é"]), np.array([[b"a"]], object), "a", [], [[], []]
    for value, shape in zip(texts, ((3,), (2,), (1, 1), (), (0,), (2, 0)), strict=True):
        sent = to_proto("x", value, 7)
        found = tf.make_ndarray(tensor_pb2.TensorProto.FromString(sent.SerializeToString()))
        assert to_array(sent).shape == shape
        assert to_array(sent).tolist() == found.tolist()
    assert (to_proto("x", [], 1).dtype, to_array(to_proto("x", [], 1)).shape) == (1, (0,))
    assert to_array(to_proto("x", np.array([1, 2], ">i4"))).tolist() == [1, 2]
    for values in ([3.0, 2.0], [3.0], []):
        real = tensor_pb2.TensorProto(dtype=1, float_val=values)
        real.tensor_shape.dim.add(size=2)
        found = to_array(WIRE["TensorProto"].FromString(real.SerializeToString()))
        assert found.tolist() == tf.io.parse_tensor(real.SerializeToString(), tf.float32).numpy().tolist()


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (["a"], 1, "must have values of float32 for 'x'. Received: x=['a']"),
        ([1.5], 9, "must have values of int64 for 'x'. Received: x=[1.5]"),
        ([300], 4, "must have values of uint8"),
        ([1], 10, "must have values of bool"),
        ([True], 1, "must have values of float32"),
        ([1], 7, "must have text for 'x'. Received: x=[1]"),
        ([2**70], 9, "must have values of int64"),
        ([None], 7, "must have text for 'x'. Received: x=[None]"),
        ([1], 20, "must have the dtype 20 for 'x'"),
        (np.zeros(1, "datetime64[s]"), None, "must have text, bytes or numbers for 'x'"),
        *(
            (value, dtype, f"must have lists of one length for 'x'; fill up the shorter ones. Received: x={value!r}")
            for value in ([["a"], ["b", "c"]], [[1], [1, 2]], ["a", ["b"]])
            for dtype in (1, 7, None)
        ),
    ],
)
def test_what_is_no_tensor_is_refused(value, dtype, text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        to_proto("x", value, dtype)
    assert text in str(caught.value)


def test_the_client_imports_no_tensorflow():
    heavy = "[name for name in sys.modules if name.startswith(('tensorflow', 'keras', 'pandas'))]"
    code = f"import sys, tfmtr; tfmtr.Client; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

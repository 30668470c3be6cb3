import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList

from tfmtr.serving import rest_server
from tfmtr.serving.errors import ServerError
from tfmtr.serving.handlers import answer_predict
from tfmtr.serving.models import Models
from tfmtr.serving.versions import Model


@pytest.fixture
def models(tmp_path, publish):
    """The toy model, whose signature `pair` has a default for its input `number`."""
    publish(tmp_path, 2)
    file = tmp_path / "2" / "saved_model.pb"
    saved_model = SavedModel.FromString(file.read_bytes())
    signature = saved_model.meta_graphs[0].signature_def["pair"]
    signature.defaults["number"].CopyFrom(tf.make_tensor_proto(np.array([7])))
    file.write_bytes(saved_model.SerializeToString())
    models = Models(functools.partial(Model, poll_wait_seconds=0))
    config = ModelConfigList()
    config.config.add(name="toy", base_path=str(tmp_path), model_platform="tensorflow")
    models.reload(config)
    yield models
    models.stop()


def _predict(models, **inputs):
    request = predict_pb2.PredictRequest(model_spec={"name": "toy", "signature_name": "pair"})
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return list(answer_predict(models, request).outputs["joined"].string_val)


def test_defaults_of_the_signature_fill_absent_inputs(models):
    assert _predict(models, text=["a"]) == [b"a-7"]
    assert _predict(models, text=["a"], number=np.array([1])) == [b"a-1"]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            {"number": np.array([1])},
            "Signature input alias: text(feed name: pair_text:0) not found in request and no default value provided. "
            "Inputs expected to be in the request {number}, or default input alias set: number",
        ),
        (
            {"text": ["a"], "number": np.array([1]), "more": [1]},
            "input size does not match signature: 3!=2 len({more,number,text}) != len({number,text}). "
            "Sent extra: {more}. Missing but required: {}.",
        ),
    ],
)
def test_defaults_do_not_excuse_other_names(models, inputs, text):
    with pytest.raises(ServerError) as caught:
        _predict(models, **inputs)
    assert str(caught.value) == f"INVALID_ARGUMENT: {text}"


def test_a_name_that_the_signature_does_not_have_is_refused_and_leaves_the_signature_as_it_is(models):
    for _ in range(2):  # looking a name up in a protobuf map adds it: the first request made every later one fail
        with pytest.raises(ServerError) as caught:
            _predict(models, text=["a"], more=[1])
        assert str(caught.value) == (
            "INVALID_ARGUMENT: Inputs contains invalid name. Used request inputs: text, request input: more,text"
        )
    assert _predict(models, text=["a"]) == [b"a-7"]
    body = json.dumps({"signature_name": "pair", "instances": [{"text": "a", "number": 1}]}).encode()
    (row,) = json.loads(rest_server.answer_predict(models, ModelSpec(name="toy"), body, None))["predictions"]
    assert row["joined"] == "a-1"


class OddTypes(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def quantized(self, x):
        return {"q": tf.bitcast(tf.cast(x, tf.uint8), tf.quint8), "q32": tf.bitcast(tf.cast(x, tf.int32), tf.qint32)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def small(self, x):
        return {"f": tf.cast(x, tf.dtypes.experimental.float8_e5m2)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def opaque(self, x):
        return {"v": tf.raw_ops.EmptyTensorList(element_shape=[1], max_num_elements=1, element_dtype=tf.int32), "x": x}


@pytest.fixture
def odd_types(tmp_path):
    model = OddTypes()
    signatures = {name: getattr(model, name) for name in ("quantized", "small", "opaque")}
    tf.saved_model.save(model, str(tmp_path / "1"), signatures=signatures)
    models = Models(functools.partial(Model, poll_wait_seconds=0))
    config = ModelConfigList()
    config.config.add(name="toy", base_path=str(tmp_path), model_platform="tensorflow")
    models.reload(config)
    yield models
    models.stop()


@pytest.mark.parametrize("as_content", [False, True])
def test_outputs_of_every_type_are_right_or_refused_by_name(odd_types, as_content):
    odd_types.as_content = as_content

    def ask(signature, output_filter=()):
        request = predict_pb2.PredictRequest(
            model_spec={"name": "toy", "signature_name": signature}, output_filter=output_filter
        )
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([3.0, 200.0]))
        return {
            alias: (tf.as_dtype(proto.dtype).name, as_tensor(proto))
            for alias, proto in answer_predict(odd_types, request).outputs.items()
        }

    assert ask("quantized") == {"q": ("quint8", [3, 200]), "q32": ("qint32", [3, 200])}
    assert ask("small") == {"f": ("float8_e5m2", [3.0, 192.0])}  # two digits of mantissa
    assert ask("opaque", ["x"]) == {"x": ("float32", [3.0, 200.0])}
    with pytest.raises(ServerError, match=r"^UNIMPLEMENTED: output v has the type variant, which cannot be sent"):
        ask("opaque")
    for signature, name in (("quantized", "quint8|qint32"), ("small", "float8_e5m2"), ("opaque", "variant")):
        body = json.dumps({"signature_name": signature, "instances": [3.0]}).encode()
        with pytest.raises(ServerError, match=f"INVALID_ARGUMENT: Failed to write JSON value for tensor type: {name}"):
            rest_server.answer_predict(odd_types, ModelSpec(name="toy"), body, None)


def as_tensor(proto):
    """As TensorFlow reads it, quantized values as integers."""
    tensor = tf.io.parse_tensor(proto.SerializeToString(), proto.dtype)
    plain = {"quint8": tf.uint8, "qint32": tf.int32}.get(tensor.dtype.name)
    return (tf.bitcast(tensor, plain) if plain else tf.cast(tensor, tf.float32)).numpy().tolist()

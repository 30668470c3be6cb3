import functools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList

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

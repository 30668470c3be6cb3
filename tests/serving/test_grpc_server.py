import gc
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfmtr.serving.grpc_server import limit_text
from tfmtr.serving.server import Server


@pytest.fixture(scope="module")
def stubs(toy_server):
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{toy_server.port}", unlimited) as channel:
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )


def _spec(signature_name="", name="toy", **version):
    return model_pb2.ModelSpec(name=name, signature_name=signature_name, **version)


def _request(inputs, output_filter=(), **spec):
    request = predict_pb2.PredictRequest(model_spec=_spec(**spec), output_filter=output_filter)
    for name, value in inputs.items():
        is_proto = isinstance(value, TensorProto)
        request.inputs[name].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    return request


X = np.array([1, 2, 5], np.float32)
SPECIAL = np.float32([np.nan, np.inf, -np.inf])
PAIR = {"text": np.array([b"DE", b"\xff"], object), "number": np.array([1, 2])}


@pytest.mark.parametrize("x", [X, X.reshape(1, 3), np.float32(4), np.zeros((0,), np.float32), SPECIAL])
def test_predict_passes_every_shape(stubs, x):
    response = stubs[0].Predict(_request({"x": x}))
    y = tf.make_ndarray(response.outputs["y"])
    np.testing.assert_array_equal(y, x / 2 + 2)
    assert y.shape == np.shape(x)
    assert not response.outputs["y"].tensor_content
    assert response.model_spec == _spec("serving_default", version={"value": 2})


def _proto(*shape, dtype=1, **fields):
    return TensorProto(dtype=dtype, tensor_shape={"dim": [{"size": size} for size in shape]}, **fields)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (_proto(4, float_val=[0, 2]), [2, 3, 3, 3]),  # the last value is repeated
        (_proto(2), [2, 2]),
        (_proto(2, float_val=[2, 4, 6]), [3, 4]),
        (_proto(2, tensor_content=np.float32([2, 4]).tobytes()), [3, 4]),
    ],
)
def test_tensors_are_filled_as_tensorflow_does(stubs, x, y):
    assert tf.make_ndarray(stubs[0].Predict(_request({"x": x})).outputs["y"]).tolist() == y


def test_inputs_may_differ_in_length_and_some_fields_are_ignored(stubs):
    inputs = {"flag": [True], "double": np.zeros(3), "int": np.int32(4), "byte": np.zeros((0, 2), np.uint8)}
    request = _request(inputs | {"big": np.uint64([1, 2])}, signature_name="kinds")
    request.client_id = b"somebody"
    request.predict_streamed_options.request_state = 1
    request.request_options.SetInParent()
    outputs = stubs[0].Predict(request).outputs
    assert [tf.make_ndarray(outputs[name]).shape for name in inputs] == [(1,), (3,), (), (0, 2)]


def test_defaults_of_a_signature(stubs):
    request = _request({"text": ["a"]}, signature_name="pair_by_default")
    assert list(stubs[0].Predict(request).outputs["joined"].string_val) == [b"a-7"]
    with pytest.raises(grpc.RpcError) as caught:
        stubs[0].Predict(_request({"number": np.array([1])}, signature_name="pair_by_default"))
    assert caught.value.details() == (
        "Signature input alias: text(feed name: pair_by_default_text:0) not found in request and no default value "
        "provided. Inputs expected to be in the request {number}, or default input alias set: number"
    )


@pytest.mark.parametrize(
    "method",
    [
        "tensorflow.serving.PredictionService/PredictStreamed",
        "tensorflow.serving.SessionService/SessionRun",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "grpc.health.v1.Health/Check",  # only with its flag
    ],
)
def test_services_that_are_not_there(toy_server, method):
    with grpc.insecure_channel(f"127.0.0.1:{toy_server.port}") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{method}")(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_predict_passes_bytes_and_integers_through_a_table(stubs):
    response = stubs[0].Predict(_request(PAIR, signature_name="pair"))
    assert list(response.outputs["joined"].string_val) == [b"DE-1", b"\xff-2"]
    assert list(response.outputs["text_bytes"].string_val) == [b"DE", b"\xff"]
    assert list(response.outputs["group"].int_val) == [1, 0]
    assert response.model_spec.signature_name == "pair"


def test_predict_runs_only_the_filtered_outputs(stubs):
    response = stubs[0].Predict(_request(PAIR, ["group"], signature_name="pair", version={"value": 2}))
    assert list(response.outputs) == ["group"]


def test_predict_takes_20_megabytes(stubs):
    x = np.arange(5_000_000, dtype=np.float32)
    response = stubs[0].Predict(_request({"x": x}))
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), x / 2 + 2)


BAD_PREDICTS = [
    (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    (_request({}, name=""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    (_request({}, name="other"), "NOT_FOUND", "Servable not found for request: Latest(other)"),
    (
        _request({}, name="other", version={"value": 3}),
        "NOT_FOUND",
        "Servable not found for request: Specific(other, 3)",
    ),
    (_request({}, version={"value": 7}), "NOT_FOUND", "Servable not found for request: Specific(toy, 7)"),
    (_request({}, version={}), "NOT_FOUND", "Servable not found for request: Specific(toy, 0)"),
    (
        _request({}, name="other", version_label="stable"),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: stable",
    ),
    (_request({}, signature_name="none"), "FAILED_PRECONDITION", 'Serving signature key "none" not found.'),
    (
        _request({}),
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
    ),
    (
        _request({"x": X, "b": X, "a": X}),
        "INVALID_ARGUMENT",
        "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). Sent extra: {a,b}. "
        "Missing but required: {}.",
    ),
    (
        _request({"z": X}),
        "INVALID_ARGUMENT",
        "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value provided. "
        "Inputs expected to be in the request {z}, or default input alias set: ",
    ),
    (
        _request({"x": X}, ["q"]),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
    ),
    (_request({"x": X}, ["y", "y"]), "INVALID_ARGUMENT", "duplicate output tensor alias: y"),
    *(
        (_request({"x": proto}), "INVALID_ARGUMENT", "tensor parsing error: x")
        for proto in (
            TensorProto(),
            _proto(-1, float_val=[1]),
            _proto(2, tensor_content=b"abcd"),
        )
    ),
    (
        _request({"x": X.astype(np.float64)}),
        "INVALID_ARGUMENT",
        "Expects arg[0] to be float but double is provided",
    ),
    (
        _request({"x": np.ones((2, 4), np.float32)}, signature_name="matrix"),
        "INVALID_ARGUMENT",
        "Matrix size-incompatible: In[0]: [2,4], In[1]: [3,1]",
    ),
    (
        _request({}, signature_name="__saved_model_init_op"),
        "NOT_FOUND",
        "FetchOutputs node NoOp: not found",
    ),
]


@pytest.mark.parametrize(("request_", "code", "text"), BAD_PREDICTS, ids=[text[:40] for *_, text in BAD_PREDICTS])
def test_predict_refuses(stubs, request_, code, text):
    with pytest.raises(grpc.RpcError) as caught:
        stubs[0].Predict(request_)
    assert caught.value.code().name == code
    details = caught.value.details()
    assert details == text or details.startswith(text + "\n\t [[{{")  # TensorFlow names the node that objects


def test_deadline_ends_the_run_in_the_server(stubs, toy_server):
    with pytest.raises(grpc.RpcError) as caught:
        stubs[0].Predict(_request({"x": np.float32(0)}, signature_name="endless"), timeout=0.4)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    def ticks():
        return sum(map(int, Path(f"/proc/{toy_server.process.pid}/stat").read_text().split()[13:15]))

    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        before = ticks()
        time.sleep(0.5)
        if ticks() - before < 10:  # hundredths of a second: nothing runs any more
            return
    pytest.fail("the run goes on")


def test_metadata_holds_every_signature(stubs):
    response = stubs[0].GetModelMetadata(
        get_model_metadata_pb2.GetModelMetadataRequest(model_spec=_spec(), metadata_field=["signature_def"])
    )
    assert response.model_spec == _spec(version={"value": 2})
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "pair", "__saved_model_init_op"} <= set(signatures.signature_def)
    assert signatures.signature_def["pair"].inputs["number"].dtype == tf.int64.as_datatype_enum


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"model_spec": None}, "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({}, "INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field"),
        ({"metadata_field": ["x"]}, "INVALID_ARGUMENT", "Metadata field x is not supported"),
        (
            {"model_spec": _spec(name="other"), "metadata_field": ["signature_def"]},
            "NOT_FOUND",
            "Servable not found for request: Latest(other)",
        ),
    ],
)
def test_metadata_refuses(stubs, fields, code, text):
    request = get_model_metadata_pb2.GetModelMetadataRequest(**{"model_spec": _spec(), **fields})
    with pytest.raises(grpc.RpcError) as caught:
        stubs[0].GetModelMetadata(request)
    assert (caught.value.code().name, caught.value.details()) == (code, text)


def _status(stubs, **spec):
    return stubs[1].GetModelStatus(get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(**spec)))


@pytest.mark.parametrize("spec", [{}, {"version": {"value": 2}}, {"version_label": "ignored"}])
def test_status(stubs, spec):
    (entry,) = _status(stubs, **spec).model_version_status
    assert (entry.version, entry.state, entry.HasField("status")) == (2, entry.AVAILABLE, True)
    assert (entry.status.error_code, entry.status.error_message) == (0, "")


def test_status_needs_a_model_spec(stubs):
    with pytest.raises(grpc.RpcError) as caught:
        stubs[1].GetModelStatus(get_model_status_pb2.GetModelStatusRequest())
    assert (caught.value.code().name, caught.value.details()) == ("INVALID_ARGUMENT", "Missing ModelSpec")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"name": "other"}, "Could not find any versions of model other"),
        ({"name": ""}, "Could not find any versions of model "),
        ({"version": {"value": 9}}, "Could not find version 9 of model toy"),
    ],
)
def test_status_refuses(stubs, spec, text):
    with pytest.raises(grpc.RpcError) as caught:
        _status(stubs, **spec)
    assert (caught.value.code().name, caught.value.details()) == ("NOT_FOUND", text)


def test_long_error_texts_are_cut(stubs):
    with pytest.raises(grpc.RpcError) as caught:
        stubs[0].Predict(_request({}, signature_name="s" * 5000))
    assert caught.value.details() == ('Serving signature key "' + "s" * 5000)[:1024] + "...TRUNCATED"
    assert limit_text("é" * 600) == "é" * 512 + "...TRUNCATED"
    assert limit_text("x" * 1024) == "x" * 1024


def test_messages_that_cannot_be_parsed_leave_nothing_behind(tmp_path, publish):
    """gRPC kept the state of each such call: 15 kB, for ever."""
    publish(tmp_path / "toy", 2)

    def count():
        gc.collect()
        return sum(type(found).__name__ == "_RPCState" for found in gc.get_objects())

    server = Server(tmp_path / "toy", model_name="toy", port=0)
    with server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for path in ("PredictionService/Predict", "ModelService/GetModelStatus"):
            call, before = channel.unary_unary(f"/tensorflow.serving.{path}"), count()
            for _ in range(30):
                with pytest.raises(grpc.RpcError) as failed:
                    call(b"\xff\xff\xff", timeout=10)
                found = failed.value.code(), failed.value.details()
                assert found == (grpc.StatusCode.INTERNAL, "Exception deserializing request!")
            assert count() < before + 10

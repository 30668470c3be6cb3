"""The server as a process, seen by a client of the protocol alone; the order is that of TF Serving's rules."""

import gc
import gzip
import json
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfmtr import cli
from tfmtr.serving.process import ServerProcess

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


class Process(ServerProcess):
    """The server and what a client needs to ask it."""

    def __init__(self, *flags):
        super().__init__(*flags)
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{self.port}", [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def rest(self, method, path, body=None, **headers):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.rest_port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read(), response.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def predict(self, name="toy", x=(4.0,), **spec):
        request = predict_pb2.PredictRequest(model_spec={"name": name, **spec})
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32(x)))
        return self.prediction.Predict(request, timeout=20)

    def reload(self, *configs, timeout=30, metrics=()):
        request = model_management_pb2.ReloadConfigRequest(metric_names=metrics)
        request.config.model_config_list.config.extend(configs)
        return self.model.HandleReloadConfigRequest(request, timeout=timeout)

    def stop(self, seconds=30):
        self.channel.close()
        return super().stop(seconds)


def refused(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code().name, caught.value.details()


def config(name, base_path, **options):
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

    labels = options.pop("labels", {})
    made = ModelConfig(name=name, base_path=str(base_path), model_platform="tensorflow", **options)
    made.version_labels.update(labels)
    return made


def specific(*numbers):
    return {"specific": {"versions": numbers}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, publish):
    folder = tmp_path_factory.mktemp("process")
    for number in (1, 2, 3):
        publish(folder / "toy", number)
    publish(folder / "other", 7, source=1)
    (folder / "monitoring.txt").write_text("prometheus_config { enable: true }")
    (folder / "models.txt").write_text(f'''model_config_list {{
      config {{ name: "toy" base_path: "{folder}/toy" model_platform: "tensorflow"
               model_version_policy {{ specific {{ versions: 2 versions: 3 }} }} }}
      config {{ name: "a/b" base_path: "{folder}/other" model_platform: "tensorflow" }} }}''')
    return folder


@pytest.fixture(scope="module")
def server(folder):
    process = Process(
        f"--model_config_file={folder}/models.txt", f"--monitoring_config_file={folder}/monitoring.txt",
        "--file_system_poll_wait_seconds=0.1", "--max_num_load_retries=0", "--enable_grpc_healthcheck_service=true",
        "--rest_api_enable_cors_support", "--enable_batching=false",
    )  # fmt: skip
    yield process.wait()
    assert process.stop() == 0


def example(x, **more):
    features = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=x))}
    return tf.train.Example(features=tf.train.Features(feature=features))


def examples(make, signature, *rows, name="toy", **spec):
    request = make(model_spec={"name": name, "signature_name": signature, "version": {"value": 2}, **spec})
    request.input.example_list.examples.extend(example(x) for x in rows)
    return request


def test_versions_of_a_policy_and_names_with_any_character(server):
    for number in (2, 3):
        assert server.predict(version={"value": number}).outputs["y"].float_val[0] == 2 + number
    assert server.predict().model_spec.version.value == 3
    assert refused(server.predict, version={"value": 1}) == (
        "NOT_FOUND", "Servable not found for request: Specific(toy, 1)",
    )  # fmt: skip
    assert server.predict("a/b").outputs["y"].float_val[0] == 3
    status, body, _ = server.rest("POST", "/v1/models/a%2Fb:predict", {"instances": [4.0]})
    assert (status, json.loads(body)) == (200, {"predictions": [3.0]})


def test_classify(server):
    ask = server.prediction.Classify
    response = ask(examples(classification_pb2.ClassificationRequest, "classify", [0.5, 1.0], [3.0, 4.0]))
    rows = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert rows == [[("no", 2.5), ("yes", 3.0)], [("no", 5.0), ("yes", 6.0)]]
    assert (response.model_spec.signature_name, response.model_spec.version.value) == ("classify", 2)
    response = ask(examples(classification_pb2.ClassificationRequest, "scores_only", [0.5, 1.0]))
    assert [(c.label, c.score) for c in response.result.classifications[0].classes] == [("", 2.5), ("", 3.0)]
    response = ask(examples(classification_pb2.ClassificationRequest, "classes_only", [0.5, 1.0]))
    assert [(c.label, c.score) for c in response.result.classifications[0].classes] == [("no", 0), ("yes", 0)]
    with_context = classification_pb2.ClassificationRequest(
        model_spec={"name": "toy", "signature_name": "scores_only", "version": {"value": 2}}
    )
    with_context.input.example_list_with_context.context.CopyFrom(example([1.0, 2.0]))
    with_context.input.example_list_with_context.examples.add()
    assert ask(with_context).result.classifications[0].classes[1].score == 4.0


def test_refusals_of_classify_and_regress(server):
    make = classification_pb2.ClassificationRequest

    def classify(request):
        return refused(server.prediction.Classify, request)

    def regress(signature, *more, **spec):
        request = examples(regression_pb2.RegressionRequest, signature, [1.0, 2.0], *more, **spec)
        return refused(server.prediction.Regress, request)

    assert classify(make()) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert classify(examples(make, "no")) == ("INVALID_ARGUMENT", "No signature was found with the name: no")
    assert refused(server.prediction.Regress, regression_pb2.RegressionRequest())[1] == "Missing ModelSpec"
    assert classify(examples(make, "no", name="nobody"))[0] == "NOT_FOUND"  # the model before signature and input
    assert classify(examples(make, "classify")) == ("INVALID_ARGUMENT", "Input is empty.")
    assert classify(examples(make, "pair", [1.0])) == ("INVALID_ARGUMENT", "Expected one input Tensor.")
    _, text = classify(examples(make, "regress", [1.0]))
    assert text.startswith('Expected classification signature outputs to contain at least one of "classes" or "scores"')
    _, text = classify(examples(make, "serving_default", [1.0]))
    assert text.startswith("No classification inputs found in SignatureDef: ")
    for signature, text in (
        ("three_outputs", "Expected one or two output Tensors, found 3"),
        ("flat_scores", "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ("first_scores", "Expected scores output batch size of 2. Got: 1"),
    ):
        assert classify(examples(make, signature, [1.0, 2.0], [3.0, 4.0])) == ("INVALID_ARGUMENT", text)
    assert regress("first_output", [3.0, 4.0])[1] == "Input batch size did not match output batch size: 2 vs. 1"
    assert regress("no")[1] == "No signature was found with the name: no"
    assert regress("as_halves")[1].startswith("No regression inputs found in SignatureDef: ")
    assert regress("regress_two") == (
        "INVALID_ARGUMENT",
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]",
    )
    assert regress("regress_double") == ("INVALID_ARGUMENT", "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE")
    assert regress("classify") == ("INVALID_ARGUMENT", "Expected one output Tensor.")
    assert regress("scores_only")[1].startswith("No regression outputs found in SignatureDef: ")


def test_regress_and_multi_inference(server):
    request = examples(regression_pb2.RegressionRequest, "regress", [1.0, 2.0], [2.0, 2.0])
    assert [r.value for r in server.prediction.Regress(request).result.regressions] == [3.0, 4.0]

    def ask(*tasks):
        request = inference_pb2.MultiInferenceRequest()
        for name, signature, method in tasks:
            spec = {"name": name, "signature_name": signature, "version": {"value": 3 if request.tasks else 2}}
            request.tasks.add(model_spec=spec, method_name=method)
        request.input.example_list.examples.append(example([1.0, 2.0]))
        return server.prediction.MultiInference(request)

    results = ask(("toy", "regress", REGRESS), ("toy", "classify", CLASSIFY)).results
    assert results[0].regression_result.regressions[0].value == 3.0
    assert [c.score for c in results[1].classification_result.classifications[0].classes] == [3.0, 4.0]
    assert [r.model_spec.signature_name for r in results] == ["regress", "classify"]
    assert [r.model_spec.version.value for r in results] == [2, 2]
    one = ("toy", "regress", REGRESS)
    assert refused(ask) == ("INVALID_ARGUMENT", "ModelSpec has no name specified.")
    assert refused(ask, one, ("", "x", REGRESS))[1] == "Found ModelSpec with an empty model name."
    assert refused(ask, one, ("a/b", "x", REGRESS))[1] == (
        "All ModelSpecs in a MultiInferenceRequest must access the same model name."
    )
    assert refused(ask, one, one)[1] == "Duplicate evaluation of signature: regress"
    assert refused(ask, ("toy", "x", REGRESS))[1] == "Requested signature not found in model graph: x"
    assert refused(ask, ("toy", "regress", "x")) == ("UNIMPLEMENTED", "Unsupported signature method_name: x")


def test_rest_classify_and_regress(server):
    path = "/v1/models/toy/versions/2"

    def ask(verb, body):
        status, answer, _ = server.rest("POST", f"{path}:{verb}", body)
        return status, json.loads(answer)

    body = {"signature_name": "classify", "examples": [{"x": [0.5, 1.0]}]}
    assert ask("classify", body) == (200, {"results": [[["no", 2.5], ["yes", 3.0]]]})
    body = {"signature_name": "regress", "context": {"x": [1.0, 2.0]}, "examples": [{}, {"y": {"b64": "AA=="}}]}
    assert ask("regress", body) == (200, {"results": [3.0, 3.0]})
    for bad, text in (
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": {"c": 1}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": ["a", 1]}]}, "Unexpected element type in feature: x expecting type: bytes"),
        ({"examples": [{"x": [1.5, True]}]}, "Unexpected element type in feature: x expecting type: float"),
        ({"examples": [{"x": [1, 1.5]}]}, "Unexpected element type in feature: x expecting type: int64"),
        ({"examples": [{"x": 2**63}]}, "Feature: x has uint64_t element. Only int64_t is supported."),
    ):
        status, answer = ask("regress", bad)
        assert status == 400
        assert answer["error"].endswith(text)
    status, answer = ask("regress", {"signature_name": "regress", "examples": [{"x": [1, 2]}]})
    assert status == 400
    assert "x" in answer["error"]  # whole numbers are int64, which the graph's parser refuses


def test_metrics(server):
    before = server.rest("GET", "/monitoring/prometheus/metrics")[1].decode()
    server.predict()
    refused(server.predict, "nobody")
    server.rest("POST", "/v1/models/toy:predict", {"instances": [1.0]})
    server.rest("POST", "/v1/x")
    server.rest("GET", "/v1/models/toy:predict")
    server.rest("GET", "/v1/models/toy")
    server.rest("GET", "/v1/models/%22a%5C")
    server.rest("POST", "/v1/models/toy:predict", b"{")
    status, body, headers = server.rest("GET", "/monitoring/prometheus/metrics")
    assert (status, headers.get_content_type()) == (200, "text/plain")
    text = body.decode()

    def value(text, line):
        return float(next((row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(line)), 0))

    for line, more in (
        (':tensorflow:serving:request_count{model_name="toy",status="OK"}', 3),
        (':tensorflow:serving:request_count{model_name="toy",status="INVALID_ARGUMENT"}', 1),
        (r':tensorflow:serving:request_count{model_name="\"a\\",status="NOT_FOUND"}', 1),
        (':tensorflow:serving:request_count{model_name="nobody",status="NOT_FOUND"}', 1),
        (':tensorflow:serving:request_count{model_name="",status="INVALID_ARGUMENT"}', 2),
        (':tensorflow:serving:request_latency_count{model_name="nobody",API="Predict",entrypoint="GRPC"}', 0),
        (':tensorflow:serving:request_latency_count{model_name="toy",API="Predict",entrypoint="GRPC"}', 1),
        (':tensorflow:serving:request_latency_count{model_name="toy",API="predict",entrypoint="REST"}', 1),
        (':tensorflow:serving:runtime_latency_count{model_name="toy",API="Predict",runtime="TF1"}', 2),
    ):
        assert value(text, line) == value(before, line) + more, line
    assert "# TYPE :tensorflow:serving:request_latency histogram\n" in text
    buckets = [row for row in text.splitlines() if row.startswith(":tensorflow:serving:request_latency_bucket")]
    assert 'le="10"' in buckets[0]
    assert 'le="+Inf"' in buckets[33]
    assert ":tensorflow:serving:request_latency_sum{" in text
    assert "# TYPE :tensorflow:serving:request_count counter\n" in text
    assert text.endswith("\n")
    path = "/monitoring/prometheus/metrics"
    status, body, headers = server.rest("GET", f"{path}?a")
    assert (status, headers.get_content_type()) == (400, "text/plain")
    assert body.decode() == f"Unexpected path: {path}?a. Should be {path}"


def test_cors_health_and_bodies(server):
    status, _, headers = server.rest("OPTIONS", "/v1/models/toy:predict", Origin="https://example.org")
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "*")
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    health = health_pb2_grpc.HealthStub(server.channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    body = gzip.compress(json.dumps({"instances": [1.0] * 1_000_000}).encode())
    status, answer, _ = server.rest("POST", "/v1/models/toy:predict", body, **{"Content-Encoding": "gzip"})
    assert (status, len(json.loads(answer)["predictions"])) == (200, 1_000_000)
    x = np.ones(5_500_000)  # 22 MB
    assert len(server.predict(x=x).outputs["y"].float_val) == x.size


def test_reload_labels_and_status(server, folder, publish):
    toy, other = config("toy", folder / "toy"), config("a/b", folder / "other")
    for bad, text in (
        ([toy, toy], "Illegal to list model toy multiple times in config list"),
        ([config("toy", "here")], "Expected model toy to have an absolute path or URI; got base_path()=here"),
        ([config("toy", "/x", model_type=1)], "Illegal setting both ModelServerConfig::model_type"),
    ):
        code, found = refused(server.reload, *bad)
        assert (code, found.startswith(text)) == ("INVALID_ARGUMENT", True)
    nothing = config("toy", folder / "toy")
    nothing.model_platform = ""
    assert refused(server.reload, nothing)[1].startswith("Illegal setting neither ModelServerConfig::model_type")
    nothing.model_platform = "caffe"
    assert refused(server.reload, nothing)[1] == (
        "Illegal to change a model's platform. For model toy platform was tensorflow and new platform requested is "
        "caffe"
    )
    nothing.name = "new"
    assert refused(server.reload, toy, other, nothing)[1] == "Model new requests unsupported platform caffe"
    request = model_management_pb2.ReloadConfigRequest()
    assert refused(server.model.HandleReloadConfigRequest, request)[1].startswith(
        "ServerModelConfig type not supported"
    )

    policy = {"model_version_policy": specific(2, 3)}
    response = server.reload(
        config("toy", folder / "toy", labels={"stable": 2, "canary": 3}, **policy), other, metrics=["x"]
    )
    assert (response.HasField("status"), response.status.error_code) == (True, 0)
    assert [(m.name, m.int64_value_increase) for m in response.metric] == [("x", 0)]
    answer = server.predict(version_label="stable")
    assert (answer.outputs["y"].float_val[0], answer.model_spec.version_label) == (4, "")
    assert json.loads(server.rest("POST", "/v1/models/toy/labels/canary:predict", {"instances": [4]})[1]) == {
        "predictions": [5.0]
    }
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec={"name": "toy", "version_label": "stable"}, metadata_field=["signature_def"]
    )
    assert server.prediction.GetModelMetadata(metadata).model_spec.version.value == 2
    answer = server.rest("GET", "/v1/models/toy/labels/c%61nary/metadata")[1]
    assert json.loads(answer)["model_spec"]["version"] == "3"
    code, text = refused(server.reload, config("toy", folder / "toy", labels={"stable": 9}, **policy), other)
    assert (code, text) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 9 of model toy, which is not currently available for inference",
    )
    assert server.predict(version_label="stable").model_spec.version.value == 2
    assert refused(server.predict, version_label="new") == (
        "INVALID_ARGUMENT", "Unrecognized servable version label: new",
    )  # fmt: skip
    assert refused(server.predict, "nobody", version_label="new")[0] == "INVALID_ARGUMENT"

    # A new model is there when the call returns; one that is left out is unloaded, and remembered.
    server.reload(config("toy", folder / "toy", **policy), config("third", folder / "other"))
    assert server.predict("third").model_spec.version.value == 7
    refused(server.predict, version_label="stable")  # labels are replaced as a whole
    end = time.monotonic() + 10
    while time.monotonic() < end:
        status = server.model.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "a/b"}))
        if status.model_version_status[0].state == 50:
            break
    assert [(s.version, s.state) for s in status.model_version_status] == [(7, 50)]
    assert refused(server.predict, "a/b") == ("NOT_FOUND", "Servable not found for request: Latest(a/b)")

    # What the real server hangs on is an error here, at once, and the next reload works.
    started = time.monotonic()
    code, text = refused(server.reload, config("toy", folder / "toy", **policy), config("gone", folder / "nowhere"))
    assert code == "UNKNOWN"
    assert text.startswith("1 model(s) did not become available: {{{name: gone")
    assert time.monotonic() - started < 5
    (folder / "broken" / "1").mkdir(parents=True)
    code, text = refused(server.reload, config("toy", folder / "toy", **policy), config("broken", folder / "broken"))
    assert (code, "{name: broken version: 1} due to error: NOT_FOUND" in text) == ("UNKNOWN", True)
    server.reload(config("toy", folder / "toy", **policy), config("a/b", folder / "other"))
    assert server.predict("a/b").model_spec.version.value == 7

    # Another policy of a known model: versions come and go without a gap.
    server.reload(config("toy", folder / "toy", model_version_policy={"all": {}}), config("a/b", folder / "other"))
    end = time.monotonic() + 10
    while time.monotonic() < end and refused_or_none(server, 1):
        time.sleep(0.05)
    assert server.predict(version={"value": 1}).outputs["y"].float_val[0] == 3
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec={"name": "toy", "version": {"value": 1}}, metadata_field=["signature_def"]
    )
    assert server.prediction.GetModelMetadata(metadata).model_spec.version.value == 1


def test_versions_come_and_go_on_disk(server, folder, publish):
    """The last test with this server's configuration: models come and go with their directories."""
    base = folder / "moving"
    publish(base, "00000123", 1)
    publish(base, 124, 2)
    (base / "125x").mkdir()
    latest_two = {"model_version_policy": {"latest": {"num_versions": 2}}}
    missing = config("missing", folder / "toy", model_version_policy=specific(1, 99))  # no more than a warning
    server.reload(config("moving", base, labels={"old": 123}, **latest_two), missing)
    assert server.predict("missing").model_spec.version.value == 1
    assert server.predict("moving", version={"value": 123}).outputs["y"].float_val[0] == 3
    assert server.predict("moving", version_label="old").model_spec.version.value == 123

    def wait(**states):
        request, end = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "moving"}), time.monotonic() + 10
        while time.monotonic() < end:
            found = server.model.GetModelStatus(request).model_version_status
            if {f"v{entry.version}": entry.state for entry in found} == states:
                return [entry.version for entry in found]
            time.sleep(0.02)
        return pytest.fail(f"the states must become {states}. Received: {found}")

    (base / "126").write_text("a file counts as a version, too")  # the newest two: 126, which fails, and 124
    assert wait(v126=50, v124=30, v123=50) == [126, 124, 123]  # newest first, ended ones too
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "moving", "version": {"value": 126}})
    (entry,) = server.model.GetModelStatus(request).model_version_status
    assert (entry.status.error_code, entry.status.error_message.split(":")[0]) == (
        5, "Could not find SavedModel .pb or .pbtxt at supplied export directory path",
    )  # fmt: skip
    assert refused(server.predict, "moving", version_label="old") == (
        "NOT_FOUND", "Servable not found for request: Specific(moving, 123)",
    )  # fmt: skip
    (base / "126").unlink()
    wait(v126=50, v124=30, v123=30)  # the next newest is loaded again
    shutil.rmtree(base / "124")
    wait(v126=50, v124=50, v123=30)
    assert server.predict("moving").model_spec.version.value == 123
    base.rename(folder / "away")
    time.sleep(0.3)
    assert server.predict("moving").model_spec.version.value == 123  # as long as its base path cannot be read
    shutil.rmtree(folder / "away" / "00000123")
    (folder / "away").rename(base)
    wait(v126=50, v124=50, v123=50)
    assert refused(server.predict, "moving") == ("NOT_FOUND", "Servable not found for request: Latest(moving)")


def refused_or_none(server, number):
    try:
        server.predict(version={"value": number})
    except grpc.RpcError as error:
        return error
    return None


@pytest.fixture
def serve(monkeypatch, capsys):
    """The command in this process, with flags that let it begin nothing: its exit status and what it said."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["tfmtr", "serve", *flags])
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            gc.unfreeze()
        return ended.value.code, "".join(capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list { config { nme: 1 } }", "must hold a ModelServerConfig"),
        ("", "must hold a model_config_list"),
    ],
)
def test_a_configuration_that_is_none_exits_with_255(serve, tmp_path, text, message):
    (tmp_path / "models.txt").write_text(text)
    status, error = serve(f"--model_config_file={tmp_path}/models.txt")
    assert status == 255
    assert "Failed to start server. Error: " in error
    assert message in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'model_config_list { config { name: "toy" base_path: "FOLDER/toy" model_platform: "tensorflow" '
            'version_labels { key: "stable" value: 2 } } }',
            "Request to assign label to version 2 of model toy",
        ),
        (
            'model_config_list { config { name: "toy" base_path: "FOLDER/broken" model_platform: "tensorflow" } }',
            "Could not find SavedModel .pb",
        ),
    ],
)
def test_a_start_that_fails_exits_with_255(folder, tmp_path, text, message):
    (folder / "broken" / "1").mkdir(parents=True, exist_ok=True)
    (tmp_path / "models.txt").write_text(text.replace("FOLDER", str(folder)))
    process = Process(f"--model_config_file={tmp_path}/models.txt", "--max_num_load_retries=0")
    assert process.process.wait(60) == 255
    error = process.log()
    assert "Failed to start server. Error: " in error
    assert message in error
    process.stop()


def test_bad_messages_leave_no_line_in_the_log(server):
    before = len(server.log())
    for path in ("PredictionService/Predict", "PredictionService/Classify", "ModelService/GetModelStatus"):
        code, text = refused(server.channel.unary_unary(f"/tensorflow.serving.{path}"), b"\xff\xff", timeout=20)
        assert (code, text) == ("INTERNAL", "Exception deserializing request!")
    assert len(server.log()) == before


def test_flags_that_do_not_fit(folder, serve):
    for flags, message in (
        ([], "--model_base_path or --model_config_file must say what to serve"),
        ([f"--model_base_path={folder}/toy", "--batching_parameters_file=x"], "needs --enable_batching"),
        ([f"--model_base_path={folder}/toy", "--port=0"], "must say where to listen"),
        ([f"--model_base_path={folder}/toy", "--prefer_tflite_model=true"], "--prefer_tflite_model must be left out"),
    ):
        status, error = serve(*flags)
        assert (status, message in error) == (1, True), error
    status, text = serve("--version")
    assert (status, "TensorFlow" in text) == (0, True)


def test_tls_a_socket_and_a_limit_of_size(folder, tmp_path):
    """The certificate in `tls/` is for tests alone: localhost, self-signed, with its key."""
    cert, key = ((Path(__file__).parent / "tls" / name).read_text() for name in ("cert.pem", "key.pem"))
    (tmp_path / "ssl.txt").write_text(f"server_key: {json.dumps(key)} server_cert: {json.dumps(cert)}")
    process = Process(
        f"--model_base_path={folder}/toy", "--model_name=toy", f"--ssl_config_file={tmp_path}/ssl.txt",
        f"--grpc_socket_path={tmp_path}/socket", "--max_request_bytes=10000",
        "--enable_serialization_as_tensor_content",
    ).wait()  # fmt: skip
    secure = grpc.secure_channel(f"localhost:{process.port}", grpc.ssl_channel_credentials(cert.encode()))
    process.prediction = prediction_service_pb2_grpc.PredictionServiceStub(secure)
    answer = process.predict().outputs["y"]
    assert (answer.tensor_content, list(answer.float_val)) == (np.float32([5]).tobytes(), [])
    assert refused(process.predict, x=np.ones(5000))[0] == "RESOURCE_EXHAUSTED"
    context = ssl.create_default_context(cadata=cert)
    url = f"https://localhost:{process.rest_port}/v1/models/toy:predict"
    with urllib.request.urlopen(url, b'{"instances": [4]}', context=context, timeout=10) as response:
        assert json.load(response) == {"predictions": [5.0]}
    with pytest.raises(urllib.error.HTTPError, match="413"):
        urllib.request.urlopen(url, b" " * 20_000, context=context, timeout=10)
    with grpc.insecure_channel(f"unix:{tmp_path}/socket") as channel:
        process.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert process.predict().model_spec.version.value == 3
    secure.close()
    assert process.stop() == 0


def test_a_configuration_file_is_read_again_and_a_bad_one_changes_nothing(folder, tmp_path):
    """And three more flags, without a process of their own: labels for later, a path of metrics, names of methods."""
    file = tmp_path / "models.txt"
    (tmp_path / "monitoring.txt").write_text('prometheus_config { enable: true path: "/numbers" }')

    def write(name, labels=""):
        hidden = tmp_path / "hidden"
        hidden.write_text(
            f'model_config_list {{ config {{ name: "{name}" base_path: "{folder}/other" '
            f'model_platform: "tensorflow" {labels} }} }}'
        )
        hidden.rename(file)

    def wait_for(name):
        end = time.monotonic() + 15
        while time.monotonic() < end:
            try:
                return process.predict(name)
            except grpc.RpcError:
                time.sleep(0.1)
        return process.predict(name)

    write("first", 'version_labels { key: "late" value: 9 }')
    process = Process(
        f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models", f"--monitoring_config_file={tmp_path}/monitoring.txt",
        "--enable_signature_method_name_check",
    ).wait()  # fmt: skip
    assert process.predict("first").model_spec.version.value == 7
    assert b":tensorflow:serving:request_count" in process.rest("GET", "/numbers")[1]
    request = classification_pb2.ClassificationRequest(model_spec={"name": "first"})
    assert refused(process.prediction.Classify, request)[1] == (
        "Expected classification signature method_name to be tensorflow/serving/classify. Was: "
        "tensorflow/serving/predict"
    )
    assert refused(process.predict, "first", version_label="late")[1] == (
        "Servable not found for request: Specific(first, 9)"
    )
    code, text = refused(process.reload, config("first", folder / "other", labels={"late": 8}))
    assert (code, text.startswith("Request to assign label to version 8 of model first")) == (
        "FAILED_PRECONDITION", True,
    )  # fmt: skip
    process.reload(config("mine", folder / "other"))
    assert process.predict("mine").model_spec.version.value == 7
    wait_for("first")  # the file is applied again
    assert refused(process.predict, "mine")[0] == "NOT_FOUND"
    file.write_text("nonsense")
    time.sleep(1.5)
    assert process.predict("first").model_spec.version.value == 7
    write("second")
    assert wait_for("second").model_spec.version.value == 7
    assert refused(process.predict, "first")[0] == "NOT_FOUND"
    assert process.stop() == 0


def test_batching_for_models_that_ask_for_it(tmp_path, publish):
    publish(tmp_path / "toy", 2)
    (tmp_path / "toy" / "2" / "batching_params.pbtxt").write_text("max_batch_size { value: 4 }")
    (tmp_path / "all.txt").write_text("max_batch_size { value: 3 }")
    base = f"--model_base_path={tmp_path}/toy"
    for flags, most in ((["--enable_per_model_batching_parameters"], 4),
                        ([f"--batching_parameters_file={tmp_path}/all.txt"], 3)):  # fmt: skip
        process = Process(base, "--model_name=toy", "--enable_batching", *flags).wait()
        assert list(process.predict(x=[2.0] * most).outputs["y"].float_val) == [3.0] * most
        assert refused(process.predict, x=[2.0] * (most + 1)) == (
            "INVALID_ARGUMENT", f"Task size {most + 1} is larger than maximum input batch size {most}",
        )  # fmt: skip
        for signature, inputs, text in (
            ("endless", {"x": np.float32(0)}, "Batching Run() input tensors must have at least one dimension"),
            (
                "pair",
                {"text": ["a"], "number": np.array([1, 2])},
                "Batching Run() input tensors must have equal 0th-dimension size",
            ),
        ):
            request = predict_pb2.PredictRequest(model_spec={"name": "toy", "signature_name": signature})
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            assert refused(process.prediction.Predict, request, timeout=20) == ("INVALID_ARGUMENT", text)
        assert process.stop() == 0

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import kubernetes_validate
import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tfmtr.serving import deploy_kit as kit_module
from tfmtr.serving.batching import BatchingOptions
from tfmtr.serving.client import Client
from tfmtr.serving.deploy_kit import batch_size, deploy_kit, foreign_operations
from tfmtr.serving.errors import ServerError
from tfmtr.serving.server import Server
from tfmtr.serving.text_protos import BatchingParameters, MonitoringConfig, read_text_proto
from tfmtr.serving.warmup import FILE


@pytest.fixture(scope="module")
def kit(tmp_path_factory, publish):
    folder = tmp_path_factory.mktemp("kit")
    publish(folder / "Toy Model", 1)
    publish(folder / "Toy Model", 3)
    files = deploy_kit(folder / "Toy Model", folder / "deploy")
    return folder, files


def test_configurations_parse_as_what_they_are(kit):
    folder, files = kit
    assert {"docker-compose.yml", "kubernetes.yaml", "client.py", "client.sh", "load_test.py", "README.md"} < set(files)
    config = folder / "deploy" / "config"
    (model,) = read_text_proto(config / "model.config", ModelServerConfig).model_config_list.config
    assert (model.name, model.base_path, dict(model.version_labels)) == (
        "Toy Model",
        "/models/Toy Model",
        {"stable": 3},
    )
    assert read_text_proto(config / "monitoring.config", MonitoringConfig).prometheus_config.enable
    options = BatchingOptions.from_proto(read_text_proto(config / "batching.config", BatchingParameters))
    assert options.max_batch_size == options.allowed_batch_sizes[-1] == 1024
    for file in ("client.py", "load_test.py"):  # who asks for help is told, and is no address
        text = (folder / "deploy" / file).read_text()
        assert "parse_args()" in text
        ast.parse(text)
    for file in files:
        assert "$" not in (folder / "deploy" / file).read_text().replace("$SERVER", "").replace("${1:-", "").replace(
            "$(dirname", ""
        ).replace("$0", "")


def test_batches_fit_the_memory_that_the_titles_leave():
    assert [batch_size(titles) for titles in (0, 1000, 1_000_000, 100_000_000)] == [1024, 1024, 128, 16]


def test_kubernetes_takes_the_manifests(kit):
    documents = list(yaml.safe_load_all((kit[0] / "deploy" / "kubernetes.yaml").read_text()))
    assert [document["kind"] for document in documents] == [
        "ConfigMap", "PersistentVolumeClaim", "Deployment", "Service",
    ]  # fmt: skip
    for document in documents:
        kubernetes_validate.validate(document, "1.30", strict=True)
    config, _, deployment, _ = documents
    for name in ("model", "batching", "monitoring"):
        file = kit[0] / "deploy" / "config" / f"{name}.config"
        assert config["data"][f"{name}.config"].strip() == file.read_text().strip()
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "tensorflow/serving:2.20.0-gpu"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["startupProbe"]["httpGet"]["path"] == "/v1/models/Toy%20Model"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_compose_mounts_the_model_and_asks_for_a_gpu(kit):
    document = yaml.safe_load((kit[0] / "deploy" / "docker-compose.yml").read_text())
    (service,) = document["services"].values()
    assert service["image"].endswith("-gpu")
    assert [(v["source"], v["target"]) for v in service["volumes"]] == [
        (str(kit[0] / "Toy Model"), "/models/Toy Model"), ("./config", "/config"),
    ]  # fmt: skip
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_the_flags_of_the_manifests_serve_the_model_and_the_clients_are_answered(kit, publish):
    """With the embedded server in the image's place: the same flags and files, other paths and ports."""
    folder = kit[0]
    document = yaml.safe_load((folder / "deploy" / "docker-compose.yml").read_text())
    (service,) = document["services"].values()
    config = folder / "deploy" / "config"
    local = folder / "model.config"
    publish(folder / "pairs", 2)
    text = (config / "model.config").read_text().replace("/models/", f"{folder}/")
    models = text_format.Parse(text, ModelServerConfig())
    models.model_config_list.config.add(name="pairs", base_path=f"{folder}/pairs", model_platform="tensorflow")
    local.write_text(str(models))
    flags = dict(flag.removeprefix("--").split("=") for flag in service["command"])
    read = {"true": True, "30000": 30_000, "60": 60}
    flags = {k: read.get(v, v.replace("/config", str(config))) for k, v in flags.items()} | {
        "model_config_file": str(local)
    }
    with Server(port=0, rest_api_port=0, **flags) as server:
        deploy = folder / "deploy"
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, deploy / "client.py", f"127.0.0.1:{server.port}"]
        found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        assert found.stdout == "y [3.0]\n"
        command = [sys.executable, "load_test.py", f"127.0.0.1:{server.port}", "4", "1"]
        found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=deploy)
        assert "requests/s, p50 " in found.stdout
        assert "\n0 failures []\n" in found.stdout
        with Client(f"127.0.0.1:{server.port}", "pairs") as client:
            for texts, options in ((["a"], {}), (["a", "b"], {}), (["a", "b"], {"number": np.array([1])})):
                joined = client.predict({"text": texts, **options}, "pair_by_default")["joined"].tolist()
                assert joined == [f"{text}-{options.get('number', [7])[0]}".encode() for text in texts]
        command = ["sh", deploy / "client.sh", f"127.0.0.1:{server.rest_port}"]  # from another folder
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        assert json.loads(found.stdout[found.stdout.rindex("{\n") :]) == {"predictions": [3.0]}


NAMES = ("my model", "é", 'a"b', "123", "null", "2tower", "a'b\\c", "a: b #c", "$HOME", "x" * 100, "%20m")


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory, publish):
    folder = tmp_path_factory.mktemp("odd") / "a $b: 'c' #d"
    folder.mkdir()
    publish(folder / "toy", 1)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_quoted_right(odd_folder, monkeypatch, name):
    monkeypatch.setattr(kit_module, "write_warm_up", lambda requests, version: None)
    out = odd_folder / "deploy"
    deploy_kit(odd_folder / "toy", out, name=name)
    (model,) = read_text_proto(out / "config" / "model.config", ModelServerConfig).model_config_list.config
    assert (model.name, model.base_path) == (name, f"/models/{name}")
    documents = list(yaml.safe_load_all((out / "kubernetes.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, "1.30", strict=True)
        label = document["metadata"]["name"]
        assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", label)
        assert len(label) <= 63
    found = text_format.Parse(documents[0]["data"]["model.config"], ModelServerConfig())
    assert found.model_config_list.config[0].name == name
    (service,) = yaml.safe_load((out / "docker-compose.yml").read_text())["services"].values()
    mount = {
        key: value.replace("$$", "$") for key, value in service["volumes"][0].items() if key in ("source", "target")
    }
    assert mount == {"source": str(odd_folder / "toy"), "target": f"/models/{name}"}
    # What the health check writes, and what the shell's client would send.
    path = f"/v1/models/{quote(name, safe='')}"
    command = service["healthcheck"]["test"][-1].split("&& ")[1].replace(">&3", "")
    said = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    assert said == f"GET {path} HTTP/1.0\n\n"  # text mode reads \r\n so
    assert f"http://$SERVER{path}:predict" in (out / "client.sh").read_text()
    ast.parse((out / "client.py").read_text())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a\x00", "a" * 256, "é" * 128])
def test_what_can_be_no_name_is_refused(odd_folder, name):
    with pytest.raises(ValueError, match="`name` must be text without a slash and control characters"):
        deploy_kit(odd_folder / "toy", odd_folder / "deploy", name=name)


def test_the_manifests_say_who_writes_who_may_ask_and_how_long_a_stop_takes(kit):
    folder = kit[0] / "deploy"
    _, claim, deployment, _ = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]  # exporters write there
    pod = deployment["spec"]["template"]["spec"]
    assert all(mount["readOnly"] for container in pod["containers"] for mount in container["volumeMounts"])
    assert pod["terminationGracePeriodSeconds"] == 30
    (service,) = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"].values()
    assert service["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    assert (service["init"], service["stop_grace_period"]) == (True, "10s")


def test_a_model_whose_warm_up_fails_is_not_served(kit, tmp_path, publish):
    publish(tmp_path / "toy", 1)
    deploy_kit(tmp_path / "toy", tmp_path / "deploy")
    records = tf.data.TFRecordDataset(str(tmp_path / "toy" / "1" / FILE))
    assert len(list(records)) == 9  # 1, 8, 16 .. 1024 rows of one signature
    (tmp_path / "toy" / "1" / FILE).write_bytes(b"x" * 100)
    with pytest.raises(ServerError, match="DATA_LOSS"):
        Server(tmp_path / "toy", port=0, max_num_load_retries=0).start()


def test_a_signature_that_does_not_answer_zeros_and_empty_text_has_no_warm_up(tmp_path):
    """One of serialized examples that must have a feature: with its warm-up the version would not be served."""

    class Parsing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
        def parsed(self, inputs):
            return tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([2], tf.float32)})

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def half(self, x):
            return {"y": x / 2}

    model = Parsing()
    signatures = {"serving_default": model.half, "parsed": model.parsed}
    tf.saved_model.save(model, str(tmp_path / "toy" / "1"), signatures=signatures)
    with pytest.warns(UserWarning, match="the signature 'parsed' has no warm-up requests: .*Feature: x .* is required"):
        deploy_kit(tmp_path / "toy", tmp_path / "deploy")
    flags = {"model_name": "toy", "port": 0, "rest_api_port": 0, "max_num_load_retries": 0}
    with Server(tmp_path / "toy", **flags) as server, Client(f"127.0.0.1:{server.port}", "toy") as client:
        assert client.predict({"x": np.float32([3.0])})["y"].tolist() == [1.5]


def test_operations_that_the_image_lacks_are_named(tmp_path, publish):
    publish(tmp_path / "toy", 1)
    file = tmp_path / "toy" / "1" / "saved_model.pb"
    saved_model = SavedModel.FromString(file.read_bytes())
    assert foreign_operations(saved_model) == set()
    saved_model.meta_graphs[0].graph_def.node.add(name="x", op="Scann>ScannSearch")
    saved_model.meta_graphs[0].graph_def.library.function[0].node_def.add(name="y", op="Nobodys")
    assert foreign_operations(saved_model) == {"Scann>ScannSearch", "Nobodys"}
    file.write_bytes(saved_model.SerializeToString())
    with pytest.raises(
        ValueError, match=r"lacks operations of this graph.*Received: \['Nobodys', 'Scann>ScannSearch'\]"
    ):
        deploy_kit(tmp_path / "toy", tmp_path / "deploy")
    with pytest.raises(ValueError, match=r"`model` must hold <integer version>/saved_model\.pb"):
        deploy_kit(Path(tmp_path), tmp_path / "deploy")

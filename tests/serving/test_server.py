import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tfmtr.serving import rest_server
from tfmtr.serving.client import Client, ServerError
from tfmtr.serving.grpc_server import OPTIONS
from tfmtr.serving.options import ServerOptions
from tfmtr.serving.process import free_port
from tfmtr.serving.server import Server, serve

LAYOUT = "<model_base_path>/<integer version>/saved_model.pb"


@pytest.fixture
def base(tmp_path, publish):
    publish(tmp_path / "toy", 1)
    return tmp_path / "toy"


def _wait(condition, seconds=10):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "the server did not get there in time"
        time.sleep(0.02)


def _rest_predict(port, x):
    body = json.dumps({"instances": [x]}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/toy:predict", body, timeout=10) as response:
        return json.load(response)["predictions"][0]


def test_hot_swap_under_load_fails_no_request_and_a_corrupt_version_changes_nothing(base, publish):
    answers, failures, stop = [], [], threading.Event()
    options = {"file_system_poll_wait_seconds": 0.05, "max_num_load_retries": 1, "load_retry_interval_micros": 50_000}
    with Server(base, model_name="toy", port=0, rest_api_port=0, **options) as server:

        def load(ask):
            while not stop.is_set():
                try:
                    answers.append(ask())
                except Exception as error:
                    failures.append(error)

        client = Client(f"127.0.0.1:{server.port}", "toy")
        asks = [lambda: float(client.predict({"x": np.float32([4])})["y"][0])] * 3
        asks += [lambda: _rest_predict(server.rest_port, 4)]
        threads = [threading.Thread(target=load, args=(ask,)) for ask in asks]
        for thread in threads:
            thread.start()
        try:
            for number, source in ((2, 2), (3, 3), (4, 1), (5, 2), (6, 3)):
                publish(base, number, source)
                _wait(lambda number=number: client.status()[0].version == number and client.status()[0].state == 30)
                time.sleep(0.1)
            (base / "tmp-7").mkdir()
            (base / "tmp-7" / "saved_model.pb").write_bytes(b"garbage")
            (base / "tmp-7").rename(base / "7")
            _wait(lambda: client.status()[0].version == 7 and client.status()[0].state == 50)
            broken, live = client.status()[:2]
            count = len(answers)
            _wait(lambda: len(answers) > count + 20)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        _wait(lambda: [entry.state for entry in client.status()] == [50, 30, 50, 50, 50, 50, 50])
        client.close()
    assert failures == []
    assert set(answers) == {3.0, 4.0, 5.0}
    assert answers[-1] == 5.0
    assert "saved_model.pb" in broken.status.error_message
    assert (live.version, live.state, live.status.error_code) == (6, 30, 0)


def test_default_arguments_serve_grpc_only_on_loopback(base):
    with Server(base, port=0) as server:
        assert server.rest_port is None
        with Client(f"127.0.0.1:{server.port}", "default") as client:
            assert client.predict({"x": [4]})["y"] == [3.0]


def test_ports_open_only_when_a_version_is_available(tmp_path, publish):
    base = tmp_path / "toy"
    base.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(base, port=port, file_system_poll_wait_seconds=0.05)
    starter = threading.Thread(target=server.start)
    starter.start()
    time.sleep(0.3)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    publish(base, 1)
    starter.join(10)
    socket.create_connection(("127.0.0.1", port)).close()
    server.stop()


def test_calls_beyond_the_number_of_threads_wait(tmp_path, publish):
    publish(tmp_path / "toy", 2)
    with Server(
        tmp_path / "toy", model_name="toy", port=0, rest_api_port=0, grpc_max_threads=1, rest_api_num_threads=1
    ) as server:

        def by_grpc():
            with Client(f"127.0.0.1:{server.port}", "toy") as client:
                return client.predict({"seconds": 0.2}, "pause")["seconds"].item()

        def by_rest():
            body = json.dumps({"signature_name": "pause", "inputs": 0.2}).encode()
            url = f"http://127.0.0.1:{server.rest_port}/v1/models/toy:predict"
            with urllib.request.urlopen(url, body, timeout=10) as response:
                return json.load(response)["outputs"]

        started = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(ask) for ask in (by_grpc, by_rest) * 3]
            assert [call.result() for call in asked] == [0.2] * 6
        assert time.monotonic() - started > 0.55


def test_a_model_that_cannot_be_loaded_holds_up_no_other(base, tmp_path):
    (tmp_path / "broken" / "1").mkdir(parents=True)
    request = model_management_pb2.ReloadConfigRequest()
    for name in ("broken", "toy", "new"):
        path = tmp_path / ("broken" if name == "broken" else "toy")
        request.config.model_config_list.config.add(name=name, base_path=str(path), model_platform="tensorflow")
    with (
        Server(base, model_name="toy", port=0, load_retry_interval_micros=10_000_000) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest(request, timeout=1)
        # Its retries go on: the client's deadline, or the server's answer to it, whichever comes first.
        is_late = caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert is_late or "DEADLINE_EXCEEDED: model broken is still loading" in caught.value.details()
        for name in ("toy", "new"):
            with Client(f"127.0.0.1:{server.port}", name) as client:
                assert client.predict({"x": [4]})["y"] == [3.0]


def test_request_stop_ends_the_wait_for_a_first_version(tmp_path):
    server = Server(tmp_path, port=0)
    threading.Timer(0.2, server.request_stop).start()
    assert server.start() is False


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path, publish: path / "absent", f"`model_base_path` must be a directory laid out as {LAYOUT}; export"),
        (lambda path, publish: publish(path, 1) or path / "1", f"{LAYOUT}, and this is a SavedModel itself; pass its"),
        (lambda path, publish: publish(path / "toy", 1) or path, "Did you mean {path}/toy?"),
        (lambda path, publish: (path / "run.json").touch() or path, f"{LAYOUT}; it has no version directory."),
    ],
)
def test_base_path_without_versions(tmp_path, publish, make, text):
    path = make(tmp_path, publish)
    with pytest.raises(ValueError, match="model_base_path") as caught:
        Server(path)
    assert text.format(path=tmp_path) in str(caught.value)
    assert f"Received: model_base_path={str(path)!r}" in str(caught.value)


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_busy_port(base, used_port, flag):
    server = Server(base, **{"port": 0, flag: used_port})
    with pytest.raises(OSError, match=rf"port {used_port} on 127\.0\.0\.1 is in use; choose another with --{flag} "):
        server.start()


def test_port_taken_while_the_model_loads(base, used_port, monkeypatch):
    monkeypatch.setattr("tfmtr.serving.server.check_port_is_free", lambda *_: None)
    for ports in ({"port": used_port}, {"port": 0, "rest_api_port": used_port}):
        with pytest.raises(OSError, match=str(used_port)):
            Server(base, **ports).start()
    with Server(base, port=0) as server, pytest.raises(OSError, match=str(server.port)):
        Server(base, port=server.port).start()


def test_host_that_is_not_ours(base):
    with pytest.raises(OSError, match=r"cannot listen on port 0 of 203\.0\.113\.1: "):
        Server(base, port=0, host="203.0.113.1").start()


def test_equal_ports_leave_rest_off(base, caplog):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Server(base, port=port, rest_api_port=port) as server:
        assert server.rest_port is None
    assert "REST is off" in caplog.text


def test_serve_exits_with_255_when_the_model_cannot_be_loaded(tmp_path, capsys):
    (tmp_path / "1").mkdir()
    with pytest.raises(SystemExit) as caught:
        serve(tmp_path, port=free_port(), max_num_load_retries=0)
    assert caught.value.code == 255
    assert capsys.readouterr().err.startswith(
        "Failed to start server. Error: NOT_FOUND: Could not find SavedModel .pb or .pbtxt at supplied export directory"
    )


def test_serve_takes_port_0_for_no_port(base, monkeypatch):
    received = []

    class Stop(Exception):  # noqa: N818
        pass

    def record(path, **flags):
        received.append((flags["port"], flags["rest_api_port"]))
        raise Stop

    monkeypatch.setattr("tfmtr.serving.server.Server", record)
    for ports in ({}, {"rest_api_port": 8501}, {"port": 0, "rest_api_port": 8501}):
        with pytest.raises(Stop):
            serve(base, **ports)
    assert received == [(8500, None), (8500, 8501), (None, 8501)]


def test_without_a_grpc_port_rest_and_a_socket_answer(base, tmp_path):
    with pytest.raises(ValueError, match=r"--port, --rest_api_port or --grpc_socket_path must say where to listen"):
        Server(base, port=None)
    with Server(base, model_name="toy", port=None, rest_api_port=0) as server:
        assert server.port is None
        assert _rest_predict(server.rest_port, 4) == 3.0
    with (
        Server(base, port=None, grpc_socket_path=str(tmp_path / "socket")) as server,
        Client(f"unix:{tmp_path}/socket", "default") as client,
    ):
        assert server.port is None
        assert client.predict({"x": [4]})["y"] == [3.0]


# The flags of main.cc at commit 9d981c5c.
FLAGS = """
port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms rest_api_enable_cors_support
enable_batching allow_version_labels_for_unavailable_models batching_parameters_file
enable_per_model_batching_parameters model_config_file model_config_file_poll_wait_seconds model_name model_base_path
num_load_threads num_unload_threads max_num_load_retries load_retry_interval_micros file_system_poll_wait_seconds
flush_filesystem_caches tensorflow_session_parallelism tensorflow_session_config_file tensorflow_intra_op_parallelism
tensorflow_inter_op_parallelism use_alts_credentials ssl_config_file platform_config_file
per_process_gpu_memory_fraction saved_model_tags grpc_channel_arguments grpc_max_threads enable_model_warmup
num_request_iterations_for_warmup monitoring_config_file remove_unused_fields_from_bundle_metagraph
prefer_tflite_model num_tflite_pools num_tflite_interpreters_per_pool enable_signature_method_name_check
xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler thread_pool_factory_config_file
mixed_precision skip_initialize_tpu enable_grpc_healthcheck_service enable_serialization_as_tensor_content
"""


def test_every_flag_of_tensorflow_serving_is_taken_or_refused_with_the_reason(base, tmp_path, caplog):
    known = {field.name for field in dataclasses.fields(ServerOptions)}
    assert set(FLAGS.split()) == known - {"host", "max_request_bytes"}
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    special = [f for f in dataclasses.fields(ServerOptions) if {"why", "refused"} & set(f.metadata)]
    for field in special:
        assert f"`{field.name}`" in page
        other = {bool: not field.default, int: 7, str: "x"}[field.type]
        if "refused" in field.metadata:
            with pytest.raises(ValueError, match=f"--{field.name} must be left out: .*Received: {field.name}="):
                Server(base, **{field.name: other})
    config = tmp_path / "session.txt"
    config.write_text("intra_op_parallelism_threads: 3 inter_op_parallelism_threads: 2 log_device_placement: true")
    given = {f.name: not f.default for f in special if f.type is bool and "why" in f.metadata}
    with (
        Server(
            base, port=0, tensorflow_session_config_file=str(config), tensorflow_inter_op_parallelism=1, **given
        ) as server,
        server._models.lease(ModelSpec(name="default")) as version,
    ):
        found = version.session._session._config
        assert (found.intra_op_parallelism_threads, found.inter_op_parallelism_threads) == (3, 1)
        assert (found.log_device_placement, found.allow_soft_placement) == (True, True)
    (line,) = [record.getMessage() for record in caplog.records if "without effect here" in record.message]
    assert all(f"--{name} (" in line for name in given)
    config.write_text("nonsense")
    with pytest.raises(ValueError, match="must hold a ConfigProto in protobuf's text format"):
        Server(base, port=0, tensorflow_session_config_file=str(config))


def test_stop_finishes_a_running_rest_request(tmp_path, publish, monkeypatch):
    started = threading.Event()

    def answer(*arguments, answer=rest_server.answer):
        started.set()
        return answer(*arguments)

    monkeypatch.setattr(rest_server, "answer", answer)
    publish(tmp_path / "toy", 2)
    server = Server(tmp_path / "toy", model_name="toy", port=0, rest_api_port=0)
    server.start()
    answers = []

    def ask():
        body = json.dumps({"signature_name": "pause", "inputs": 1}).encode()
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/toy:predict"
        with urllib.request.urlopen(url, body, timeout=10) as response:
            answers.append(json.load(response))

    thread = threading.Thread(target=ask)
    thread.start()
    assert started.wait(10)
    server.stop()
    thread.join()
    assert answers == [{"outputs": 1.0}]


def test_sigterm_finishes_running_requests_and_exits_with_0(tmp_path, publish):
    base = tmp_path / "toy"
    publish(base, 2)
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        port, rest_port = first.getsockname()[1], second.getsockname()[1]
    code = f"from tfmtr.serving.server import serve; serve({str(base)!r}, port={port}, rest_api_port={rest_port})"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        with Client(f"127.0.0.1:{port}", "default") as client:
            _wait(lambda: _is_open(rest_port), 60)
            assert client.predict({"x": [4]})["y"] == [4.0]
            answers = []
            running = threading.Thread(target=lambda: answers.append(client.predict({"seconds": 3.0}, "pause")))
            running.start()
            time.sleep(1.0)
            process.send_signal(signal.SIGTERM)
            _wait(lambda: not _is_open(port) and not _is_open(rest_port))
            assert process.poll() is None
            running.join()
            assert answers == [{"seconds": 3.0}]
        assert process.wait(20) == 0
        log = process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    for event in ("version 2 is available", f"gRPC on 127.0.0.1:{port}", f"REST on 127.0.0.1:{rest_port}", "stopped"):
        assert event in log
    assert "Traceback" not in log


def _is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_calls_while_the_server_stops_are_answered_or_unavailable(base):
    server = Server(base, model_name="toy", port=0)
    server.start()
    codes, answers = [], []

    def ask():
        with Client(f"127.0.0.1:{server.port}", "toy") as client:
            try:
                while True:
                    answers.append(client.predict({"x": np.float32([4])})["y"].item())
            except ServerError as error:
                codes.append(error.code.name)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    _wait(lambda: len(answers) > 100)
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 4
    for thread in threads:
        thread.join()
    assert codes == ["UNAVAILABLE"] * 32
    assert set(answers) == {3.0}


def test_what_outlasts_the_grace_time_is_unavailable(tmp_path, publish, monkeypatch):
    monkeypatch.setattr("tfmtr.serving.server.GRACE_SECONDS", 0.5)
    publish(tmp_path, 2)
    server = Server(tmp_path, model_name="toy", port=0, rest_api_port=0, grpc_max_threads=1)
    server.start()

    def by_grpc():
        with Client(f"127.0.0.1:{server.port}", "toy") as client, pytest.raises(ServerError) as caught:
            client.predict({"x": np.float32(0)}, "endless")
        return caught.value.code.name

    def by_rest():
        body = json.dumps({"signature_name": "endless", "inputs": 0}).encode()
        url = f"http://127.0.0.1:{server.rest_port}/v1/models/toy:predict"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, body, timeout=20)
        return caught.value.code

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask) for ask in (by_grpc, by_grpc, by_rest)]  # the second one waits for a thread
        time.sleep(0.5)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 3
        assert [call.result() for call in asked] == ["UNAVAILABLE", "UNAVAILABLE", 503]


def test_a_grpc_connection_that_says_nothing_is_closed(base):
    with (
        Server(base, port=0, grpc_channel_arguments="grpc.server_handshake_timeout_ms=200") as server,
        socket.create_connection(("127.0.0.1", server.port), 5) as connection,
    ):
        connection.sendall(b"PRI * HT")
        while connection.recv(1000):
            pass
    assert dict(OPTIONS)["grpc.server_handshake_timeout_ms"] == 20_000


def test_who_watches_the_server_s_health_holds_up_no_stop(base):
    server = Server(base, port=0, enable_grpc_healthcheck_service=True)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 3
        assert [answer.status for answer in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]

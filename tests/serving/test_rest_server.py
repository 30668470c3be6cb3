import ast
import gzip
import http.client
import importlib.metadata
import inspect
import json
import re
import socket
import struct
import threading
import time
import tomllib
import zlib
from pathlib import Path
from unittest import mock

import grpc
import pytest

from tfmtr.serving import rest_server
from tfmtr.serving.errors import ServerError
from tfmtr.serving.server import Server


@pytest.fixture(scope="module")
def ask(toy_server):
    def ask(method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", toy_server.rest_port, timeout=20)
        body = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, response.getheader("Content-Type"), data

    return ask


PREDICT = "/v1/models/toy:predict"


@pytest.mark.parametrize(
    "path",
    [
        *(PREDICT, "/V1/Models/toy/versions/2:predict", "/v1/models/toy/versions/0002:predict"),
        *("/v1/models/t%6Fy:predict", f"http://localhost{PREDICT}"),
    ],
)
def test_predict_rows(ask, path):
    status, kind, data = ask("POST", path, {"instances": [1, 2, 5]})
    assert (status, kind) == (200, "application/json")
    assert data == b'{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'


def test_predict_columns(ask):
    assert json.loads(ask("POST", PREDICT, {"inputs": [[1, 2]]})[2]) == {"outputs": [[2.5, 3.0]]}
    assert json.loads(ask("POST", PREDICT, {"inputs": 4})[2]) == {"outputs": 4.0}
    assert json.loads(ask("POST", PREDICT, {"inputs": []})[2]) == {"outputs": []}
    for signature, outputs in (
        ("reduced", {"total": 3.0, "x": [1.0, 2.0]}),
        ("uneven", {"first": [1.0], "x": [1.0, 2.0]}),
    ):
        assert json.loads(ask("POST", PREDICT, {"signature_name": signature, "inputs": [1, 2]})[2]) == {
            "outputs": outputs
        }


def test_predict_several_inputs_and_outputs(ask):
    rows = [{"text": "DE", "number": 1}, {"text": {"b64": "/w=="}, "number": 2}]
    status, _, data = ask("POST", PREDICT, {"signature_name": "pair", "instances": rows})
    assert status == 200
    assert b'"joined": "\xff-2"' in data
    assert json.loads(data.decode(errors="replace"))["predictions"][0] == {
        "group": 1,
        "joined": "DE-1",
        "text_bytes": {"b64": "REU="},
    }


def test_predict_keeps_every_type(ask):
    row = {"flag": True, "double": 0.1, "int": -3, "byte": 255, "big": 2**64 - 1}
    _, _, data = ask("POST", PREDICT, {"signature_name": "kinds", "instances": [row]})
    assert json.loads(data) == {"predictions": [row]}


def test_predict_takes_compressed_and_large_bodies(ask):
    body = json.dumps({"instances": [1.25] * 1_000_000}).encode()
    for sent, headers in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
        status, _, data = ask("POST", PREDICT, sent, headers)
        assert status == 200
        assert json.loads(data)["predictions"] == [2.625] * 1_000_000


BAD_REQUESTS = [
    ("POST", PREDICT, b"", 400, "JSON Parse error: The document is empty"),
    ("POST", "/v1/models/other:predict", b"{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
    (
        "POST",
        "/v1/models/other:predict",
        b'{"instances": [1]}',
        404,
        "Servable not found for request: Latest(other)",
    ),
    ("POST", "/v1/models/toy/versions/9:predict", b"{}", 404, "Servable not found for request: Specific(toy, 9)"),
    ("POST", "/v1/models/toy/labels/a:predict", b"{}", 400, "Unrecognized servable version label: a"),
    (
        "POST",
        f"/v1/models/toy/versions/{2**63}:predict",
        b"{}",
        400,
        f"Failed to convert version: {2**63} to numeric.",
    ),
    (
        "GET",
        f"/v1/models/toy/versions/{'9' * 5000}",
        None,
        400,
        f"Failed to convert version: {'9' * 5000} to numeric.",
    ),
    (
        "POST",
        PREDICT,
        b'{"signature_name": "s"}',
        400,
        'Serving signature name: "s" not found in signature def',
    ),
    (
        "POST",
        PREDICT,
        b'{"signature_name": "__saved_model_init_op"}',
        400,
        "Failed to get input map for signature: __saved_model_init_op",
    ),
    ("POST", PREDICT, b"{}", 400, "Missing 'inputs' or 'instances' key"),
    (
        "POST",
        PREDICT,
        b'{"signature_name": "halves", "inputs": [1]}',
        501,
        "Conversion of JSON Value: 1 to type: half",
    ),
    (
        "POST",
        PREDICT,
        b'{"signature_name": "reduced", "instances": [1]}',
        400,
        "Tensor name: total has no shape information ",
    ),
    ("POST", PREDICT + "?a=b", b"{}", 400, "Malformed request: POST " + PREDICT + "?a=b"),
    ("POST", PREDICT + "/", b"{}", 400, "Malformed request: POST " + PREDICT + "/"),
    ("POST", "/v1/models/toy:PREDICT", b"{}", 400, "Malformed request: POST /v1/models/toy:PREDICT"),
    ("PUT", PREDICT, b"{}", 400, "Malformed request: PUT " + PREDICT),
    ("GET", PREDICT, None, 400, "Malformed request: GET " + PREDICT),
    ("GET", "/v1/models", None, 400, "Missing model name in request."),
    ("GET", "/v1/models/", None, 400, "Malformed request: GET /v1/models/"),
    ("GET", "/v1/models/toy?a=b", None, 404, "Could not find any versions of model toy?a=b"),
    ("GET", "/v1/models/toy/versions/9", None, 404, "Could not find version 9 of model toy"),
    ("GET", "/v1/models/other/metadata", None, 404, "Servable not found for request: Latest(other)"),
    ("GET", "/v1/models/versions/2", None, 400, "Missing model name in request."),
    ("GET", "/V1/MODELS/LABELS/a/metadata", None, 400, "Missing model name in request."),
    ("GET", "/v1/models/metadata", None, 404, "Could not find any versions of model metadata"),
    ("GET", "/v1/models/a%2Fb%3A", None, 404, "Could not find any versions of model a/b:"),
    ("POST", "/v1/models/toy/LABELS/a%20b:predict", b"{}", 400, "Unrecognized servable version label: a b"),
    ("POST", "/v1/models/other/labels/a:predict", b"{}", 400, "Unrecognized servable version label: a"),
    ("POST", "/v1/models/other:classify", b"", 400, "JSON Parse error: The document is empty"),
    ("POST", "/v1/models/other:regress", b'{"examples": [{}]}', 404, "Servable not found for request: Latest(other)"),
    ("POST", "/v1/models/toy:multi_inference", b"{}", 400, "Malformed request: POST /v1/models/toy:multi_inference"),
    ("DELETE", "/v1/models/toy", None, 400, "Malformed request: DELETE /v1/models/toy"),
    (
        "POST",
        "/v1/models/other:predict",
        b'{"signature_name": 5}',
        400,
        'JSON Value: {\n    "signature_name": 5\n} not formatted correctly. '
        "'signature_name' key must be a string value.",
    ),
    (
        "POST",
        PREDICT,
        json.dumps({"signature_name": "s" * 5000}).encode(),
        400,
        f'Serving signature name: "{"s" * 5000}" not found in signature def',
    ),
    (
        "POST",
        PREDICT,
        b'{"signature_name": "uneven", "instances": [1, 2]}',
        400,
        "Tensor name: x has inconsistent batch size: 2 expecting: 1",
    ),
    (
        "POST",
        PREDICT,
        b'{"signature_name": "as_halves", "instances": [1]}',
        400,
        "Failed to write JSON value for tensor type: half",
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "text"), BAD_REQUESTS, ids=range(len(BAD_REQUESTS)))
def test_refusals(ask, method, path, body, status, text):
    got_status, kind, data = ask(method, path, body)
    assert (got_status, kind, json.loads(data)) == (status, "application/json", {"error": text})


SHOWN = "JSON Value: {body} "  # the body itself
ELEMENT = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: {}"
BAD_BODIES = [  # signature, rest of the body, text
    ("", {"instances": 1}, SHOWN + "Expecting 'instances' to be an list/array"),
    ("", {"instances": []}, SHOWN + "No values in 'instances' array"),
    (
        "",
        {"instances": [1], "inputs": 1},
        SHOWN + "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
    ),
    (
        "pair",
        {"instances": [1]},
        "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    (
        "pair",
        {"inputs": [1]},
        "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    ("pair", {"inputs": {"text": ["a"]}}, "Missing named input: number in 'inputs' object."),
    (
        "pair",
        {"instances": [{"text": "a"}]},
        "Failed to process element: 0 of 'instances' list. JSON object: "
        '{\n    "text": "a"\n} keys must be equal to: number,text',
    ),
    ("", {"instances": [{"z": 1}]}, ELEMENT.format("0 key: z", "JSON object: does not have named input: z")),
    ("", {"instances": [{"x": 1}, 2]}, "Expecting object but got list at item 1 of input list"),
    ("", {"instances": [1, {"x": 2}]}, "Expecting value/list but got object at item 1 of input list"),
    ("", {"instances": [[1], [1, 2]]}, ELEMENT.format(1, "Expecting tensor size: 1 but got: 2")),
    ("", {"instances": [[1, 2], [[1, 2]]]}, ELEMENT.format(1, "Expecting shape [2] but got: [1,2]")),
    (
        "",
        {"instances": ["a"]},
        ELEMENT.format(0, 'JSON Value: "a" Type: String is not of expected type: float'),
    ),
    ("", {"inputs": [[1, 2], [3]]}, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    ("", {"inputs": [1, [2]]}, "Encountered list at unexpected level: 1 expected < 1"),
    (
        "",
        {"inputs": [[1], 2]},
        "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    ("", {"inputs": [True]}, "JSON Value: true Type: True is not of expected type: float"),
    ("", {"inputs": {"b64": "aa"}}, 'JSON Value: {\n    "b64": "aa"\n} Type: Object is not of expected type: float'),
    (
        "pair",
        {"inputs": {"text": [None], "number": [1]}},
        "JSON Value: null Type: Null is not of expected type: string",
    ),
    (
        "pair",
        {"inputs": {"text": ["a"], "number": [1.0]}},
        "JSON Value: 1.0 Type: Number is not of expected type: int64",
    ),
    (
        "pair",
        {"inputs": {"text": ["a"], "number": [2**63]}},
        f"JSON Value: {2**63} Type: Number is not of expected type: int64",
    ),
    ("pair", {"inputs": {"text": [{"b64": "a"}], "number": [1]}}, "Unable to base64 decode"),
    (
        "pair",
        {"inputs": {"text": [{"b64": 1}], "number": [1]}},
        'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data',
    ),
    (
        "halves",
        {"instances": [1]},
        ELEMENT.format(0, "").replace("INVALID_ARGUMENT: ", "UNIMPLEMENTED: ")
        + "Conversion of JSON Value: 1 to type: half",
    ),
]


@pytest.mark.parametrize(("signature", "body", "text"), BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_bodies_that_are_refused(ask, signature, body, text):
    body = {"signature_name": signature, **body} if signature else body
    status, _, data = ask("POST", PREDICT, body)
    text = text.replace("{body}", json.dumps(body, indent=4))
    assert (status, json.loads(data)) == (400, {"error": text})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[1]", "JSON Value: [\n    1\n] Is not object"),
        (b'{"a": [1 2]}', "JSON Parse error: Missing a comma or ] after an array element. at offset: 9"),
        (b'{"a": 1 "b"}', "JSON Parse error: Missing a comma or } after an object member. at offset: 8"),
        (b'{"a": tru}', "JSON Parse error: Invalid value. at offset: 9"),
        (b'{"a": 1e999}', "JSON Parse error: Number too big to be stored in double. at offset: 6"),
    ],
)
def test_syntax_errors(ask, body, text):
    status, _, data = ask("POST", PREDICT, body)
    assert (status, json.loads(data)) == (400, {"error": text})


def test_json_that_is_taken(ask):
    """Special numbers, the first of equal keys, keys that nobody knows, deep ones among them, and text at the end."""
    nested = b"[" * 50_000 + b"]" * 50_000
    for body, answer in (
        (
            b'{"instances": [NaN, Infinity, Inf, -Infinity, -Inf, 1e39]}',
            b"[NaN, Infinity, Infinity, -Infinity, -Infinity, Infinity\n",
        ),
        (b'{"instances": [1, 2.5], "instances": [9], "unknown": {}} and so on', b"[2.5, 3.25\n"),
        (b'{"unknown": ' + nested + b', "instances": [1]}', b"[2.5\n"),
        (b'{"signature_name": "pair", "inputs": {"text": ["\xff"], "number": [1], "unknown": 2}}', b'"\xff-1"'),
        (
            b'{"signature_name": "kinds", "inputs": {"flag": true, "double": [], "int": [1, 2], "byte": [300],'
            b' "big": [18446744073709551615]}}',
            b'"big": [\n            18446744073709551615\n',
        ),
    ):
        status, _, data = ask("POST", PREDICT, body)
        assert (status, answer in data) == (200, True), data[:300]
    assert json.loads(data)["outputs"]["byte"] == [44]  # the low bits


def test_bodies_that_are_inflated_beyond_the_limit_are_refused(ask):
    for megabytes, expected in ((15, 200), (17, 413)):
        packer = zlib.compressobj(1, wbits=31)
        body = packer.compress(b'{"instances": [1]}')
        body += b"".join(packer.compress(b" " * 2**20) for _ in range(megabytes)) + packer.flush()
        status, kind, data = ask("POST", PREDICT, body, {"Content-Encoding": "gzip"})
        assert (status, kind) == (expected, "application/json")
    assert "error" in json.loads(data)


def test_a_run_beyond_the_time_limit_is_504(ask):
    status, _, _ = ask("POST", PREDICT, {"signature_name": "endless", "inputs": 0})
    assert status == 504


def test_status(ask):
    for path in ("/v1/models/toy", "/v1/models/toy/versions/2", "/v1/models/toy/labels/ignored"):
        status, kind, data = ask("GET", path)
        assert (status, kind) == (200, "application/json")
        assert json.loads(data) == {
            "model_version_status": [
                {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            ]
        }
    assert b"model_version_status" in ask("GET", "/v1/models/toy/METADATA")[2]  # as TF Serving takes it


def test_metadata(ask):
    status, _, data = ask("GET", "/v1/models/toy/metadata")
    document = json.loads(data)
    assert status == 200
    assert document["model_spec"] == {"name": "toy", "signature_name": "", "version": "2"}
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"] == {
        "x": {
            "dtype": "DT_FLOAT",
            "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
            "name": "serving_default_x:0",
        }
    }
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert set(signatures["serving_default"]) == {"inputs", "outputs", "method_name", "defaults"}
    assert signatures["pair_by_default"]["defaults"]["number"]["int64_val"] == ["7"]


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (400, "INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (409, "ALREADY_EXISTS ABORTED"),
        (429, "RESOURCE_EXHAUSTED"),
        (499, "CANCELLED"),
        (500, "UNKNOWN INTERNAL DATA_LOSS"),
        (501, "UNIMPLEMENTED"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_status_of_each_code(monkeypatch, status, codes):
    for code in codes.split():
        failing = mock.Mock(side_effect=ServerError(grpc.StatusCode[code], "why"))
        monkeypatch.setattr(rest_server, "answer", failing)
        assert rest_server._respond(None, "GET", "/v1/models/toy", b"", 1)[0] == status


def test_paths_outside_the_api_and_options(ask):
    for path in ("/", "/v1", "/monitoring", "/monitoring/prometheus/metrics"):
        status, kind, _ = ask("GET", path)
        assert (status, kind.split(";")[0]) == (404, "text/html")
    assert ask("OPTIONS", PREDICT, headers={"Origin": "https://example.org"})[0::2] == (200, b"")
    assert ask("OPTIONS", PREDICT)[0::2] == (400, b"")


def test_answers_are_neither_compressed_nor_for_other_origins(toy_server):
    connection = http.client.HTTPConnection("127.0.0.1", toy_server.rest_port, timeout=10)
    for method in ("OPTIONS", "POST"):
        headers = {"Origin": "https://example.org", "Accept-Encoding": "gzip", "Content-Type": "multipart/form-data"}
        connection.request(method, PREDICT, b'{"instances": [1]}', headers)
        response = connection.getresponse()
        response.read()
        assert response.status == 200
        assert not [name for name in response.headers if name.startswith(("Access-Control", "Content-Encoding"))]
    connection.close()


def test_slow_clients_hold_no_worker_and_lost_ones_do_no_harm(toy_server, ask):
    head = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", toy_server.rest_port), 10) for _ in range(100)]
    for connection in slow:
        connection.sendall(head + b'{"inst')
    assert ask("POST", PREDICT, {"instances": [1]})[0] == 200
    for connection in slow:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets
        connection.sendall(b'ances": [1]}')
        connection.close()
    assert ask("POST", PREDICT, {"instances": [1]})[0] == 200


def exchange(port, data):
    """What comes back until the server closes, if the client ends its side after `data`."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


def test_a_client_that_has_ended_its_side_is_answered(toy_server):
    one = b'POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n{"instances": [1]}'
    port, started = toy_server.rest_port, time.monotonic()
    assert exchange(port, one).count(b'"predictions": [2.5') == 1
    assert exchange(port, one * 3).count(b'"predictions": [2.5') == 3  # pipelined
    assert exchange(port, one[:-3]) == b""  # the rest never comes
    assert b" 400 " in exchange(port, b"garbage\r\n\r\n").splitlines()[0]
    assert exchange(port, b"") == b""
    assert time.monotonic() - started < 5


def test_a_client_that_waits_to_be_told_to_go_on(toy_server):
    with socket.create_connection(("127.0.0.1", toy_server.rest_port), 10) as connection:
        head = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head)
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b'{"instances": [1]}')
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_who_may_not_or_cannot_go_on_is_not_told_to(toy_server):
    head = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    for data, expected in (
        (head % 10**9, b"HTTP/1.1 413 "),  # before the client sends a GB
        ((head % 18).replace(b"HTTP/1.1", b"HTTP/1.0") + b'{"instances": [1]}', b"HTTP/1.0 200 "),  # knows no 100
    ):
        with socket.create_connection(("127.0.0.1", toy_server.rest_port), 10) as connection:
            connection.sendall(data)
            assert connection.recv(1000).startswith(expected)


def test_chunked_keep_alive_and_broken_bodies(toy_server):
    connection = http.client.HTTPConnection("127.0.0.1", toy_server.rest_port, timeout=10)
    for _ in range(2):
        connection.request("POST", PREDICT, iter([b'{"instances"', b": [1]}"]))
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, {"predictions": [2.5]})
    connection.request("POST", PREDICT, b"not gzip", {"Content-Encoding": "gzip"})
    assert connection.getresponse().status == 400
    connection.close()


HEAD = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n"
BODY = b'{"instances": [1]}'


@pytest.fixture
def served(tmp_path, publish):
    publish(tmp_path / "toy", 2)
    with Server(tmp_path / "toy", model_name="toy", port=None, rest_api_port=0) as server:
        yield server


def _connect(server):
    return socket.create_connection(("127.0.0.1", server.rest_port), 10)


def _received(connection):
    """All that comes until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_what_was_asked_before_the_stop_is_answered_and_the_end_comes_soon(served):
    idle, kept, half, asked = (_connect(served) for _ in range(4))
    kept.sendall(HEAD + BODY)
    assert kept.recv(1000).startswith(b"HTTP/1.1 200 OK")  # and it may be used again
    half.sendall(HEAD[:20])
    asked.sendall(HEAD)
    time.sleep(0.05)
    stopping = threading.Thread(target=served.stop)
    started = time.monotonic()
    stopping.start()
    time.sleep(0.3)
    asked.sendall(BODY)
    answer = _received(asked)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"predictions" in answer
    assert b"Connection: close" in answer
    for connection in (idle, kept, half):
        assert _received(connection) == b""
    stopping.join()
    assert time.monotonic() - started < 2
    with pytest.raises(ConnectionRefusedError):
        _connect(served)


def test_a_body_that_never_comes_holds_up_no_stop(served, monkeypatch):
    monkeypatch.setattr(rest_server, "SILENT_SECONDS", 3.0)
    with _connect(served) as connection:
        connection.sendall(HEAD + BODY[:3])
        time.sleep(0.05)
        started = time.monotonic()
        served.stop()
        assert time.monotonic() - started < 2
        assert _received(connection).startswith(b"HTTP/1.1 408 ")


def test_silent_connections_are_closed_and_slow_ones_are_not(served, monkeypatch):
    monkeypatch.setattr(rest_server, "SILENT_SECONDS", 0.3)
    silent, half_a_line, half_a_body, slow = (_connect(served) for _ in range(4))
    half_a_line.sendall(HEAD[:20])
    half_a_body.sendall(HEAD + BODY[:3])
    slow.sendall(HEAD)
    for at in range(len(BODY)):
        slow.sendall(BODY[at : at + 1])
        time.sleep(0.04)
    assert slow.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert _received(silent) == b""
    assert _received(half_a_line) == b""
    assert _received(half_a_body).startswith(b"HTTP/1.1 408 ")
    slow.sendall(HEAD + BODY)  # between two requests it may be silent for longer
    assert slow.recv(1000).startswith(b"HTTP/1.1 200 OK")
    slow.sendall(HEAD[:20])
    assert _received(slow) == b""


def test_the_rest_of_a_refused_body_holds_up_no_stop(served, monkeypatch):
    monkeypatch.setattr(served._ports[0], "_max_request_bytes", 1000)
    with socket.create_connection(("127.0.0.1", served.rest_port), 10) as connection:
        head = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n"
        connection.sendall(head + b" " * 2000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
        started = time.monotonic()
        served.stop()
        assert time.monotonic() - started < 5


def test_bodies_beyond_the_limit_are_413(served, monkeypatch):
    assert served._ports[0]._max_request_bytes == 16 * 2**20
    monkeypatch.setattr(served._ports[0], "_max_request_bytes", 1000)
    head = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\n"
    spaces = b'{"instances": [1]}' + b" " * 2000
    for data in (
        head + b"Content-Length: 2018\r\n\r\n" + spaces,
        head + b"Transfer-Encoding: chunked\r\n\r\n7e2\r\n" + spaces + b"\r\n0\r\n\r\n",
        head
        + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(spaces))
        + gzip.compress(spaces),
    ):
        assert exchange(served.rest_port, data).startswith(b"HTTP/1.1 413 ")
    monkeypatch.setattr(served._ports[0], "_max_request_bytes", 10_000)
    assert exchange(served.rest_port, data).startswith(b"HTTP/1.1 200 ")
    monkeypatch.setattr(rest_server, "MAX_INFLATED_BYTES", 1000)
    assert exchange(served.rest_port, data).startswith(b"HTTP/1.1 413 ")


def test_what_goes_wrong_in_the_loop_is_a_line_a_second(served, caplog):
    port = served._ports[0]
    for _ in range(1000):
        port._loop.call_exception_handler(
            {"message": "socket.accept() out of system resource", "exception": OSError(24)}
        )
    lines = [record.getMessage() for record in caplog.records if "out of system resource" in record.message]
    assert lines == ["REST: socket.accept() out of system resource: 24"]


def test_the_private_names_of_aiohttp_are_those_of_its_minor_version():
    """Where one changes, what overrides it would do nothing without a word; so `pyproject.toml` keeps them."""
    tree = ast.parse(inspect.getsource(rest_server))
    own = {"_Connection": rest_server.RequestHandler, "_Server": rest_server.web.Server}
    for definition in (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in own):
        names = {node.attr for node in ast.walk(definition) if isinstance(node, ast.Attribute) and node.attr[0] == "_"}
        theirs = names - vars(getattr(rest_server, definition.name)).keys() - {"__init__"}
        assert theirs  # the list below is of what is used
        source = inspect.getsource(own[definition.name])
        for name in theirs:
            assert re.search(rf"self\.{name}\b", source), f"aiohttp's {own[definition.name].__name__} has no {name}"
    for name in ("connection_made", "data_received", "connection_lost", "eof_received", "force_close"):
        assert callable(getattr(rest_server.RequestHandler, name))
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        (wanted,) = (text for text in tomllib.load(file)["project"]["dependencies"] if text.startswith("aiohttp"))
    lower, upper = re.findall(r"\d+\.(\d+)", wanted)
    assert (int(upper) - int(lower), importlib.metadata.version("aiohttp").split(".")[1]) == (1, lower)

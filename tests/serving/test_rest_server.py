import gzip
import http.client
import json
import socket
import time

import pytest


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
    [PREDICT, "/V1/Models/toy/versions/2:predict", "/v1/models/toy/versions/0002:predict", "/v1/models/t%6Fy:predict"],
)
def test_predict_rows(ask, path):
    status, kind, data = ask("POST", path, {"instances": [1, 2, 5]})
    assert (status, kind) == (200, "application/json")
    assert data == b'{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'


def test_predict_columns(ask):
    assert json.loads(ask("POST", PREDICT, {"inputs": [[1, 2]]})[2]) == {"outputs": [[2.5, 3.0]]}
    assert json.loads(ask("POST", PREDICT, {"inputs": 4})[2]) == {"outputs": 4.0}
    assert json.loads(ask("POST", PREDICT, {"inputs": []})[2]) == {"outputs": []}


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
]


@pytest.mark.parametrize(("method", "path", "body", "status", "text"), BAD_REQUESTS, ids=range(len(BAD_REQUESTS)))
def test_refusals(ask, method, path, body, status, text):
    got_status, kind, data = ask(method, path, body)
    assert (got_status, kind, json.loads(data)) == (status, "application/json", {"error": text})


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


def test_paths_outside_the_api_and_options(ask):
    for path in ("/", "/v1", "/monitoring"):
        status, kind, _ = ask("GET", path)
        assert (status, kind.split(";")[0]) == (404, "text/html")
    assert ask("OPTIONS", PREDICT, headers={"Origin": "https://example.org"})[0::2] == (200, b"")
    assert ask("OPTIONS", PREDICT)[0::2] == (400, b"")


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


def test_chunked_keep_alive_and_broken_bodies(toy_server):
    connection = http.client.HTTPConnection("127.0.0.1", toy_server.rest_port, timeout=10)
    for _ in range(2):
        connection.request("POST", PREDICT, iter([b'{"instances"', b": [1]}"]))
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, {"predictions": [2.5]})
    connection.request("POST", PREDICT, b"not gzip", {"Content-Encoding": "gzip"})
    assert connection.getresponse().status == 400
    connection.close()

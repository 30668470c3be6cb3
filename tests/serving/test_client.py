import grpc
import numpy as np
import pytest

from tfmtr.serving.client import Client, ServerError
from tfmtr.serving.errors import first_clause


@pytest.fixture
def client(toy_server):
    with Client(f"127.0.0.1:{toy_server.port}", "toy") as client:
        yield client


def test_lists_take_the_declared_dtype_and_arrays_keep_their_own(client):
    answer = client.predict({"text": ["DE", "é"], "number": [1, 2]}, "pair")
    assert answer["joined"].tolist() == [b"DE-1", "é-2".encode()]
    assert answer["group"].tolist() == [1, 0]
    assert client.predict({"x": 3})["y"] == 3.5
    with pytest.raises(ServerError, match=r"^INVALID_ARGUMENT: Expects arg\[0\] to be float but double is provided$"):
        client.predict({"x": np.zeros(2)})


def test_output_filter_chooses_outputs(client):
    assert list(client.predict({"text": ["DE"], "number": [1]}, "pair", ["group"])) == ["group"]


def test_metadata_and_status(client):
    assert client.metadata()["pair"].method_name == "tensorflow/serving/predict"
    (entry,) = client.status()
    assert (entry.version, entry.state) == (2, entry.AVAILABLE)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ({"model": "other"}, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(other)"),
        ({"model": "toy", "version": 7}, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(toy, 7)"),
    ],
)
def test_errors_carry_code_and_text(toy_server, arguments, code, text):
    with Client(f"127.0.0.1:{toy_server.port}", **arguments) as client, pytest.raises(ServerError) as caught:
        client.predict({"x": np.float32(0)}, "endless")
    assert caught.value.code == code
    assert caught.value.message == text


def test_the_deadline_ends_a_call(toy_server):
    with Client(f"127.0.0.1:{toy_server.port}", "toy", timeout=0.3) as client, pytest.raises(ServerError) as caught:
        client.predict({"x": np.float32(0)}, "endless")
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED  # the text is the client's or, if first, the server's


def test_unknown_input_and_signature_have_the_servers_text(client):
    with pytest.raises(ServerError, match=r"Sent extra: \{z\}\. Missing but required: \{\}\."):
        client.predict({"x": [1], "z": [1]})
    with pytest.raises(ServerError, match=r'^FAILED_PRECONDITION: Serving signature key "none" not found\.$'):
        client.predict({"x": [1]}, "none")


@pytest.mark.parametrize(
    ("details", "text"),
    [
        (
            "Graph execution error:\n\nassertion failed: [`where` must be [\\'a\\'].] [x]\n\t [[{{node Assert}}]]",
            "`where` must be ['a'].",
        ),
        ("assertion failed: [`k` must be positive..  ] [Condition x > 0]", "`k` must be positive.."),
        ("Sent extra: {z}.", "Sent extra: {z}."),
    ],
)
def test_of_an_assertion_its_own_text_is_told(details, text):
    assert first_clause(details) == text


def test_no_server():
    with Client("127.0.0.1:1", "toy", timeout=2) as client, pytest.raises(ServerError) as caught:
        client.status()
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE

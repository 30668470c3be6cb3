import base64
import json

import numpy as np
import pytest

from tfmtr.serving.errors import ServerError
from tfmtr.serving.json_response import format_floats, write_columns, write_error, write_rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_round_trip_and_are_as_short_as_six_digits_allow(dtype):
    values = np.random.default_rng(0).normal(size=240) * 10.0 ** np.arange(-30, 30).repeat(4)
    values = values.astype(dtype)
    texts = format_floats(values)
    assert [dtype(text) for text in texts] == values.tolist()
    assert all("." in text or "e" in text for text in texts)
    assert format_floats(np.array([3, 0.3, 9e6, 1e-5, 0.5, -0.0], dtype)) == [
        *("3.0", "0.3", "9e+06", "1e-05", "0.5", "-0.0")
    ]


def test_rows_of_one_output_are_bare_values():
    assert write_rows({"y": np.array([2.5, 3, np.nan, np.inf], np.float32)}) == (
        b'{\n    "predictions": [2.5, 3.0, NaN, Infinity\n    ]\n}'
    )
    assert write_rows({"y": np.array([[1, 2], [3, 4]])}) == b'{\n    "predictions": [[1, 2], [3, 4]\n    ]\n}'


def test_rows_of_several_outputs_are_objects():
    arrays = {"a": np.array([1, -(2**63)]), "b_bytes": np.array([[b"\xff"], [b""]], object)}
    text = write_rows(arrays).decode()
    assert json.loads(text) == {
        "predictions": [
            {"a": 1, "b_bytes": [{"b64": base64.b64encode(b"\xff").decode()}]},
            {"a": -(2**63), "b_bytes": [{"b64": ""}]},
        ]
    }
    assert text.startswith('{\n    "predictions": [\n        {\n            "a": 1,\n            "b_bytes": [{\n')


def test_columns_print_one_value_a_line():
    assert write_columns({"y": np.array([1, 2])}) == b'{\n    "outputs": [\n        1,\n        2\n    ]\n}'
    assert write_columns({"y": np.array(True)}) == b'{\n    "outputs": true\n}'
    arrays = {"a": np.zeros((0, 2)), "b": np.array([[b"x", b'y"\n']], object)}
    assert json.loads(write_columns(arrays)) == {"outputs": {"a": [], "b": [["x", 'y"\n']]}}


def test_layout_is_that_of_an_indented_json_document():
    arrays = {"a": np.arange(8).reshape(2, 2, 2), "b": np.array([b"x", b"y"], object)}
    document = {"outputs": {"a": arrays["a"].tolist(), "b": ["x", "y"]}}
    assert write_columns(arrays).decode() == json.dumps(document, indent=4)


def test_strings_that_are_no_utf8_leave_as_they_are():
    assert b'["\xff"\n' in write_rows({"s": np.array([b"\xff"], object)})


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"y": np.array(1.0)}, "Tensor name: y has no shape information "),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(1, np.float16)}, "Failed to write JSON value for tensor type: half"),
        ({"y": np.zeros(1, np.uint16)}, "Failed to write JSON value for tensor type: uint16"),
        ({"y": np.zeros(1, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_outputs_that_rows_cannot_carry(arrays, text):
    with pytest.raises(ServerError) as caught:
        write_rows(arrays)
    assert str(caught.value) == f"INVALID_ARGUMENT: {text}"


def test_no_rows_and_errors():
    assert json.loads(write_rows({"y": np.zeros((0, 2))})) == {"predictions": []}
    assert json.loads(write_error('say "no"\n')) == {"error": 'say "no"\n'}

import json
import threading

import numpy as np
import pytest
import tensorflow as tf

from tfmtr.serving.errors import ServerError
from tfmtr.serving.json_request import PART_BYTES, parse_json, read_inputs, show, signature_name, to_array

ONE = {"x": tf.float32}
TWO = {"n": tf.int64, "s": tf.string}


def _read(body, dtypes=ONE):
    return read_inputs(parse_json(json.dumps(body).encode()), dtypes)


def _refusal(function, *arguments):
    with pytest.raises(ServerError) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The document is empty"),
        (b" ", "The document is empty. at offset: 1"),
        (b"abc", "Invalid value. at offset: 0"),
        (b'{"instances": [1 2]}', "Missing a comma or ] after an array element. at offset: 17"),
        (b'{"a": 1 "b": 2}', "Missing a comma or } after an object member. at offset: 8"),
        (b"{1: 2}", "Missing a name for object member. at offset: 1"),
        (b'{"a": 1,}', "Missing a name for object member. at offset: 8"),
        (b'{"a": [1e999]}', "Number too big to be stored in double. at offset: 7"),
        ('{"é": 1 2'.encode(), "Missing a comma or } after an object member. at offset: 9"),
        (b'{"a": ' + b"1" * 5000 + b"}", "Number too big to be stored in double. at offset: 6"),
        (b"[" * 500_000, "Invalid value. at offset: 500000"),
    ],
)
def test_syntax_errors_have_rapidjsons_text_and_byte_offset(body, text):
    assert _refusal(parse_json, body).startswith(f"INVALID_ARGUMENT: JSON Parse error: {text}")


def test_parser_accepts_what_tf_serving_accepts():
    document = parse_json(b'{"a": [NaN, Inf, -Infinity, 18446744073709551615], "b": 1, "b": 2, "c": {"d": 3}} tail ]')
    assert np.isnan(document["a"][0])
    assert document["a"][1:] == [np.inf, -np.inf, 2**64 - 1]
    assert (document["b"], document["c"]) == (1, {"d": 3})


def test_document_must_be_an_object_with_a_text_as_signature_name():
    assert _refusal(parse_json, b"[1]") == "INVALID_ARGUMENT: JSON Value: [\n    1\n] Is not object"
    assert _refusal(signature_name, {"signature_name": 5}) == (
        'INVALID_ARGUMENT: JSON Value: {\n    "signature_name": 5\n} not formatted correctly. '
        "'signature_name' key must be a string value."
    )
    assert signature_name({}) == ""


@pytest.mark.parametrize(
    ("body", "expected", "is_row"),
    [
        ({"instances": [1, 2.5]}, [1, 2.5], True),
        ({"instances": [[1, 2], [3, 4]]}, [[1, 2], [3, 4]], True),
        ({"instances": [{"x": 1}, {"x": 2}]}, [1, 2], True),
        ({"inputs": 3}, 3, False),
        ({"inputs": []}, [], False),
        ({"inputs": {"x": [[1], [2]]}}, [[1], [2]], False),
        ({"inputs": {"x": [1], "unknown": 2}}, [1], False),
    ],
)
def test_one_input(body, expected, is_row):
    arrays, got_row = _read(body)
    assert got_row == is_row
    assert arrays["x"].dtype == np.float32
    assert arrays["x"].tolist() == expected
    assert arrays["x"].shape == np.shape(expected)


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_two_inputs_with_bytes(key):
    rows = [{"n": 1, "s": "é"}, {"n": 2, "s": {"b64": "/wA"}}]
    body = rows if key == "instances" else {name: [row[name] for row in rows] for name in TWO}
    arrays, _ = _read({key: body}, TWO)
    assert arrays["n"].tolist() == [1, 2]
    assert arrays["s"].tolist() == ["é".encode(), b"\xff\x00"]
    assert arrays["n"].dtype == np.int64


ELEMENT = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: {}"


@pytest.mark.parametrize(
    ("body", "dtypes", "text"),
    [
        ({}, ONE, "Missing 'inputs' or 'instances' key"),
        ({"instances": 1}, ONE, "{v} Expecting 'instances' to be an list/array"),
        ({"instances": []}, ONE, "{v} No values in 'instances' array"),
        (
            {"instances": [1], "inputs": [1]},
            ONE,
            "{v} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        (
            {"instances": [1]},
            TWO,
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map",
        ),
        (
            {"inputs": [1]},
            TWO,
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map",
        ),
        ({"instances": [{"x": 1}, 2]}, ONE, "Expecting object but got list at item 1 of input list"),
        ({"instances": [1, {"x": 2}]}, ONE, "Expecting value/list but got object at item 1 of input list"),
        (
            {"instances": [{"n": 1}]},
            TWO,
            "Failed to process element: 0 of 'instances' list. JSON object: "
            '{{\n    "n": 1\n}} keys must be equal to: n,s',
        ),
        (
            {"instances": [{"x": 1, "z": 1}]},
            ONE,
            ELEMENT.format("0 key: z", "JSON object: does not have named input: z"),
        ),
        ({"instances": [[1], [1, 2]]}, ONE, ELEMENT.format(1, "Expecting tensor size: 1 but got: 2")),
        ({"instances": [[1, 2], [[1, 2]]]}, ONE, ELEMENT.format(1, "Expecting shape [2] but got: [1,2]")),
        (
            {"instances": ["a"]},
            ONE,
            ELEMENT.format(0, 'JSON Value: "a" Type: String is not of expected type: float'),
        ),
        (
            {"instances": [1]},
            {"x": tf.float16},
            "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: Conversion of JSON Value: 1 to "
            "type: half",
        ),
        ({"inputs": {"n": [1]}}, TWO, "Missing named input: s in 'inputs' object."),
        ({"inputs": [[1, 2], [3]]}, ONE, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ({"inputs": [1, [2]]}, ONE, "Encountered list at unexpected level: 1 expected < 1"),
        (
            {"inputs": [[1], 2]},
            ONE,
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            {"inputs": [{"b64": "aa"}]},
            ONE,
            'JSON Value: {{\n    "b64": "aa"\n}} Type: Object is not of expected type: float',
        ),
        (
            {"inputs": [{"b64": 1}]},
            {"x": tf.string},
            'JSON Value: {{\n    "b64": 1\n}} not formatted correctly for base64 data',
        ),
        (
            {"inputs": [{"b64": "aa", "c": 1}]},
            {"x": tf.string},
            'JSON Value: {{\n    "b64": "aa",\n    "c": 1\n}} not formatted correctly for base64 data',
        ),
        ({"inputs": [{"b64": "a"}]}, {"x": tf.string}, "Unable to base64 decode"),
        ({"inputs": [{"b64": "YQ="}]}, {"x": tf.string}, "Unable to base64 decode"),
        ({"inputs": [{"b64": "a!aa"}]}, {"x": tf.string}, "Unable to base64 decode"),
    ],
)
def test_malformed_requests(body, dtypes, text):
    value = "JSON Value: " + json.dumps(body, indent=4)
    assert _refusal(_read, body, dtypes) == "INVALID_ARGUMENT: " + text.format(v=value)


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        (tf.float32, [1, 1.5, -(2**70)], [("1", "String"), (True, "True"), (None, "Null")]),
        (tf.float64, [1, 1.5], [([], None), (False, "False")]),
        (tf.int32, [-(2**31), 2**31 - 1], [(2**31, "Number"), (1.0, "Number"), (True, "True")]),
        (tf.int64, [-(2**63), 2**63 - 1], [(2**63, "Number"), (1e3, "Number")]),
        (tf.uint32, [0, 2**32 - 1], [(-1, "Number"), (2**32, "Number")]),
        (tf.uint64, [0, 2**64 - 1], [(-1, "Number"), (2**64, "Number")]),
        (tf.bool, [True, False], [(1, "Number"), ("true", "String")]),
        (tf.string, ["a", ""], [(1, "Number"), (None, "Null")]),
    ],
)
def test_types_are_never_cast(dtype, good, bad):
    array = to_array(good, dtype)
    assert array.dtype == dtype.as_numpy_dtype
    np.testing.assert_array_equal(
        array, np.array([g.encode() for g in good] if dtype == tf.string else good, array.dtype)
    )
    name = {"float32": "float", "float64": "double"}.get(dtype.name, dtype.name)
    for value, kind in bad:
        text = _refusal(to_array, [good[0], value], dtype)
        if kind:
            assert text.endswith(f" Type: {kind} is not of expected type: {name}")


@pytest.mark.parametrize("text", ["/wD/", "/wA", "/wA=", "/w\nA=\n", ""])
def test_base64_padding_is_optional(text):
    expected = {"/wD/": b"\xff\x00\xff", "": b""}.get(text, b"\xff\x00")
    assert to_array({"b64": text}, tf.string).tolist() == expected


def test_floats_overflow_to_infinity_and_small_integers_keep_their_low_bits():
    assert to_array([1e39, -1e39], tf.float32).tolist() == [np.inf, -np.inf]
    assert to_array([300, -1], tf.uint8).tolist() == [44, 255]
    assert "Number too big" in _refusal(to_array, [10**400], tf.float64)


def test_columns_of_an_unsupported_type_are_unimplemented():
    assert _refusal(_read, {"inputs": [0.5]}, {"x": tf.float16}) == (
        "UNIMPLEMENTED: Conversion of JSON Value: 0.5 to type: half"
    )


def test_deep_nesting_is_refused_and_not_shown():
    deep = 1
    for _ in range(900):
        deep = [deep]
    assert _refusal(to_array, deep, tf.float32) == (
        "INVALID_ARGUMENT: a tensor has at most 64 dimensions; this value has 900"
    )
    for _ in range(2000):
        deep = [deep]
    assert show(deep) == "(too deeply nested to be shown)"


def test_long_values_are_cut_in_errors():
    assert len(show(["x" * 5000])) == 256


def test_half_a_million_brackets_are_parsed():
    n = 500_000
    document = parse_json(
        b'{"signature_name": "s", "x": {"y": [1, 2.5e3, "a\\"b", null, {}], "y": 3}, "deep": '
        + b"[" * n
        + b"]" * n
        + b"} z"
    )
    assert document["signature_name"] == "s"
    assert document["x"] == {"y": [1, 2500.0, 'a"b', None, {}]}
    depth, inner = 0, document["deep"]
    while inner:
        depth, inner = depth + 1, inner[0]
    assert depth == n - 1


@pytest.mark.parametrize(
    ("tail", "text"),
    [
        (b"}", "Missing a comma or ] after an array element."),
        (b", ]", "Invalid value."),
        (b" 5]", "Missing a comma or ] after an array element."),
        (b"", "Missing a comma or ] after an array element."),
        (b", {1: 2}", "Missing a name for object member."),
        (b', {"a" 2}', "Missing a colon after a name of object member."),
        (b', {"a": 2 ]', "Missing a comma or } after an object member."),
    ],
)
def test_faults_of_deep_documents_have_the_same_words(tail, text):
    n = 3000
    deep, flat = (_refusal(parse_json, b'{"x": ' + b"[" * depth + b"[]" + tail) for depth in (n, 3))
    assert deep.startswith(f"INVALID_ARGUMENT: JSON Parse error: {text} at offset: ")
    offsets = [int(found.rpartition(" ")[2]) for found in (deep, flat)]
    assert deep.rpartition(" ")[0] == flat.rpartition(" ")[0]  # as RapidJSON says of a flat one
    assert offsets[0] - n == offsets[1] - 3


def test_bytes_that_are_no_utf_8_are_passed_on():
    document = parse_json(b'{"instances": ["a\xff", "\xc3\xa9", "\\u00e9"], "more": [Inf, -Inf, NaN, 1e2, true]}')
    found, is_row = read_inputs(document, {"x": tf.string})
    assert (found["x"].tolist(), is_row) == ([b"a\xff", "é".encode(), "é".encode()], True)
    assert document["more"][:2] == [float("inf"), float("-inf")]
    assert "a" in _refusal(read_inputs, parse_json(b'{"inputs": ["a\xff"]}'), {"x": tf.int64})
    assert _refusal(parse_json, b'{"a\xff": tru}') == "INVALID_ARGUMENT: JSON Parse error: Invalid value. at offset: 7"


def test_parsing_a_large_body_lets_others_have_their_turn():
    """A parser that held Python's lock would let nobody run for as long as it takes."""
    text = "é😀" * 100_000
    body = json.dumps({"text": text, "instances": [1.5] * 1_000_000}, ensure_ascii=False).encode()
    turns, is_over = [], threading.Event()

    def watch():
        while not is_over.wait(0.001):
            turns.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    document = parse_json(body)
    is_over.set()
    watcher.join()
    assert (document["text"], document["instances"]) == (text, [1.5] * 1_000_000)
    assert len(turns) > 5


def test_faults_of_large_bodies_are_told_with_their_offsets():
    spaces = b" " * 2 * PART_BYTES
    for body, text in (
        (b'{"a": ' + spaces + b"[1 2]}", f"Missing a comma or ] after an array element. at offset: {len(spaces) + 9}"),
        (b'{"a": ' + spaces + b"tru}", f"Invalid value. at offset: {len(spaces) + 9}"),
    ):
        with pytest.raises(ServerError) as caught:
            parse_json(body)
        assert caught.value.message == f"JSON Parse error: {text}"
    assert parse_json(b'{"a": 1}' + spaces + b"and so on") == {"a": 1}
    assert parse_json(b'{"a": "\xff", "b": ' + spaces + b"1}") == {"a": "\udcff", "b": 1}
    nested = b"[" * PART_BYTES + b"]" * PART_BYTES
    assert parse_json(b'{"a": ' + nested + b"}")["a"][0][0][0]

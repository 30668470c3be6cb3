"""The JSON bodies of REST classify and regress: `tf.Example`s in, classes or numbers out."""

# Protobuf makes its classes when it is imported:
# pyright: reportAttributeAccessIssue=false

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow.core.example.example_pb2 import Example
from tensorflow_serving.apis.classification_pb2 import ClassificationResult
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.regression_pb2 import RegressionResult

from tfmtr.serving.errors import ServerError, invalid_argument
from tfmtr.serving.json_request import decode_base64, json_type, show, to_bytes
from tfmtr.serving.json_response import format_floats, write_list

LISTS = {"float": "float_list", "int64": "int64_list", "bytes": "bytes_list"}


def read_examples(document: Mapping[str, Any]) -> Input:
    """The `Input` of a classify or regress body.

    Raises:
        ServerError: INVALID_ARGUMENT that names the feature.
    """
    if "examples" not in document:
        raise _fault(document, "When method is classify, key 'examples' is expected and was not found")
    if type(document["examples"]) is not list:
        raise _fault(document, "Expecting 'examples' value to be an list/array")
    if not document["examples"]:
        raise _fault(document, "'examples' value is an empty array")
    examples = [_example(item) for item in document["examples"]]
    result = Input()
    if "context" in document:
        result.example_list_with_context.context.CopyFrom(_example(document["context"]))
        result.example_list_with_context.examples.extend(examples)
    else:
        result.example_list.examples.extend(examples)
    return result


def _fault(document: Mapping[str, Any], text: str) -> ServerError:
    return invalid_argument(f"JSON Value: {show(document)} {text}")


def _example(value: Any) -> Example:
    if type(value) is not dict:
        raise invalid_argument(f"Example must be JSON object but got JSON {json_type(value)}")
    example = Example()
    for name, item in value.items():
        feature, first = example.features.feature[name], None
        for element in item if type(item) is list else [item]:
            kind, element = _element(name, element)
            first = first or kind
            if kind != first:
                raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {first}")
            getattr(feature, LISTS[kind]).value.append(element)
    return example


def _element(name: str, value: Any) -> tuple[str, float | bytes]:
    """Kind and value: whole numbers and booleans are int64."""
    if type(value) is float or (type(value) is int and not -(2**63) <= value < 2**64):
        return "float", float(value)
    if type(value) in (int, bool):
        if value >= 2**63:
            raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64", int(value)
    if type(value) is str:
        return "bytes", to_bytes(value)
    if type(value) is dict and list(value) == ["b64"]:
        return "bytes", decode_base64(value)
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")


def _numbers(values: Sequence[float]) -> list[str]:
    return format_floats(np.asarray(values, "float32"))


def write_classifications(result: ClassificationResult) -> bytes:
    """The body of a classify response: `{"results": [[["label", score], ..], ..]}`."""
    rows = []
    for row in result.classifications:
        labels = [json.dumps(item.label, ensure_ascii=False) for item in row.classes]
        pairs = zip(labels, _numbers([item.score for item in row.classes]), strict=True)
        rows.append("[" + ", ".join(f"[{label}, {score}]" for label, score in pairs) + "]")
    return write_list("results", rows)


def write_regressions(result: RegressionResult) -> bytes:
    """The body of a regress response: `{"results": [value, ..]}`."""
    return write_list("results", _numbers([item.value for item in result.regressions]))

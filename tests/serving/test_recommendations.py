import types

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from tfmtr.schema import Feature, Scenario, Schema, Task
from tfmtr.serving.recommendations import user_inputs

SCHEMA = Schema(
    [
        Feature("age", "user", "number", mean=3.0),
        Feature("tags", "user", "set", ["a"], width=3),
        Feature("recent", "user", "sequence", ["a"], width=3),
        Feature("new", "user", "id", ["x"]),
    ],
    [Task("click")],
    Scenario(["territory"], {("DE",): "one"}),
)
ROW = {"age": None, "tags": ["a", "b", "c"], "recent": ["a", "b", "c"], "new": "x", "territory": "DE"}


def signature(**widths):
    """A signature with inputs of these widths, `None` for one value a row."""
    found = SignatureDef()
    for name, width in widths.items():
        shape = tf.TensorShape([None] if width is None else [None, width])
        found.inputs[name].tensor_shape.CopyFrom(shape.as_proto())
    return found


def test_inputs_are_those_of_the_data():
    inputs = user_inputs(types.SimpleNamespace(schema=SCHEMA), ROW)
    assert {name: value.tolist() for name, value in inputs.items()} == {
        "age": [3.0], "tags": [["a", "b", "c"]], "recent": [["a", "b", "c"]], "new": ["x"], "territory": ["DE"],
    }  # fmt: skip


def test_an_older_model_gets_lists_of_its_own_length_and_nothing_that_it_does_not_know():
    older = signature(age=None, tags=2, recent=5, territory=None)
    inputs = user_inputs(types.SimpleNamespace(schema=SCHEMA), ROW, older)
    assert {name: value.tolist() for name, value in inputs.items()} == {
        "age": [3.0], "tags": [["a", "b"]], "recent": [["a", "b", "c", "", ""]], "territory": ["DE"],
    }  # fmt: skip
    shorter = signature(recent=2, territory=None)
    assert user_inputs(types.SimpleNamespace(schema=SCHEMA), ROW, shorter)["recent"].tolist() == [["b", "c"]]
    assert inputs["age"].dtype == np.float32

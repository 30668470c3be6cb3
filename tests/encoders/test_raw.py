"""The graph's look-ups must do to raw values what Arrow does to the examples in training."""

import keras
import numpy as np
import pyarrow as pa
import pytest

from tfmtr import inputs
from tfmtr.encoders.raw import look_up, raw_inputs
from tfmtr.kinds import KINDS
from tfmtr.schema import Feature, Scenario, Schema, Task

SCHEMA = Schema(
    [
        Feature("country", "user", "id", ["DE", "[UNK]", "FR"]),
        Feature("empty", "user", "id"),
        Feature("age", "user", "number", mean=40.0, std=10.0),
        Feature("email", "user", "string", width=7),
        Feature("genres", "title", "set", ["a", "é"], width=2),
        Feature("title_vector", "title", "vector", width=2),
    ],
    [Task("click")],
    Scenario(["country", "tab"], {("DE", "home"): "x", ("FR", "home"): "y", ("FR", "search"): "x"}),
)
TABLE = pa.table(
    {
        "country": ["FR", "[UNK]", "", "DE", "FR", "never seen"],
        "empty": ["", "x", "y", "", "", ""],
        "age": [50.0, 0.0, 40.0, 20.0, -3.0, 1e9],
        "email": ["a@b", "c", "", "d", "ü", "e"],
        "genres": [["é", "a"], ["a"], [], ["zz", "a"], ["é"], []],
        "tab": ["search", "home", "", "home", "home", "home"],
        "title_row": [1, 0, 1, -1, 0, 0],
    }
)
STORES = {"title": np.asarray([[1.0, 2.0], [3.0, 4.0]], "float32")}


def test_graph_and_arrow_agree_on_every_value():
    roles = ("user", "title")
    raw = raw_inputs(SCHEMA, *roles, scenario=True)
    graph = keras.Model(raw, look_up(raw, SCHEMA, *roles, scenario=True))
    values = {name: np.asarray(TABLE[name].to_pylist(), object) for name in ("country", "empty", "email", "tab")}
    values["age"] = np.asarray(TABLE["age"].to_pylist(), "float32")
    values["genres"] = np.asarray([row + [""] * (2 - len(row)) for row in TABLE["genres"].to_pylist()], object)
    values["title_vector"] = inputs.take_vectors(STORES["title"], TABLE["title_row"])
    tf = pytest.importorskip("tensorflow")
    served = graph({name: tf.constant(value) for name, value in values.items()})
    trained = inputs.model_inputs(TABLE, SCHEMA, STORES)
    assert sorted(served) == sorted(trained)
    for name, value in trained.items():
        np.testing.assert_allclose(served[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(trained["country"], [3, 2, 0, 1, 3, 0])
    np.testing.assert_array_equal(trained["scenario"], [1, 0, 0, 1, 2, 0])


def test_a_number_that_is_none_is_missing_in_a_request_as_in_the_examples():
    feature = next(feature for feature in SCHEMA.features if feature.name == "age")
    values = np.asarray([np.nan, np.inf, -np.inf, feature.mean + 2 * feature.std], "float32")
    found = KINDS["number"].look_up(keras.ops.convert_to_tensor(values), feature)
    np.testing.assert_allclose(found, [0.0, 0.0, 0.0, 2.0], atol=1e-6)


def test_a_scenario_without_groups_is_always_the_default_one():
    schema = SCHEMA.replace(scenario=Scenario(["country"], {}))
    raw = raw_inputs(schema, "user", scenario=True)
    index = keras.Model({"country": raw["country"]}, look_up(raw, schema, "user", scenario=True)["scenario"])
    tf = pytest.importorskip("tensorflow")
    np.testing.assert_array_equal(index({"country": tf.constant(["DE", "x"])}), [0, 0])
    np.testing.assert_array_equal(inputs.Encoder(schema)(TABLE)["scenario"], np.zeros(6))

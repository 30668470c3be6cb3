import numpy as np
import tensorflow as tf

from tfmtr.encoders.unknown import unknown_values
from tfmtr.schema import Feature, Scenario, Schema, Task

TAB = Feature("tab", "context", "id", ("home", "search"))
HOUR = Feature("hour", "context", "number")
ONE = Scenario(["territory"], {"DE": "west"})
TWO = Scenario(["tab", "territory"], {("home", "DE"): "home/DE", ("search", "DE"): "search/DE"})


def schema(features, scenario):
    return Schema(features, [Task("click")], scenario)


def test_what_either_model_does_not_know_is_said_row_by_row():
    found = unknown_values([schema([HOUR], ONE), schema([TAB, HOUR], TWO)])
    given = {
        "territory": tf.constant(["DE", "DE", "PL", "DE"]),
        "tab": tf.constant(["home", "elsewhere", "home", ""]),
        "hour": tf.constant([1.0, 2.0, 3.0, 4.0]),
    }
    flags = {name: np.asarray(value)[:, 0].tolist() for name, value in found(given).items()}
    assert flags["default_branch"] == [False, True, True, True]
    assert flags["unknown_context"] == [False, True, False, True]


def test_without_a_context_and_with_one_scenario_there_is_nothing_to_say():
    assert unknown_values([schema([], ONE)]) is None
    assert unknown_values([schema([HOUR], ONE), schema([HOUR], ONE)]) is None
    other = Scenario(["territory"], {"PL": "east"})  # the ranking model's own
    only = unknown_values([schema([], ONE), schema([], other)])
    flags = only({"territory": tf.constant(["DE", "XX"])})
    assert np.asarray(flags["default_branch"])[:, 0].tolist() == [True, True]
    assert not np.asarray(flags["unknown_context"]).any()

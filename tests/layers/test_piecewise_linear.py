import keras
import numpy as np
import pytest

from tfmtr.encoders.embed import embed_fields, encode_inputs
from tfmtr.layers.piecewise_linear import PiecewiseLinear
from tfmtr.schema import Feature, Scenario, Schema, Task


def test_numbers_are_how_far_they_are_through_each_bin():
    encoded = PiecewiseLinear([-1.0, 0.0, 10.0, 1000.0])(np.float32([-5, -0.25, 0, 4, 505, 2000]))
    expected = [[0, 0, 0], [0.75, 0, 0], [1, 0, 0], [1, 0.4, 0], [1, 1, 0.5], [1, 1, 1]]
    np.testing.assert_allclose(encoded, expected, atol=1e-6)


@pytest.mark.parametrize("edges", [[], [1.0], [1.0, 1.0], [2.0, 1.0], [0.0, float("nan")]])
def test_edges_that_are_none(edges):
    with pytest.raises(ValueError, match="`edges` must be two or more ascending numbers"):
        PiecewiseLinear(edges)


def test_it_is_saved_with_its_edges():
    layer = PiecewiseLinear.from_config(PiecewiseLinear([0.0, 2.0], name="bins").get_config())
    assert (layer.edges, layer.name) == ((0.0, 2.0), "bins")
    assert layer.compute_output_shape((None,)) == (None, 1)


def test_a_model_sees_bins_in_place_of_a_number_that_has_quantiles():
    """Edges are normalised as the number is."""
    plain = Feature("age", "user", "number", mean=40.0, std=10.0)
    binned = Feature("time", "user", "number", mean=40.0, std=10.0, quantiles=(20.0, 30.0, 60.0))
    schema = Schema([plain, binned], [Task("click")], Scenario(["land"], {}))
    inputs = encode_inputs(schema, "user")
    fields = keras.Model(inputs, embed_fields(inputs, schema.features))
    found = fields({name: (np.float32([25.0, 45.0]) - 40.0) / 10.0 for name in inputs})
    np.testing.assert_allclose(found["age"], [[-1.5], [0.5]], atol=1e-6)
    np.testing.assert_allclose(found["time"], [[0.5, 0.0], [1.0, 0.5]], atol=1e-6)
    assert Schema.from_json(schema.to_json()) == schema
    assert schema.to_json().count("quantiles") == 1  # a schema without them is as it was


@pytest.mark.parametrize(("kind", "quantiles"), [("id", (1.0, 2.0)), ("number", (1.0,)), ("number", (2.0, 1.0))])
def test_quantiles_that_are_none(kind, quantiles):
    with pytest.raises(ValueError, match="`quantiles` must be two or more ascending numbers"):
        Feature("age", "user", kind, quantiles=quantiles)


def test_numbers_far_apart_in_size_are_told_apart_where_most_of_them_are():
    """What the paper is about: of a heavy tail, a linear layer over bins learns what one over the number cannot."""
    rng = np.random.default_rng(0)
    x = np.exp(3 * rng.normal(size=2000)).astype("float32")
    y = (x > np.median(x)).astype("float32")
    edges = np.quantile(x, np.linspace(0, 1, 17))
    errors = {}
    for name, columns in (
        ("bins", np.asarray(PiecewiseLinear(edges)(x))),
        ("number", ((x - x.mean()) / x.std())[:, None]),
    ):
        design = np.column_stack([columns, np.ones(len(x))])
        fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
        errors[name] = np.mean((fitted - y) ** 2)
    assert errors["bins"] < 0.1 * errors["number"]

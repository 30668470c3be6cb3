"""What holds for every layer that routes rows: it equals its own masked formulation, saves, and refuses bad sizes."""

import keras
import numpy as np
import pytest
from keras import ops

from tfmtr.layers.routed_dense import RoutedDense
from tfmtr.layers.star_dense import StarDense

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.parametrize("layer_class", [RoutedDense, StarDense])


def layer_pair(layer_class):
    """The routed layer, and the same weights in the one-hot masked formulation."""
    layers = [layer_class(5, 3, activation="relu", routed=routed) for routed in (True, False)]
    rng = np.random.default_rng(0)
    for layer in layers:
        layer.build((None, 4), (None,))
    for a, b in zip(*(layer.weights for layer in layers), strict=True):
        value = rng.normal(size=a.shape)
        a.assign(value)
        b.assign(value)
    return layers


def outputs_and_gradients(layer, x, scenario):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, scenario)
        loss = tf.reduce_mean(tf.square(y - 1.0))
    return [y, *tape.gradient(loss, [x, *[w.value for w in layer.trainable_weights]])]


@pytest.mark.parametrize("scenario", [[0, 2, 1, 2, 0, 1], [0, 2, 0, 2, 2, 2], [1]], ids=["all", "absent", "one row"])
def test_outputs_and_gradients_equal_the_masked_formulation(layer_class, scenario):
    x = np.random.default_rng(1).normal(size=(len(scenario), 4)).astype("float32")
    results = [outputs_and_gradients(layer, x, tf.constant(scenario)) for layer in layer_pair(layer_class)]
    for routed, masked in zip(*results, strict=True):
        np.testing.assert_allclose(routed, masked, atol=1e-5, rtol=0)


def test_an_empty_batch_keeps_the_width(layer_class):
    layer, _ = layer_pair(layer_class)
    assert tuple(layer(np.zeros((0, 4), "float32"), np.zeros(0, "int32")).shape) == (0, 5)


def test_mixed_precision_computes_in_bfloat16(layer_class):
    layer = layer_class(5, 3, dtype="mixed_bfloat16")
    assert layer(ops.ones((2, 4)), ops.array([0, 2])).dtype == "bfloat16"
    assert {w.dtype for w in layer.weights} == {"float32"}


def test_survives_saving(layer_class, tmp_path):
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model([x, scenario], layer_class(5, 3, activation="relu")(x, scenario))
    model.save(tmp_path / "model.keras")
    data = [np.random.default_rng(3).normal(size=(6, 4)), np.asarray([0, 1, 2, 0, 1, 2])]
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded.predict(data, verbose=0), model.predict(data, verbose=0), atol=1e-6)


def test_is_not_compiled_by_xla(layer_class):
    assert not layer_class(5, 3).supports_jit
    assert layer_class(5, 3, routed=False).supports_jit


@pytest.mark.parametrize(("units", "num_scenarios", "argument"), [(0, 2, "units"), (3, 0, "num_scenarios")])
def test_refuses_sizes_that_are_not_positive(layer_class, units, num_scenarios, argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be a positive integer. Received: {argument}=0"):
        layer_class(units, num_scenarios)


def test_refuses_inputs_of_another_rank(layer_class):
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(batch, width\).*\(2, 3, 4\)"):
        layer_class(5, 2)(ops.ones((2, 3, 4)), ops.array([0, 1]))

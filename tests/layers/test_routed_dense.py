import keras
import numpy as np
import pytest
from keras import ops

from tfmtr.layers.routed_dense import RoutedDense

tf = pytest.importorskip("tensorflow")


def layer_pair(num_scenarios=3, width=4, units=5):
    """The routed layer, and the same weights in the one-hot masked formulation."""
    routed, masked = (RoutedDense(units, num_scenarios, activation="relu", routed=r) for r in (True, False))
    for layer in (routed, masked):
        layer.build((None, width), (None,))
    rng = np.random.default_rng(0)
    for a, b in zip(routed.weights, masked.weights, strict=True):
        value = rng.normal(size=a.shape)
        a.assign(value)
        b.assign(value)
    return routed, masked


def outputs_and_gradients(layer, x, scenario):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, scenario)
        loss = tf.reduce_sum(tf.square(y - 1.0))
    return [y, *tape.gradient(loss, [x, *[w.value for w in layer.trainable_weights]])]


@pytest.mark.parametrize("scenario", [[0, 2, 1, 2, 0, 1], [0, 2, 0, 2, 2, 2], [1]], ids=["all", "absent", "one row"])
def test_outputs_and_gradients_equal_the_masked_formulation(scenario):
    x = np.random.default_rng(1).normal(size=(len(scenario), 4)).astype("float32")
    results = [outputs_and_gradients(layer, x, tf.constant(scenario)) for layer in layer_pair()]
    for routed, masked in zip(*results, strict=True):
        np.testing.assert_allclose(routed, masked, atol=1e-5)


def test_follows_the_equation_row_by_row():
    layer, _ = layer_pair()
    x, scenario = np.random.default_rng(2).normal(size=(3, 4)).astype("float32"), [2, 0, 2]
    expected = [
        np.maximum(row @ np.asarray(layer.kernels[s]) + np.asarray(layer.biases[s]), 0)
        for row, s in zip(x, scenario, strict=True)
    ]
    np.testing.assert_allclose(layer(x, np.asarray(scenario)), expected, rtol=1e-5)


def test_a_branch_learns_from_its_own_rows_only():
    layer, _ = layer_pair()
    x = np.ones((4, 4), "float32")
    gradients = outputs_and_gradients(layer, x, tf.constant([0, 0, 1, 1]))[2:]
    kernels = gradients[0::2]
    assert [bool(np.any(np.asarray(g))) for g in kernels] == [True, True, False]


def test_no_two_kernels_start_equal():
    layer = RoutedDense(5, 3)
    layer.build((None, 4))
    kernels = [np.asarray(k) for k in layer.kernels]
    assert not any(np.array_equal(kernels[i], kernels[j]) for i in range(3) for j in range(i))


def test_an_empty_batch_keeps_the_width():
    layer, _ = layer_pair()
    assert tuple(layer(np.zeros((0, 4), "float32"), np.zeros(0, "int32")).shape) == (0, 5)


def test_mixed_precision_computes_in_bfloat16():
    layer = RoutedDense(5, 3, dtype="mixed_bfloat16")
    assert layer(ops.ones((2, 4)), ops.array([0, 2])).dtype == "bfloat16"
    assert layer.kernels[0].dtype == "float32"


def test_survives_saving(tmp_path):
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model([x, scenario], RoutedDense(5, 3, activation="relu")(x, scenario))
    model.save(tmp_path / "model.keras")
    data = [np.random.default_rng(3).normal(size=(6, 4)), np.asarray([0, 1, 2, 0, 1, 2])]
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded.predict(data, verbose=0), model.predict(data, verbose=0), atol=1e-6)


def test_is_not_compiled_by_xla():
    assert not RoutedDense(5, 3).supports_jit
    assert RoutedDense(5, 3, routed=False).supports_jit


@pytest.mark.parametrize(("units", "num_scenarios", "argument"), [(0, 2, "units"), (3, 0, "num_scenarios")])
def test_refuses_sizes_that_are_not_positive(units, num_scenarios, argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be a positive integer. Received: {argument}=0"):
        RoutedDense(units, num_scenarios)


def test_refuses_inputs_of_another_rank():
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(batch, width\).*\(2, 3, 4\)"):
        RoutedDense(5, 2)(ops.ones((2, 3, 4)), ops.array([0, 1]))

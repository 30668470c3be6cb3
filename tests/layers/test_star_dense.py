import keras
import numpy as np
import pytest
from keras import ops

from tfmtr.layers.star_dense import StarDense

tf = pytest.importorskip("tensorflow")


def layer_pair(num_scenarios=3, width=4, units=5):
    """The routed layer, and the same weights in the one-hot masked formulation."""
    routed, masked = (StarDense(units, num_scenarios, activation="relu", routed=r) for r in (True, False))
    rng = np.random.default_rng(0)
    for layer in (routed, masked):
        layer.build((None, width), (None,))
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


def test_follows_the_equation_row_by_row():
    layer, _ = layer_pair()
    weights = {w.name: np.asarray(w) for w in layer.weights}
    x, scenario = np.random.default_rng(1).normal(size=(3, 4)).astype("float32"), [2, 0, 2]
    expected = [
        np.maximum(
            row @ (weights[f"own_kernel_{s}"] * weights["kernel"]) + weights[f"own_bias_{s}"] + weights["bias"], 0
        )
        for row, s in zip(x, scenario, strict=True)
    ]
    np.testing.assert_allclose(layer(x, np.asarray(scenario)), expected, rtol=1e-5)


@pytest.mark.parametrize("scenario", [[0, 2, 1, 2, 0, 1], [0, 2, 0, 2, 2, 2], [1]], ids=["all", "absent", "one row"])
def test_outputs_and_gradients_equal_the_masked_formulation(scenario):
    x = np.random.default_rng(1).normal(size=(len(scenario), 4)).astype("float32")
    results = [outputs_and_gradients(layer, x, tf.constant(scenario)) for layer in layer_pair()]
    for routed, masked in zip(*results, strict=True):
        np.testing.assert_allclose(routed, masked, atol=1e-4)


def test_own_weights_learn_from_their_rows_and_shared_ones_from_all():
    layer, _ = layer_pair()
    gradients = outputs_and_gradients(layer, np.ones((4, 4), "float32"), tf.constant([0, 0, 1, 1]))[2:]
    names = [w.name for w in layer.trainable_weights]
    moved = {name for name, gradient in zip(names, gradients, strict=True) if np.any(gradient)}
    assert moved == {"kernel", "bias", "own_kernel_0", "own_bias_0", "own_kernel_1", "own_bias_1"}


def test_all_scenarios_start_near_the_shared_layer_and_none_equal():
    layer = StarDense(64, 3)
    layer.build((None, 32))
    x = np.random.default_rng(2).normal(size=(1, 32)).astype("float32")
    shared = x @ np.asarray(layer.kernel)
    outputs = [np.asarray(layer(x, np.asarray([s]))) for s in range(3)]
    for i, output in enumerate(outputs):
        assert np.abs(output - shared).mean() < 0.05 * np.abs(shared).mean()
        assert not any(np.array_equal(output, other) for other in outputs[:i])


def test_mixed_precision_computes_in_bfloat16():
    layer = StarDense(5, 3, dtype="mixed_bfloat16")
    assert layer(ops.ones((2, 4)), ops.array([0, 2])).dtype == "bfloat16"
    assert layer.kernel.dtype == "float32"


def test_survives_saving(tmp_path):
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model([x, scenario], StarDense(5, 3, activation="relu")(x, scenario))
    model.save(tmp_path / "model.keras")
    data = [np.random.default_rng(3).normal(size=(6, 4)), np.asarray([0, 1, 2, 0, 1, 2])]
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded.predict(data, verbose=0), model.predict(data, verbose=0), atol=1e-6)


def test_is_not_compiled_by_xla():
    assert not StarDense(5, 3).supports_jit
    assert StarDense(5, 3, routed=False).supports_jit


@pytest.mark.parametrize(("units", "num_scenarios", "argument"), [(0, 2, "units"), (3, 0, "num_scenarios")])
def test_refuses_sizes_that_are_not_positive(units, num_scenarios, argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be a positive integer. Received: {argument}=0"):
        StarDense(units, num_scenarios)


def test_refuses_inputs_of_another_rank():
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(batch, width\).*\(2, 3, 4\)"):
        StarDense(5, 2)(ops.ones((2, 3, 4)), ops.array([0, 1]))

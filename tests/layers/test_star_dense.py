import numpy as np
import pytest

from tfmtr.layers.star_dense import StarDense

tf = pytest.importorskip("tensorflow")


def built_layer():
    layer = StarDense(5, 3, activation="relu")
    layer.build((None, 4))
    rng = np.random.default_rng(0)
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    return layer


def test_follows_the_equation_row_by_row():
    layer = built_layer()
    weights = {w.name: np.asarray(w) for w in layer.weights}
    x, scenario = np.random.default_rng(1).normal(size=(3, 4)).astype("float32"), [2, 0, 2]
    expected = [
        np.maximum(
            row @ (weights[f"own_kernel_{s}"] * weights["kernel"]) + weights[f"own_bias_{s}"] + weights["bias"], 0
        )
        for row, s in zip(x, scenario, strict=True)
    ]
    np.testing.assert_allclose(layer(x, np.asarray(scenario)), expected, rtol=1e-5)


def test_own_weights_learn_from_their_rows_and_shared_ones_from_all():
    layer = built_layer()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(np.ones((4, 4), "float32"), tf.constant([0, 0, 1, 1])) - 1.0))
    gradients = tape.gradient(loss, [w.value for w in layer.trainable_weights])
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

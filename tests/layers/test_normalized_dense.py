import keras
import numpy as np
import pytest

from tfmtr.layers.normalized_dense import NormalizedDense


def build(dtype=None):
    layer = NormalizedDense(5, dtype=dtype)
    layer.build((None, 4))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer, np.random.default_rng(1).normal(size=(3, 4)).astype("float32")


def test_follows_the_equation():
    layer, x = build()
    kernel, bias, scale, center = map(np.asarray, layer.weights)
    expected = []
    for z in x @ kernel + bias:
        mean = sum(z) / 5
        variance = sum((z - mean) ** 2) / 5
        expected.append(np.maximum((z - mean) / np.sqrt(variance + 1e-3) * scale + center, 0))
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_outputs_and_gradients_are_those_of_three_layers_of_keras():
    tf = pytest.importorskip("tensorflow")
    layer, x = build()
    dense, norm = keras.layers.Dense(5), keras.layers.LayerNormalization()
    dense.build((None, 4))
    norm.build((None, 5))
    dense.set_weights(layer.get_weights()[:2])
    norm.set_weights(layer.get_weights()[2:])
    down = tf.constant(np.random.default_rng(2).normal(size=(3, 5)), "float32")

    def gradients(function, variables):
        inputs = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(inputs)
        return [outputs, *tape.gradient(outputs, [inputs, *(v.value for v in variables)], down)]

    ours = gradients(layer, layer.trainable_variables)
    theirs = gradients(
        lambda inputs: keras.ops.relu(norm(dense(inputs))), dense.trainable_variables + norm.trainable_variables
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_rows_of_half_precision_keep_their_size():
    layer, x = build("mixed_bfloat16")
    exact = build()[0](x)
    assert layer(x).dtype == "bfloat16"
    np.testing.assert_allclose(np.asarray(layer(x), "float32"), exact, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NormalizedDense(0), "`units` must be a positive integer. Received: units=0"),
        (
            lambda: NormalizedDense(2)(np.ones((2, 3, 4))),
            r"`inputs` must have shape \(batch, width\). Received: inputs.shape=\(2, 3, 4\)",
        ),
    ],
)
def test_refuses_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()

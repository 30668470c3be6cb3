import keras
import numpy as np
import pytest

from tfmtr.layers.experts import Experts


def random_weights(layer, seed=0):
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return {w.name: np.asarray(w) for w in layer.weights}


@pytest.mark.parametrize("stacked", [False, True], ids=["same input", "input of their own"])
def test_each_expert_is_a_dense_layer(stacked):
    layer = Experts(3, 5, activation="relu")
    x = np.random.default_rng(1).normal(size=(2, 3, 4) if stacked else (2, 4)).astype("float32")
    layer(x)
    w = random_weights(layer)
    expected = np.empty((2, 3, 5))
    for row in range(2):
        for i in range(3):
            u = x[row, i] if stacked else x[row]
            expected[row, i] = np.maximum(u @ w["kernel"][:, i] + w["bias"][i], 0)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_normalisation_is_each_expert_s_own_and_before_the_activation():
    layer = Experts(2, 6, activation="relu", normalize=True)
    x = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    layer(x)
    w = random_weights(layer)
    for i in range(2):
        linear = x @ w["kernel"][:, i] + w["bias"][i]
        norm = keras.layers.LayerNormalization()
        norm.build((None, 6))
        norm.set_weights([w["scale"][i], w["center"][i]])
        np.testing.assert_allclose(layer(x)[:, i], np.maximum(norm(linear), 0), rtol=1e-4, atol=1e-4)


def test_experts_start_different_and_each_as_large_as_a_dense_layer():
    layer = Experts(4, 64)
    layer.build((None, 64))
    kernels = np.moveaxis(np.asarray(layer.kernel), 1, 0)
    assert len(np.unique(kernels.reshape(4, -1), axis=0)) == 4
    limit = np.sqrt(6 / (64 + 64))  # Glorot and Bengio 2010, of one expert and not of all together
    np.testing.assert_allclose(np.abs(kernels).max(axis=(1, 2)), limit, rtol=0.02)


@pytest.mark.parametrize("argument", ["num_experts", "units"])
def test_refuses_a_size_that_is_not_positive(argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be a positive integer. Received: {argument}=0"):
        Experts(**{"num_experts": 2, "units": 3, argument: 0})


def test_refuses_a_second_dimension_that_is_not_the_number_of_experts():
    message = r"`inputs` must have shape \(batch, width\) or \(batch, 3, width\). Received: inputs.shape=\(2, 4, 5\)"
    with pytest.raises(ValueError, match=message):
        Experts(3, 5)(np.ones((2, 4, 5)))

"""Pieces that the oracles of several sharing files have in common: equations in NumPy, weights read by their paths."""

import functools

import keras
import numpy as np
import pytest

from tfmtr.sharing._shared import as_shared

TOWERS = ("click", "like", "share")


def rows(number=3):
    """The rows that all oracles compute."""
    return np.random.default_rng(1).normal(size=(number, 4)).astype("float32")


def build_towers(share, **options):
    """A model of `share` whose weights are not at their start, and these weights by path."""
    keras.utils.set_random_seed(0)
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model(x, as_shared(share(x, scenario, towers=TOWERS, num_scenarios=2, **options)).vectors)
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(scale=0.1, size=w.shape) for w in model.get_weights()])
    return model, {w.path: np.asarray(w) for w in model.weights}


def check_towers(model, expected):
    """The model's vectors of `rows()` are those of an oracle, of shape (rows, towers, units)."""
    vectors = model.predict(rows(), verbose=0)
    assert sorted(vectors) == sorted(TOWERS)
    for t, tower in enumerate(TOWERS):
        np.testing.assert_allclose(vectors[tower], expected[:, t], rtol=1e-4, atol=1e-4)


def dense(u, w, layer, i, *, normalize=False):
    """Expert i of a layer: linear, layer normalisation where it is asked for, ReLU."""
    assert (f"{layer}/scale" in w) == normalize
    u = u @ w[f"{layer}/kernel"][:, i] + w[f"{layer}/bias"][i]
    if normalize:
        u = (u - u.mean()) / np.sqrt(u.var() + 1e-3) * w[f"{layer}/scale"][i] + w[f"{layer}/center"][i]
    return np.maximum(u, 0)


def forms(normalize):
    """Options of a sharing file, and `dense` as its layers then are: without options the paper's form."""
    return {"normalize": True} if normalize else {}, functools.partial(dense, normalize=normalize)


def softmax(x):
    """Weights that sum to one."""
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


def gradients(model, tower):
    """Gradient of one tower's vector with respect to every weight, by path."""
    tf = pytest.importorskip("tensorflow")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(rows(16))[tower] ** 2)
    found = tape.gradient(loss, [w.value for w in model.trainable_weights], unconnected_gradients="zero")
    return {w.path: np.asarray(g) for w, g in zip(model.trainable_weights, found, strict=True)}

import keras
import numpy as np
import pytest

from tfmtr.sharing.mmoe import mmoe

TOWERS = ("click", "like", "share")
SIZES = {"units": (6, 5), "num_experts": 2, "tower_units": (3,)}


def build(**options):
    """A small model with weights that are not at their start, and these weights by path."""
    keras.utils.set_random_seed(0)
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model(x, mmoe(x, scenario, towers=TOWERS, num_scenarios=2, **SIZES | options))
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.normal(scale=0.1, size=w.shape) for w in model.get_weights()])
    return model, {w.path: np.asarray(w) for w in model.weights}


def rows(number=3):
    return np.random.default_rng(1).normal(size=(number, 4)).astype("float32")


def dense(u, w, layer, i):
    """Expert i of a layer: linear, layer normalisation, ReLU."""
    u = u @ w[f"{layer}/kernel"][:, i] + w[f"{layer}/bias"][i]
    u = (u - u.mean()) / np.sqrt(u.var() + 1e-3)
    return np.maximum(u * w[f"{layer}/scale"][i] + w[f"{layer}/center"][i], 0)


def check(model, expected):
    vectors = model.predict(rows(), verbose=0)
    assert sorted(vectors) == sorted(TOWERS)
    for t, tower in enumerate(TOWERS):
        np.testing.assert_allclose(vectors[tower], expected[:, t], rtol=1e-4, atol=1e-4)


def softmax(x):
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


def gradients(model, tower):
    """Gradient of one tower's vector with respect to every weight, by path."""
    tf = pytest.importorskip("tensorflow")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(rows(16))[tower] ** 2)
    found = tape.gradient(loss, [w.value for w in model.trainable_weights], unconnected_gradients="zero")
    return {w.path: np.asarray(g) for w, g in zip(model.trainable_weights, found, strict=True)}


def test_follows_the_equations():
    model, w = build()
    expected = np.empty((3, 3, 3))
    for row, x in enumerate(rows()):
        experts = [dense(dense(x, w, "experts_0", i), w, "experts_1", i) for i in range(2)]
        for t in range(3):
            g = softmax(x @ w["gates/kernel"][:, t])
            expected[row, t] = dense(sum(g[i] * experts[i] for i in range(2)), w, "towers_0", t)
    check(model, expected)


def test_each_task_has_its_own_gate_over_shared_experts():
    model, _ = build()
    of_like = gradients(model, "like")
    for path in ("gates/kernel", "towers_0/kernel"):
        assert np.any(of_like[path], axis=(0, 2)).tolist() == [False, True, False]
    assert np.any(of_like["experts_0/kernel"], axis=(0, 2)).all()


def test_without_tower_layers_the_vectors_are_the_blends():
    model, w = build(tower_units=(), units=(6,))
    x = rows(1)
    experts = np.stack([dense(x[0], w, "experts_0", i) for i in range(2)])
    like = softmax(x[0] @ w["gates/kernel"][:, 1]) @ experts
    np.testing.assert_allclose(model.predict(x, verbose=0)["like"][0], like, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_experts": 0}, "`num_experts` must be a positive integer. Received: num_experts=0"),
        ({"units": ()}, r"`units` must be the widths of one or more layers, all positive. Received: units=\(\)"),
        ({"units": (8, 0)}, r"all positive. Received: units=\(8, 0\)"),
    ],
)
def test_refuses_sizes_that_are_not_positive(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

import keras
import numpy as np
import pytest

from tfmtr.sharing.ple import ple

TOWERS = ("click", "like", "share")
SIZES = {"units": (6, 5), "num_experts": 2, "num_shared_experts": 3, "tower_units": (3,)}


def build(**options):
    """A small model with weights that are not at their start, and these weights by path."""
    keras.utils.set_random_seed(0)
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model(x, ple(x, scenario, towers=TOWERS, num_scenarios=2, **SIZES | options))
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
        own, shared = [x] * 3, x
        for level in (0, 1):
            experts = [[dense(own[t], w, f"own_experts_{level}", 2 * t + i) for i in range(2)] for t in range(3)]
            common = [dense(shared, w, f"shared_experts_{level}", i) for i in range(3)]
            gates = [softmax(own[t] @ w[f"own_gates_{level}/kernel"][:, t]) for t in range(3)]
            if level == 0:
                shared_gate = softmax(shared @ w["shared_gate_0/kernel"])
                shared = shared_gate @ np.stack([*experts[0], *experts[1], *experts[2], *common])
            own = [gates[t] @ np.stack([*experts[t], *common]) for t in range(3)]
        expected[row] = [dense(own[t], w, "towers_0", t) for t in range(3)]
    check(model, expected)


def test_one_level_keeps_the_tasks_own_experts_apart():
    model, w = build(units=(6,))
    assert not [path for path in w if path.startswith("shared_gate")]  # nothing would read the shared state
    of_like = gradients(model, "like")
    assert np.any(of_like["own_experts_0/kernel"], axis=(0, 2)).tolist() == [False, False, True, True, False, False]
    assert np.any(of_like["shared_experts_0/kernel"], axis=(0, 2)).all()
    assert np.any(of_like["own_gates_0/kernel"], axis=(0, 2)).tolist() == [False, True, False]


def test_several_levels_let_other_tasks_experts_in_through_the_shared_state():
    model, _ = build(units=(6, 5, 4))
    of_like = gradients(model, "like")
    for level in (0, 1):
        assert np.any(of_like[f"own_experts_{level}/kernel"], axis=(0, 2)).all()
        assert np.any(of_like[f"shared_gate_{level}/kernel"])
    assert np.any(of_like["own_experts_2/kernel"], axis=(0, 2)).tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_experts": 0}, "`num_experts` must be a positive integer. Received: num_experts=0"),
        ({"num_shared_experts": 0}, "`num_shared_experts` must be a positive integer. Received: num_shared_experts=0"),
        ({"units": ()}, r"`units` must be the widths of one or more layers, all positive. Received: units=\(\)"),
    ],
)
def test_refuses_sizes_that_are_not_positive(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

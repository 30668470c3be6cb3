import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtr.sharing.pepnet import pepnet

WIDTHS = {"x": 4, "scenario_features": 2, "prior": 3}


def build(**options):
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((width,), name=name) for name, width in WIDTHS.items()}
    options = {"units": (5, 3), "gate_units": 6, **options}
    vectors = pepnet(**inputs, scenario=keras.Input(()), towers=("click", "like"), num_scenarios=3, **options)
    return keras.Model(inputs, vectors)


def rows(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(3, width)).astype("float32") for name, width in WIDTHS.items()}


def test_follows_the_equations():
    model, data, rng = build(), rows(), np.random.default_rng(1)
    for weight in model.weights:  # biases too
        weight.assign(rng.normal(size=weight.shape))
    w = {weight.path: np.asarray(weight) for weight in model.weights}

    def gate(z, name):
        hidden = np.maximum(z @ w[f"{name}_gate_hidden/kernel"] + w[f"{name}_gate_hidden/bias"], 0)
        return 2 / (1 + np.exp(-(hidden @ w[f"{name}_gate/kernel"] + w[f"{name}_gate/bias"])))

    for t, tower in enumerate(("click", "like")):
        for i in range(3):
            x, scenario_features, prior = (data[name][i] for name in WIDTHS)
            h = o = gate(np.concatenate([scenario_features, x]), "epnet") * x
            for layer, units in enumerate((5, 3)):
                mine = slice(t * units, (t + 1) * units)
                d = gate(np.concatenate([prior, o]), f"ppnet_{layer}")[mine]
                h = d * np.maximum(h @ w[f"towers_{layer}/kernel"][:, t] + w[f"towers_{layer}/bias"][t], 0)
            np.testing.assert_allclose(model(data)[tower][i], h, rtol=1e-4, atol=1e-5)


def test_every_task_has_its_own_gate():
    model, data = build(), rows()
    before = {tower: np.asarray(vector) for tower, vector in model(data).items()}
    model.get_layer("ppnet_1_gate").bias.assign([-1e4] * 3 + [0] * 3)  # closes the first task's three units
    after = model(data)
    assert before["click"].any()
    assert not np.asarray(after["click"]).any()
    np.testing.assert_array_equal(after["like"], before["like"])


def test_gates_do_not_train_what_they_read_but_their_own_features():
    model, data = build(), {name: tf.constant(value) for name, value in rows().items()}
    with tf.GradientTape() as tape:
        tape.watch(list(data.values()))
        total = tf.reduce_sum(model(data)["click"])
    gradients = tape.gradient(total, data)
    # Biases start at zero: with gates that are constants to the gradient, the towers are homogeneous in x (Euler).
    assert total > 0
    np.testing.assert_allclose(tf.reduce_sum(gradients["x"] * data["x"]), total, rtol=1e-4)
    assert tf.reduce_any(gradients["prior"] != 0)
    assert tf.reduce_any(gradients["scenario_features"] != 0)


def test_names_the_option_that_is_wrong():
    with pytest.raises(ValueError, match=r"`units` must be the widths.*Received: units=\(\)"):
        build(units=())
    with pytest.raises(ValueError, match=r"`gamma` must be positive.*Received: gamma=0"):
        build(gamma=0)

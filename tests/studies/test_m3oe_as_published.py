import importlib

import keras
import numpy as np
import pytest

from tfmtr.layers.fusion_weight import FusionWeight

published = importlib.import_module("studies.m3oe.as_published")
TOWERS = ("click", "like")


def random_weights(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.3).astype("float32"))


def dense(x, layer):
    """ReLU(norm(x W + b)) in NumPy."""
    kernel, bias, scale, center = map(np.asarray, (layer.kernel, layer.bias, layer.scale, layer.center))
    return normalized(x @ kernel + bias, scale, center)


def normalized(z, scale, center):
    z = z - z.mean(-1, keepdims=True)
    return np.maximum(z / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-3) * scale + center, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def build(**options):
    x, scenario = keras.Input((5,)), keras.Input((), dtype="int32")
    shared = published.as_published(x, scenario, towers=TOWERS, num_scenarios=3, num_experts=2, **options)
    return keras.Model([x, scenario], shared.vectors)


@pytest.mark.parametrize(("normalize_star", "normalize_towers"), [(True, True), (True, False), (False, True)])
def test_follows_the_published_network(normalize_star, normalize_towers):
    model = build(normalize_star=normalize_star, normalize_towers=normalize_towers)
    random_weights(model)
    rng = np.random.default_rng(1)
    x, scenario = rng.normal(size=(3, 5)).astype("float32"), np.array([2, 0, 2])
    found = model.predict([x, scenario], verbose=0)

    def layer(name):
        return model.get_layer(name)

    def experts(name):
        of = layer(f"{name}_experts")
        z = np.einsum("bw,wnu->bnu", h, of.kernel) + of.bias
        return normalized(z, np.asarray(of.scale), np.asarray(of.center))

    star = layer("star")
    first = np.stack(
        [
            row @ (np.asarray(star.own_kernels[d]) * np.asarray(star.kernel))
            + np.asarray(star.own_biases[d])
            + np.asarray(star.bias)
            for row, d in zip(x, scenario, strict=True)
        ]
    )
    top = layer("star_top")
    h = dense(first, top) if normalize_star else first @ np.asarray(top.kernel) + np.asarray(top.bias)
    h = h + dense(x, layer("domain_agnostic"))
    gates = layer("gates")
    weight = {n: sigmoid(np.asarray(layer(n).fusion_logit))[0] for n in ("alpha_d", "beta_d", "alpha_t", "beta_t")}
    shared, of_domains, of_tasks = (experts(name) for name in ("shared", "domain", "task"))
    for t, tower in enumerate(TOWERS):
        for row, d in enumerate(scenario):
            logits = (h[row] @ np.asarray(gates.kernels[d]) + np.asarray(gates.biases[d]))[2 * t : 2 * t + 2]
            gate = np.exp(logits) / np.exp(logits).sum()
            others = np.delete(of_domains[row], d, axis=0).mean(axis=0)
            fused = (
                gate @ shared[row]
                + weight["alpha_d"] * (weight["beta_d"] * of_domains[row, d] + (1 - weight["beta_d"]) * others)
                + weight["alpha_t"]
                * (weight["beta_t"] * of_tasks[row, t] + (1 - weight["beta_t"]) * of_tasks[row, 1 - t])
            )
            if normalize_towers:
                expected = dense(fused, layer(f"{tower}_tower_{d}"))
            else:
                of_tower = layer(f"{tower}_tower")
                expected = np.maximum(fused @ np.asarray(of_tower.kernels[d]) + np.asarray(of_tower.biases[d]), 0)
            np.testing.assert_allclose(found[tower][row], expected, atol=1e-4)


def test_gates_do_not_train_what_they_read_and_fusion_weights_start_at_sigmoid_of_one():
    import tensorflow as tf

    model = build()
    x, scenario = tf.random.stateless_normal((4, 5), (0, 1)), tf.constant([0, 1, 2, 0])
    logits = keras.Model(model.inputs, model.get_layer("gates").output)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(logits([x, scenario]) ** 2)
    assert tape.gradient(loss, model.get_layer("star_top").kernel) is None
    weights = [layer for layer in model.layers if isinstance(layer, FusionWeight)]
    assert len(weights) == 4
    np.testing.assert_allclose([layer(x)[0] for layer in weights], sigmoid(1), rtol=1e-6)
    fixed = [layer for layer in build(learn_fusion=False).layers if isinstance(layer, FusionWeight)]
    assert [float(layer(x)[0]) for layer in fixed] == [0.5] * 4
    assert not any(layer.trainable_weights for layer in fixed)

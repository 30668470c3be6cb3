import keras
import numpy as np
import pytest

from tfmtr.sharing.star import star

RNG = np.random.default_rng(0)
X, SCENARIO = RNG.normal(size=(3, 4)).astype("float32"), np.asarray([1, 0, 1])
FEATURES = RNG.normal(size=(3, 2)).astype("float32")


def build(towers=("click", "like"), num_scenarios=2, **options):
    """The model, and its weights by path, drawn anew so that none is at a neutral start."""
    x, scenario, features = keras.Input((4,)), keras.Input((), dtype="int32"), keras.Input((2,))
    options = {"units": (6, 5), "auxiliary_units": (3,), **options}
    shared = star(x, scenario, towers=towers, num_scenarios=num_scenarios, scenario_features=features, **options)
    model = keras.Model([x, scenario, features], {"vectors": shared.vectors, "terms": dict(shared.terms)})
    rng = np.random.default_rng(1)
    for weight in model.weights:
        signs = 1 if weight.name == "moving_variance" else rng.choice([-1, 1], weight.shape)
        weight.assign(signs * rng.uniform(0.2, 1.0, weight.shape))
    return shared, model, {w.path: np.asarray(w) for w in model.weights}


def test_follows_the_equations():
    shared, model, w = build()
    outputs = model([X, SCENARIO, FEATURES])
    for row, (x, s, features) in enumerate(zip(X, SCENARIO, FEATURES, strict=True)):
        norm = {name: w[f"partitioned_norm/{name}"] for name in ("gamma", "beta")}
        own = {n: w[f"partitioned_norm/{n}"][s] for n in ("own_gamma", "own_beta", "moving_mean", "moving_variance")}
        h = (x - own["moving_mean"]) / np.sqrt(own["moving_variance"] + 1e-3)
        h = norm["gamma"] * own["own_gamma"] * h + norm["beta"] + own["own_beta"]
        for t, tower in enumerate(("click", "like")):
            u = h
            for layer in ("star_0", f"{tower}_star"):
                kernel = w[f"{layer}/own_kernel_{s}"] * w[f"{layer}/kernel"]
                u = np.maximum(u @ kernel + w[f"{layer}/own_bias_{s}"] + w[f"{layer}/bias"], 0)
            np.testing.assert_allclose(outputs["vectors"][tower][row], u, rtol=1e-4, atol=1e-5)
            a = np.concatenate([features, x]) @ w["auxiliary_0/kernel"] + w["auxiliary_0/bias"]
            a = np.maximum(a, 0) @ w["auxiliary_logits/kernel"] + w["auxiliary_logits/bias"]
            np.testing.assert_allclose(outputs["terms"][tower][row], a[t : t + 1], rtol=1e-4, atol=1e-5)
    assert shared.routed_output


def test_scenarios_own_weights_do_not_see_the_rows_of_others_and_shared_ones_do():
    tf = pytest.importorskip("tensorflow")
    _, model, _ = build(num_scenarios=3)
    with tf.GradientTape() as tape:
        outputs = model([X, SCENARIO, FEATURES], training=True)["vectors"]
        loss = sum(tf.reduce_sum(tf.square(u)) for u in outputs.values())
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    moved = {v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is not None and np.any(g)}
    assert {"star_0/kernel", "star_0/own_kernel_1", "click_star/own_kernel_1"} <= moved
    assert not any("own" in path and path.endswith("2") for path in moved)


def test_a_scenario_with_its_own_weights_at_one_is_the_shared_network():
    _, model, _ = build()
    for weight in model.weights:
        if "own" in weight.name or "moving" in weight.name:
            weight.assign(np.full(weight.shape, float(any(n in weight.name for n in ("kernel", "gamma", "variance")))))
    a, b = (model([X, np.full(3, s), FEATURES])["vectors"]["click"] for s in (0, 1))
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_refuses_no_layers():
    with pytest.raises(ValueError, match=r"`units` must be the widths of one or more layers.*units=\(\)"):
        build(units=())

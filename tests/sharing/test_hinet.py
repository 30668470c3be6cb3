import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tfmtr.sharing.hinet import hinet

RNG = np.random.default_rng(0)
X, SCENARIO = RNG.normal(size=(3, 4)).astype("float32"), np.asarray([1, 0, 2])
FEATURES = RNG.normal(size=(3, 2)).astype("float32")
D, K, TOWERS = 3, 2, ("click", "like")


def build(num_scenarios=D, **options):
    x, scenario, features = keras.Input((4,)), keras.Input((), dtype="int32"), keras.Input((2,))
    options = {"units": (6, 5), "num_experts": K, "tower_units": (3,), **options}
    shared = hinet(x, scenario, towers=TOWERS, num_scenarios=num_scenarios, scenario_features=features, **options)
    model = keras.Model([x, scenario, features], shared.vectors)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model, {w.path: np.asarray(w) for w in model.weights}


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def relu(x):
    return np.maximum(x, 0)


def test_follows_the_equations():
    model, w = build()
    outputs = model([X, SCENARIO, FEATURES])
    for row, (x, s, features) in enumerate(zip(X, SCENARIO, FEATURES, strict=True)):

        def expert(layer, z, i):
            return relu(z @ w[f"{layer}/kernel"][:, i] + w[f"{layer}/bias"][i])

        def block(j, x=x):
            gate = softmax(x @ w["scenario_gates/kernel"][:, j])
            return sum(gate[k] * expert("scenario_experts", x, j * K + k) for k in range(K))

        others = [j for j in range(D) if j != s]
        p = softmax((features @ w["attention/kernel"])[others])
        c = np.concatenate([block(D), block(s), sum(p_j * block(j) for p_j, j in zip(p, others, strict=True))])
        for t, tower in enumerate(TOWERS):
            seen = [expert("task_experts", c, t * K + k) for k in range(K)]
            seen += [expert("task_experts", c, len(TOWERS) * K + k) for k in range(K)]
            gate = softmax(c @ w["task_gates/kernel"][:, t])
            h = sum(g * e for g, e in zip(gate, seen, strict=True))
            u = relu(h @ w["towers_0/kernel"][:, t] + w["towers_0/bias"][t])
            np.testing.assert_allclose(outputs[tower][row], u, rtol=1e-4, atol=1e-5)


def test_attention_goes_to_other_scenarios_only_and_depends_on_the_scenarios_features():
    tf = pytest.importorskip("tensorflow")
    model, _ = build(num_scenarios=2)  # one other scenario: nothing to choose
    kernel = model.get_layer("attention").kernel
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model([X, np.asarray([0, 1, 0]), FEATURES])["click"])
    np.testing.assert_allclose(tape.gradient(loss, kernel.value), 0, atol=1e-6)
    model, _ = build()
    a, b = (model([X, SCENARIO, f])["click"] for f in (FEATURES, -FEATURES))
    assert not np.allclose(a, b)


def test_attention_is_that_of_the_authors_over_the_share_that_they_leave_to_the_other_scenarios():
    """They set the own scenario's weight to 0 after the softmax; here the others' weights sum to 1."""
    theirs = json.loads(Path(__file__).with_name("authors.json").read_text(encoding="utf-8"))["hinet"]
    x, scenario, features = keras.Input((4,)), keras.Input((), dtype="int32"), keras.Input((3,))
    options = {"units": (1, 2), "num_experts": 2, "tower_units": ()}
    shared = hinet(x, scenario, towers=TOWERS, num_scenarios=3, scenario_features=features, **options)
    model = keras.Model([x, scenario, features], shared.vectors)
    gathered = keras.Model(model.inputs, model.get_layer("task_experts").input)
    model.get_layer("attention").set_weights([np.eye(3)])
    for experts, logits, own, expected in zip(
        *(theirs[k] for k in ("experts", "logits", "scenario", "y")), strict=True
    ):
        layer = model.get_layer("scenario_experts")
        both = np.repeat([*experts, 7.0], 2)[:, None]  # whichever a gate takes; the last block is shared
        layer.set_weights([np.zeros((4, 8, 1)), both])
        c = gathered([X[:1], np.asarray([own]), np.asarray([logits], "float32")])
        of_others = 1 - softmax(np.asarray(logits))[own]
        np.testing.assert_allclose(c[0], [7.0, experts[own], expected / of_others], rtol=1e-5)


def test_a_task_does_not_see_the_experts_of_another():
    model, w = build()
    before = model([X, SCENARIO, FEATURES])
    layer = model.get_layer("task_experts")
    layer.kernel.assign(np.where(np.arange(3 * K)[:, None] < K, 0.0, w["task_experts/kernel"]))  # the first task's
    after = model([X, SCENARIO, FEATURES])
    assert not np.allclose(after["click"], before["click"])
    np.testing.assert_allclose(after["like"], before["like"])


def test_with_one_scenario_there_is_no_attention():
    assert "attention" not in {layer.name for layer in build(num_scenarios=1)[0].layers}


def test_refuses_other_than_two_widths():
    with pytest.raises(ValueError, match=r"`units` must have two widths.*units=\(6,\)"):
        build(units=(6,))

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtr.sharing.stem import stem

TOWERS = ("click", "like", "share")
WIDTHS = {"x": 4, "click": 3, "like": 3, "share": 3}  # in two-tower form the widths differ


def build(towers=TOWERS, num_experts=2):
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((width,), name=name) for name, width in WIDTHS.items()}
    sizes = {"num_experts": num_experts, "num_shared_experts": 1, "units": (6, 5), "tower_units": (2,)}
    tables = {tower: inputs[tower] for tower in TOWERS}
    shared = stem(inputs["x"], keras.Input(()), towers=towers, num_scenarios=3, task_representations=tables, **sizes)
    return keras.Model(inputs, shared.vectors)


def rows():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(3, width)).astype("float32") for name, width in WIDTHS.items()}


def test_follows_the_equations():
    model, data, rng = build(), rows(), np.random.default_rng(1)
    for weight in model.weights:  # biases too
        weight.assign(rng.normal(size=weight.shape))
    w = {weight.path: np.asarray(weight) for weight in model.weights}

    def expert(z, name, i):
        for layer in range(2):
            kernel, bias = (w[f"{name}_{layer}/{part}"] for part in ("kernel", "bias"))
            z = np.maximum(z @ kernel[:, i] + bias[i], 0)
        return z

    for t, tower in enumerate(TOWERS):
        for i in range(3):
            x, own = data["x"][i], data[tower][i]
            seen = [expert(own, f"{tower}_experts", e) for e in range(2)]
            for other in TOWERS:
                seen += [expert(data[other][i], f"{other}_experts", e) for e in range(2)] if other != tower else []
            seen += [expert(x, "experts", 0)]
            scores = np.exp(np.concatenate([own, x]) @ w[f"{tower}_gate/kernel"])
            blend = sum(score * e for score, e in zip(scores / scores.sum(), seen, strict=True))
            expected = np.maximum(blend @ w["towers_0/kernel"][:, t] + w["towers_0/bias"][t], 0)
            np.testing.assert_allclose(model(data)[tower][i], expected, rtol=1e-4, atol=1e-5)


def test_is_that_of_its_authors():
    """Their gates read the sum of the task's and the shared embeddings: both halves of ours have their kernel."""
    theirs = json.loads(Path(__file__).with_name("authors.json").read_text(encoding="utf-8"))["stem"]
    state = {name: np.asarray(value, "float32") for name, value in theirs["state"].items()}
    x = [keras.Input((3,)) for _ in range(3)]
    sizes = {"num_experts": 2, "num_shared_experts": 1, "units": (4,), "tower_units": ()}
    tables = {"a": x[0], "b": x[1]}
    shared = stem(x[2], keras.Input(()), towers=("a", "b"), num_scenarios=1, task_representations=tables, **sizes)
    model = keras.Model(x, shared.vectors)
    for layer, paths in {
        "a_experts_0": ["specific_experts.0.0", "specific_experts.0.1"],
        "b_experts_0": ["specific_experts.1.0", "specific_experts.1.1"],
        "experts_0": ["shared_experts.0"],
    }.items():
        kernel = np.stack([state[f"{path}.mlp.0.weight"].T for path in paths], axis=1)
        model.get_layer(layer).set_weights([kernel, np.stack([state[f"{path}.mlp.0.bias"] for path in paths])])
    # Their experts are in the order of the tasks, ours begin with the task's own.
    for t, order in enumerate(([0, 1, 2, 3, 4], [2, 3, 0, 1, 4])):
        kernel = state[f"gate.{t}.mlp.0.weight"].T[:, order]
        model.get_layer(f"{'ab'[t]}_gate").set_weights([np.concatenate([kernel, kernel])])
    vectors = model([np.asarray(one, "float32") for one in theirs["x"]])
    for t, tower in enumerate("ab"):
        np.testing.assert_allclose(vectors[tower], theirs["y"][t], rtol=1e-4, atol=1e-6)


def test_forward_reads_all_tables_backward_trains_its_own_and_the_shared():
    model, data = build(), {name: tf.constant(value) for name, value in rows().items()}
    changed = model(data | {"like": data["like"] + 1})
    assert np.abs(changed["click"] - model(data)["click"]).max() > 1e-3
    with tf.GradientTape() as tape:
        tape.watch(list(data.values()))
        loss = tf.reduce_sum(model(data)["click"])
    weights = {weight.path: weight.value for weight in model.trainable_weights if "experts" in weight.path}
    gradients = tape.gradient(loss, data | weights, unconnected_gradients="zero")
    trained = {name for name, gradient in gradients.items() if tf.reduce_any(gradient != 0)}
    assert trained & set(data) == {"x", "click"}
    assert trained - set(data) == {path for path in weights if path.startswith(("click_experts", "experts"))}


def test_a_tower_without_tables_is_named():
    with pytest.raises(ValueError, match=r"add \['follow'\]. Received: task_representations for \['click', 'like'"):
        build(towers=("click", "follow"))

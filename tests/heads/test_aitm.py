import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.head_oracles import CLICK_AND_PURCHASE, LABELS, LOGITS, P, cross_entropy, losses_and_gradients

from tfmtr.heads.aitm import aitm
from tfmtr.schema import Task


def test_losses_and_the_calibrator():
    losses, _ = losses_and_gradients(aitm(CLICK_AND_PURCHASE, calibrator_weight=0.5), LOGITS, LABELS)
    excess = np.maximum(P["purchase"] - P["click"], 0)
    assert (excess > 0).any()
    expected = {name: cross_entropy(P[name], LABELS[name]).mean() for name in P}
    assert losses == pytest.approx({**expected, "purchase_calibrator": 0.5 * excess.mean()}, rel=1e-5)


def test_the_calibrator_pulls_a_purchase_below_its_click():
    """The effect, on a row that says nothing else: both labels are unknown."""
    unknown = {name: [float("nan")] for name in LABELS}
    _, gradients = losses_and_gradients(aitm(CLICK_AND_PURCHASE), {"click": [-1.0], "purchase": [1.0]}, unknown)
    assert gradients["purchase"] > 0 > gradients["click"]
    _, gradients = losses_and_gradients(aitm(CLICK_AND_PURCHASE), {"click": [1.0], "purchase": [-1.0]}, unknown)
    assert gradients["purchase"] == gradients["click"] == 0


def test_transfer_along_a_chain_of_three_follows_the_equations():
    tasks = [Task("click"), Task("cart", after="click"), Task("paid", after="cart")]
    inputs = {task.name: keras.Input((4,), name=task.name) for task in tasks}
    model = keras.Model(inputs, aitm(tasks).relate(inputs))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.4))
    q = {name: rng.normal(size=(3, 4)).astype("float32") for name in inputs}
    z = {"click": q["click"]}
    for before, name in (("click", "cart"), ("cart", "paid")):

        def layer(part, x, name=name):
            kernel, bias = model.get_layer(f"{name}_{part}").get_weights()
            return x @ kernel + bias

        pair = [layer("transferred", z[before]), q[name]]
        scores = np.stack([np.sum(layer("attention_key", u) * layer("attention_query", u), axis=1) / 2 for u in pair])
        weights = np.exp(scores) / np.exp(scores).sum(axis=0)
        z[name] = sum(weight[:, None] * layer("attention_value", u) for weight, u in zip(weights, pair, strict=True))
    related = model.predict(q, verbose=0)
    for name, expected in z.items():
        np.testing.assert_allclose(related[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)


def test_attention_is_that_of_its_authors():
    """Theirs has no biases: it is ours where they are 0."""
    theirs = json.loads(Path(__file__).with_name("authors.json").read_text(encoding="utf-8"))["aitm"]
    inputs = {task.name: keras.Input((4,), name=task.name) for task in CLICK_AND_PURCHASE}
    model = keras.Model(inputs, aitm(CLICK_AND_PURCHASE).relate(inputs))
    kernels = {"transferred": np.eye(4), "attention_query": theirs["attention_w1"]}
    kernels |= {"attention_key": theirs["attention_w2"], "attention_value": theirs["attention_w3"]}
    for part, kernel in kernels.items():
        model.get_layer(f"purchase_{part}").set_weights([np.asarray(kernel), np.zeros(4)])
    q, info = (np.asarray(theirs[name], "float32") for name in ("q", "info"))
    np.testing.assert_allclose(model({"click": info, "purchase": q})["purchase"], theirs["y"], rtol=1e-4, atol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match="`head=aitm` is for tasks that follow one another"):
        aitm([Task("click"), Task("like")])
    with pytest.raises(ValueError, match="`calibrator_weight` must not be negative"):
        aitm(CLICK_AND_PURCHASE, calibrator_weight=-0.1)

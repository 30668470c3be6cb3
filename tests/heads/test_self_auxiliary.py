import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.head_oracles import CLICK_AND_PURCHASE, LABELS, LOGITS, P, cross_entropy, losses_and_gradients
from sklearn.linear_model import LogisticRegression

from tfmtr import models
from tfmtr.heads.self_auxiliary import self_auxiliary
from tfmtr.schema import Feature, Scenario, Schema, Task
from tfmtr.sharing.shared_bottom import shared_bottom

SMALL = {
    "click": np.asarray([1.0, -0.5, 0.0, 2.0], "float32"),
    "purchase": np.asarray([0.5, 0.1, -1.0, 0.3], "float32"),
}
CONTEXT = {"training": {f"{tower}_auxiliary": tf.constant(logit[:, None]) for tower, logit in SMALL.items()}}
SCHEMA = Schema(
    [Feature("user", "user", "vector", width=2), Feature("title", "title", "vector", width=3)],
    [Task("click", mean=0.3), Task("like", mean=0.1)],
    Scenario(["market"], {("all",): "all"}),
)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def test_the_losses_of_another_head_are_those_of_both_heads():
    head = self_auxiliary(CLICK_AND_PURCHASE, head="esmm", auxiliary_weight=0.25)
    found, gradients = losses_and_gradients(head, LOGITS, LABELS, **CONTEXT)
    small = {name: sigmoid(logit) for name, logit in SMALL.items()}
    expected = {
        "click": cross_entropy(P["click"], LABELS["click"]).mean()
        + 0.25 * cross_entropy(small["click"], LABELS["click"]).mean(),
        "purchase": cross_entropy(P["click"] * P["purchase"], LABELS["purchase"]).mean()
        + 0.25 * cross_entropy(small["click"] * small["purchase"], LABELS["purchase"]).mean(),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    alone = losses_and_gradients(
        self_auxiliary(CLICK_AND_PURCHASE, head="esmm", auxiliary_weight=0.0), LOGITS, LABELS, **CONTEXT
    )
    for tower, gradient in gradients.items():  # the large heads learn as they do without the small ones
        np.testing.assert_allclose(gradient, alone[1][tower], rtol=1e-6)


def rows(number=6):
    rng = np.random.default_rng(0)
    return {
        "user": rng.normal(size=(number, 2)).astype("float32"),
        "title": rng.normal(size=(number, 3)).astype("float32"),
        "scenario": np.ones(number, "int32"),
    }


def test_a_ranking_model_s_small_head_is_linear_in_what_its_tower_starts_from():
    keras.utils.set_random_seed(0)
    model = models.ranking(
        SCHEMA, share=functools.partial(shared_bottom, units=(5,), tower_units=(4, 4)), head="self_auxiliary"
    )
    x = rows()
    h = keras.Model(model.input, model.get_layer("bottom_0").output)(x)
    kernel, bias = model.get_layer("like_auxiliary").get_weights()
    assert kernel.shape == (5, 1)
    assert bias[0] == pytest.approx(np.log(0.1 / 0.9), rel=1e-5)
    np.testing.assert_allclose(model(x)["training"]["like_auxiliary"], h @ kernel + bias, rtol=1e-4, atol=1e-6)


def test_the_training_only_part_of_another_head_is_kept():
    head = functools.partial(self_auxiliary, head="cross_distil")
    model = models.ranking(SCHEMA, share="mmoe", head=head)
    x, y = rows(), {"click": np.ones(6, "float32"), "like": np.zeros(6, "float32")}
    found = model(x)
    assert {"click_calibrated", "click_teacher_auxiliary"} <= set(found["training"])
    assert np.isfinite(model.compute_loss(x, y, found))


def test_a_two_tower_model_s_small_head_is_a_linear_query():
    keras.utils.set_random_seed(0)
    model = models.two_tower(SCHEMA, share="territory_branches", head="self_auxiliary", units=(5, 4))
    x = rows()
    base = model.get_layer("user_relu_1").output  # territory branches start from the user tower's output
    h = keras.Model(model.input, base)(x)
    kernel, bias = model.get_layer("like_auxiliary_dense").get_weights()
    query = (h @ kernel + bias) / np.sqrt(4)
    expected = np.sum(query * model.title_tower({"title": x["title"]}), axis=1, keepdims=True) + np.log(0.1 / 0.9)
    np.testing.assert_allclose(model(x)["training"]["like_auxiliary"], expected, rtol=1e-4, atol=1e-6)
    assert "like_auxiliary_dense" not in {layer.name for layer in model.predictor.layers}


def test_what_large_towers_learn_for_themselves_the_shared_layers_must_learn_too():
    """The sign of a product is not linear in its factors; deep towers can compute it from a bottom that does not."""
    rng = np.random.default_rng(0)
    x = {"user": rng.normal(size=(4000, 2)).astype("float32"), "scenario": np.ones(4000, "int32")}
    is_same = x["user"][:, 0] * x["user"][:, 1] > 0
    y = {"click": is_same.astype("float32"), "like": (is_same ^ (rng.random(4000) < 0.1)).astype("float32")}
    schema = SCHEMA.replace(features=SCHEMA.features[:1])
    train, test = slice(2000), slice(2000, None)
    linear = {}
    for head in ("parallel", "self_auxiliary"):
        keras.utils.set_random_seed(0)
        share = functools.partial(shared_bottom, units=(6,), tower_units=(32, 32), normalize=False)
        model = models.ranking(schema, share=share, head=head)
        model.compile(keras.optimizers.Adam(1e-2))
        model.fit(x, y, batch_size=200, epochs=15, verbose=0)
        h = keras.Model(model.input, model.get_layer("bottom_0").output).predict(x, verbose=0)
        probe = LogisticRegression(C=100.0, max_iter=1000).fit(h[train], is_same[train])
        linear[head] = probe.score(h[test], is_same[test])
    assert linear["self_auxiliary"] > linear["parallel"] + 0.05


def test_bad_input():
    with pytest.raises(ValueError, match=r"`auxiliary_weight` that is not negative .* auxiliary_weight=-1"):
        self_auxiliary(CLICK_AND_PURCHASE, auxiliary_weight=-1)
    with pytest.raises(ValueError, match=r"losses are those of logits.* Received: head='in_batch_softmax'"):
        self_auxiliary(CLICK_AND_PURCHASE, head="in_batch_softmax")

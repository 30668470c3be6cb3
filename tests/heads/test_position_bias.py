import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.head_oracles import CLICK_AND_PURCHASE, LABELS, LOGITS, P, cross_entropy, losses, losses_and_gradients

from tfmtr import models
from tfmtr.heads.position_bias import position_bias
from tfmtr.schema import Feature, Scenario, Schema, Task

TERM = np.asarray([1.0, -0.5, 0.0, 2.0], "float32")


def context(**terms):
    return {"training": {f"{name}_position_bias": tf.constant(term[:, None]) for name, term in terms.items()}}


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def test_the_losses_see_the_logit_with_the_term():
    tasks = [Task("click"), Task("purchase")]
    found = losses(position_bias(tasks), LOGITS, LABELS, **context(click=TERM, purchase=TERM))
    expected = {
        name: cross_entropy(sigmoid(LOGITS[name] + TERM), LABELS[name]).mean() for name in ("click", "purchase")
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_it_corrects_the_click_of_another_head_and_not_what_comes_after():
    head = position_bias(CLICK_AND_PURCHASE, head="esmm")
    found, gradients = losses_and_gradients(head, LOGITS, LABELS, **context(click=TERM))
    click = sigmoid(LOGITS["click"] + TERM)
    expected = {
        "click": cross_entropy(click, LABELS["click"]).mean(),
        "purchase": cross_entropy(click * P["purchase"], LABELS["purchase"]).mean(),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    assert np.any(gradients["purchase"])


def test_the_training_only_part_of_the_other_head_sees_the_corrected_logits():
    tasks = [Task("click", mean=0.3), Task("like")]
    head = functools.partial(position_bias, head="cross_distil", biased=("click_teacher",), drop_rate=0.0)
    model = models.ranking(schema().replace(tasks=tasks), head=head)
    model.get_layer("click_teacher_position_bias").set_weights([np.ones((16, 1), "float32")])
    x = {"title": np.ones(2, "int32"), "scenario": np.ones(2, "int32"), "position": np.asarray([0, 3], "int32")}
    found = model(x)
    calibrated, term = (np.asarray(found["training"][f"click_{n}"]) for n in ("calibrated", "teacher_position_bias"))
    np.testing.assert_allclose(calibrated[1] - calibrated[0], term[1], rtol=1e-5)
    assert term[1] != 0


def schema(kind="id"):
    position = Feature("position", "training", kind, [str(i) for i in range(5)] if kind == "id" else ())
    features = [Feature("title", "title", "id", [f"t{i}" for i in range(8)]), position]
    return Schema(features, [Task("click", mean=0.3)], Scenario(["market"], {("all",): "all"}))


def test_unknown_positions_have_no_term_and_dropped_rows_neither():
    model = models.ranking(schema(), head="position_bias")
    rows = 4000
    x = {"title": np.zeros(rows, "int32"), "scenario": np.ones(rows, "int32")}
    term = model(x | {"position": np.zeros(rows, "int32")}, training=False)["training"]["click_position_bias"]
    assert not np.any(term)
    known = x | {"position": np.ones(rows, "int32")}
    term = np.asarray(model(known, training=True)["training"]["click_position_bias"])[:, 0]
    assert np.mean(term == 0) == pytest.approx(0.1, abs=0.02)
    assert np.unique(term[term != 0]).size == 1  # what is kept is not scaled
    assert np.all(np.asarray(model(known, training=False)["training"]["click_position_bias"]) == term[term != 0][0])


def test_the_served_probability_is_that_of_the_title_not_of_its_place():
    """Good titles were shown at the bottom: clicks mislead the head that does not know of positions."""
    rng = np.random.default_rng(0)
    rows, appeal = 20_000, np.linspace(-2, 0.5, 8)
    title = rng.integers(0, 8, rows)
    position = np.clip(np.round(title / 2 + rng.normal(0, 1, rows)), 0, 4).astype(int)  # the better, the lower
    truth = sigmoid(appeal)
    y = (rng.random(rows) < sigmoid(appeal[title] + 1.5 * (2 - position))).astype("float32")
    x = {"title": 1 + title, "position": 1 + position, "scenario": np.ones(rows)}
    x = {name: value.astype("int32") for name, value in x.items()}
    found = {}
    for head in ("parallel", "position_bias"):
        keras.utils.set_random_seed(0)
        model = models.ranking(schema(), head=head)
        model.compile(keras.optimizers.Adam(3e-2))
        model.fit(x, {"click": y}, batch_size=500, epochs=6, verbose=0)
        each = {"title": np.arange(1, 9, dtype="int32"), "scenario": np.ones(8, "int32")}
        found[head] = model.predict(each, verbose=0)["click"][:, 0]
    order = {head: np.corrcoef(np.argsort(np.argsort(p)), np.arange(8))[0, 1] for head, p in found.items()}
    assert order["parallel"] < 0.5 < 0.9 < order["position_bias"]
    assert np.corrcoef(found["position_bias"], truth)[0, 1] > 0.9


def test_bad_input():
    with pytest.raises(ValueError, match=r"`biased` must be one of .* Received: biased='clik'"):
        position_bias([Task("click")], biased=("clik",))
    with pytest.raises(ValueError, match=r"`drop_rate` must be in \[0, 1\). Received: drop_rate=1.0"):
        position_bias([Task("click")], drop_rate=1.0)
    with pytest.raises(ValueError, match=r"needs a feature and a tower to correct.* tasks \['seconds'\]"):
        position_bias([Task("seconds", kind="regression")])

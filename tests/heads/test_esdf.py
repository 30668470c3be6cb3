import numpy as np
import pytest
import tensorflow as tf
from helpers.head_oracles import CLICK_AND_PURCHASE, LABELS, LOGITS, P, cross_entropy, losses, losses_and_gradients

from tfmtr import models
from tfmtr.heads._head import TrainingGraph
from tfmtr.heads.esdf import delay, esdf
from tfmtr.heads.esmm import esmm
from tfmtr.schema import Feature, Scenario, Schema, Task

HAZARDS = {"purchase_hazard_0": [0.2, -1.0, 0.5, 0.1], "purchase_hazard_1": [-0.3, 0.4, 1.0, -2.0]}
HAZARD = {name: 1 / (1 + np.exp(-np.asarray(values))) for name, values in HAZARDS.items()}


def head():
    return esdf(CLICK_AND_PURCHASE, num_slots=3)


def slots(*values):
    return {"training": {"slots": tf.constant(values, tf.float32)}}


def survival(row, t):
    """Of one row, by hand; the third and last slot empties evenly."""
    h0, h1 = HAZARD["purchase_hazard_0"][row], HAZARD["purchase_hazard_1"][row]
    if t < 1:
        return (1 - h0) ** t
    return (1 - h0) * (1 - h1) ** (t - 1) if t < 2 else (1 - h0) * (1 - h1) * max(3 - t, 0)


def seen(row, t):
    return P["click"][row] * P["purchase"][row] * (survival(row, t) - survival(row, t + 1e-6)) / 1e-6


def unseen(row, t):
    p = P["click"][row] * P["purchase"][row]
    return 1 - p + p * survival(row, t)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 1.7, 2.0, 2.5])
def test_the_likelihood_of_every_kind_of_row(t):
    # rows: clicked and bought; not clicked; clicked, not yet bought; not clicked
    found = losses(head(), LOGITS | HAZARDS, LABELS, **slots(t, 1.5, t, 3.0))
    rows = [seen(0, t), unseen(1, 1.5), unseen(2, t), unseen(3, 3.0)]
    assert found["purchase"] == pytest.approx(-np.log(rows).mean(), rel=1e-4)
    assert found["click"] == pytest.approx(cross_entropy(P["click"], LABELS["click"]).mean(), rel=1e-5)


def test_over_a_slot_the_density_is_the_papers_probability_of_the_slot():
    logits = [tf.constant(np.full(1000, values[0]), tf.float32) for values in HAZARDS.values()]
    h0, h1 = (values[0] for values in HAZARD.values())
    for k, expected in enumerate([h0, (1 - h0) * h1, (1 - h0) * (1 - h1)]):
        times = tf.constant(k + (np.arange(1000) + 0.5) / 1000, tf.float32)
        assert np.exp(delay(logits, times)[0]).mean() == pytest.approx(expected, rel=1e-4)


def test_with_all_slots_passed_and_nothing_seen_it_is_esmm():
    labels = {"click": LABELS["click"], "purchase": [0.0, 0.0, 0.0, 0.0]}
    found, gradients = losses_and_gradients(head(), LOGITS | HAZARDS, labels, **slots(3, 9, 7, 3))
    expected, expected_gradients = losses_and_gradients(esmm(CLICK_AND_PURCHASE), LOGITS, labels)
    assert found == pytest.approx(expected)
    np.testing.assert_allclose(gradients["purchase"], expected_gradients["purchase"], atol=1e-7)
    assert not any(np.any(gradients[name]) for name in HAZARDS)


def test_the_gradient_is_that_of_the_m_step():
    """A clicked row without a purchase is weighed by the posterior probability that one is still to come."""
    logits = {name: np.asarray(values)[2:3] for name, values in (LOGITS | HAZARDS).items()}
    labels = {"click": [1.0], "purchase": [0.0]}
    _, gradients = losses_and_gradients(head(), logits, labels, **slots(1))
    c, q = P["click"][2], P["purchase"][2]
    left = survival(2, 1)
    posterior = c * q * left / (1 - c * q + c * q * left)
    # d/dlogit of -[w log(cq) + (1 - w) log(1 - cq)]
    expected = -(posterior * (1 - q) - (1 - posterior) * c * q * (1 - q) / (1 - c * q))
    np.testing.assert_allclose(gradients["purchase"], [expected], rtol=1e-4)


def test_a_purchase_that_may_still_come_pulls_less_than_one_that_did_not():
    recent, old = (
        losses_and_gradients(head(), LOGITS | HAZARDS, LABELS, **slots(0, 0, n, 0))[1]["purchase"][2] for n in (0, 3)
    )
    assert abs(recent) < 0.1 * old


def test_learns_the_conversions_that_are_still_to_come():
    """Half of the conversions are not seen yet; ESMM takes them for none."""
    import keras

    rng = np.random.default_rng(0)
    rows = 30_000
    click = rng.random(rows) < 0.5
    buys = click & (rng.random(rows) < 0.4)
    late, waited = rng.uniform(0, 4, rows), rng.uniform(0, 4, rows)
    seen = buys & (late < waited)
    schema = Schema(
        [Feature("age", "user", "number"), Feature("elapsed", "training", "number", mean=1.0, std=2.0)],
        [Task("click", mean=0.5), Task("purchase", mean=float(seen.mean()), after="click")],
        Scenario(["market"], {("all",): "all"}),
    )
    elapsed = (np.where(seen, late, waited) - 1.0) / 2.0  # as inputs are normalised
    x = {"age": np.ones(rows, "float32"), "elapsed": elapsed.astype("float32"), "scenario": np.ones(rows, "int32")}
    y = {"click": click.astype("float32"), "purchase": seen.astype("float32")}
    found = {}
    for head in ("esmm", "esdf"):
        keras.utils.set_random_seed(0)
        model = models.ranking(schema, head=head)
        model.compile(keras.optimizers.Adam(1e-1))
        model.fit(x, y, batch_size=3000, epochs=18, verbose=0)
        found[head] = float(model.predict(x, verbose=0)["purchase|click"].mean())
    assert found["esmm"] == pytest.approx(0.4 * seen.sum() / buys.sum(), abs=0.03)
    assert found["esdf"] == pytest.approx(0.4, abs=0.03)


def test_a_slot_has_the_length_that_is_asked_for():
    feature = Feature("elapsed", "training", "number")
    schema = Schema([feature], CLICK_AND_PURCHASE, Scenario(["market"], {("all",): "all"}))
    graph = TrainingGraph(schema, {"elapsed": tf.constant([3.0])}, {}, {}, {}, {}, None)
    for slot, expected in ((1.0, 3.0), (2.0, 1.5)):
        assert float(esdf(CLICK_AND_PURCHASE, slot=slot).training(graph)["slots"][0]) == expected


def test_bad_input():
    with pytest.raises(ValueError, match="exactly one task may follow another"):
        esdf([Task("click"), Task("cart", after="click"), Task("buy", after="click")])
    with pytest.raises(ValueError, match="`num_slots` must be at least 2 and `slot` positive"):
        esdf(CLICK_AND_PURCHASE, num_slots=1)
    schema = Schema(
        [Feature("age", "user", "number"), Feature("elapsed", "training", "id", ["1"])],
        CLICK_AND_PURCHASE,
        Scenario(["market"], {("all",): "all"}),
    )
    with pytest.raises(ValueError, match=r"`elapsed` must be a number feature. Received: 'elapsed' of kind 'id'"):
        models.ranking(schema, head="esdf")

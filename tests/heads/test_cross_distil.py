import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.head_oracles import cross_entropy, losses, losses_and_gradients, nan

from tfmtr import models
from tfmtr.heads.cross_distil import cross_distil, pair_loss, quadruplet_loss
from tfmtr.schema import Feature, Scenario, Schema, Task

TASKS = [Task("buy"), Task("like")]
# one row of each kind: ++ +- -+ --
LABELS = {"buy": [1.0, 1.0, 0.0, 0.0], "like": [1.0, 0.0, 1.0, 0.0]}
LOGITS = {
    "buy": [0.5, -0.2, 0.3, -1.0],
    "like": [0.1, 0.4, -0.6, -0.2],
    "buy_teacher": [0.9, 0.2, 0.4, -0.5],
    "like_teacher": [0.3, -0.7, 0.8, 0.2],
}
CALIBRATED = {"buy": np.asarray([1.2, -0.4, 0.6, -0.9]), "like": np.asarray([0.2, 0.5, 1.1, -0.3])}


def context(margin=0.0):
    return {"training": {f"{n}_calibrated": tf.constant(v[:, None], tf.float32) for n, v in CALIBRATED.items()}}


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


def rank(better, worse):
    return np.log1p(np.exp(worse - better))


@pytest.mark.parametrize(("margin", "temperature"), [(0.0, 1.0), (0.7, 2.0)])
def test_the_losses_by_hand(margin, temperature):
    head = cross_distil(TASKS, rank_weights=(1.0, 2.0, 0.5), distil_weight=0.3, margin=margin, temperature=temperature)
    found = losses(head, LOGITS, LABELS, **context())
    for name, order in (("buy", [0, 1, 2, 3]), ("like", [0, 2, 1, 3])):  # own label first
        r = np.asarray(LOGITS[f"{name}_teacher"])[order]
        expected = 1.0 * rank(r[0], r[1]) + 2.0 * rank(r[1], r[2]) + 0.5 * rank(r[2], r[3])
        assert found[f"{name}_teacher"] == pytest.approx(expected, rel=1e-5)
        y, z = np.asarray(LABELS[name]), CALIBRATED[name]
        corrected = np.where(y == 1, np.maximum(z, margin), np.minimum(z, -margin))
        hard = cross_entropy(sigmoid(LOGITS[name]), y)
        soft = cross_entropy(sigmoid(np.asarray(LOGITS[name]) / temperature), sigmoid(corrected / temperature))
        assert found[name] == pytest.approx((0.7 * hard + 0.3 * soft).mean(), rel=1e-5)
        assert found[f"{name}_calibration"] == pytest.approx(cross_entropy(sigmoid(z), y).mean(), rel=1e-5)


def test_teachers_are_towers_that_are_not_served():
    towers = cross_distil(TASKS).towers()
    assert {name: tower.is_served for name, tower in towers.items()} == {
        "buy": True, "like": True, "buy_teacher": False, "like_teacher": False,
    }  # fmt: skip


def test_no_gradient_flows_from_the_students_into_the_teachers():
    head = cross_distil(TASKS, rank_weights=(0.0, 0.0, 0.0))
    logits = {name: tf.Variable(np.asarray(v, "float32")[:, None]) for name, v in LOGITS.items()}
    labels = {name: tf.constant(v) for name, v in LABELS.items()}
    with tf.GradientTape() as tape:
        values = {name: tf.convert_to_tensor(v) for name, v in logits.items()}
        graph = type("Graph", (), {"logits": values})
        training = head.training(graph)
        total = sum(head.losses({}, values, {}, labels, {"training": training}).values())
    gradients = tape.gradient(total, logits, unconnected_gradients="zero")
    assert not np.any(gradients["buy_teacher"])
    assert np.any(gradients["buy"])


def test_the_gradient_of_a_student_is_that_of_both_targets():
    _, gradients = losses_and_gradients(cross_distil(TASKS, distil_weight=0.3), LOGITS, LABELS, **context())
    y, z = np.asarray(LABELS["buy"]), CALIBRATED["buy"]
    target = sigmoid(np.where(y == 1, np.maximum(z, 0), np.minimum(z, 0)))
    p = sigmoid(LOGITS["buy"])
    np.testing.assert_allclose(gradients["buy"], (0.7 * (p - y) + 0.3 * (p - target)) / 4, rtol=1e-4)


def test_pairs_go_round_where_a_kind_has_fewer_rows():
    score = tf.constant([3.0, 1.0, -1.0, 0.5])
    better, worse = tf.constant([True, False, True, False]), tf.constant([True, True, True, True])
    found = float(pair_loss(score, better, worse))  # the better ones: 3 and -1, in turn
    assert found == pytest.approx(
        np.mean([rank(3.0, 3.0), rank(-1.0, 1.0), rank(3.0, -1.0), rank(-1.0, 0.5)]), rel=1e-6
    )
    better, worse = tf.constant([True, False, False, False]), tf.constant([False, True, True, True])
    expected = np.mean([rank(3.0, other) for other in (1.0, -1.0, 0.5)])
    assert float(pair_loss(score, better, worse)) == pytest.approx(expected, rel=1e-6)
    assert float(pair_loss(score, worse, better)) == pytest.approx(
        np.mean([rank(other, 3.0) for other in (1.0, -1.0, 0.5)]), rel=1e-6
    )


def test_the_calibration_does_not_learn_from_the_students():
    calibrated = tf.constant(CALIBRATED["buy"][:, None], tf.float32)
    labels = {name: tf.constant(v) for name, v in LABELS.items()}
    logits = {name: tf.constant(np.asarray(v, "float32")[:, None]) for name, v in LOGITS.items()}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(calibrated)
        given = context()["training"] | {"buy_calibrated": calibrated}
        found = cross_distil(TASKS).losses({}, logits, {}, labels, {"training": given})
    assert tape.gradient(found["buy"], calibrated) is None
    assert np.any(tape.gradient(found["buy_calibration"], calibrated))


def test_kinds_that_a_batch_lacks_are_left_out_of_the_order():
    """Nobody buys without a click: the buyer's teacher orders bought, clicked, neither."""
    score = np.asarray([0.3, -0.2, 0.8], "float32")
    buy, click = tf.constant([1.0, 0.0, 0.0]), tf.constant([1.0, 1.0, 0.0])
    found = float(quadruplet_loss(tf.constant(score), buy, click, (1.0, 5.0, 0.5)))
    assert found == pytest.approx(rank(score[0], score[1]) + 0.5 * rank(score[1], score[2]), rel=1e-6)
    found = float(quadruplet_loss(tf.constant(score), click, buy, (1.0, 5.0, 0.5)))
    assert found == pytest.approx(rank(score[0], score[1]) + 5 * rank(score[1], score[2]), rel=1e-6)
    only = tf.constant([True, False, False])
    ends = quadruplet_loss(tf.constant(score), tf.cast(only, tf.float32), tf.cast(only, tf.float32), (2.0, 1.0, 1.0))
    assert float(ends) == pytest.approx(2 * (rank(score[0], score[1]) + rank(score[0], score[2])) / 2, rel=1e-6)


def test_calibration_starts_at_the_mean_label():
    schema = Schema(
        [Feature("a", "user", "number")], [Task("buy", mean=0.01), Task("like")], Scenario(["m"], {("a",): "a"})
    )
    model = models.ranking(schema, head="cross_distil")
    x = {"a": np.zeros(1, "float32"), "scenario": np.ones(1, "int32")}
    assert sigmoid(float(model(x)["training"]["buy_calibrated"][0, 0])) == pytest.approx(0.01, rel=1e-4)


def test_a_missing_kind_and_unknown_labels_add_nothing():
    score, none = tf.constant([1.0, 2.0]), tf.constant([False, False])
    assert float(pair_loss(score, none, ~none)) == 0
    unknown = losses(cross_distil(TASKS), LOGITS, {"buy": [nan] * 4, "like": LABELS["like"]}, **context())
    assert unknown["buy"] == unknown["buy_teacher"] == unknown["like_teacher"] == 0
    assert unknown["like"] > 0


def test_teachers_learn_to_order_rows_of_the_same_label():
    """Likes reveal which of the titles that were not bought are nearer to being bought: the student learns it too."""
    rng = np.random.default_rng(0)
    rows = 6000
    taste = rng.normal(size=rows).astype("float32")
    like = (rng.random(rows) < sigmoid(3 * taste)).astype("float32")
    buy = np.where(rng.random(rows) < sigmoid(3 * taste - 4), 1.0, 0.0).astype("float32")
    schema = Schema(
        [Feature("taste", "user", "number")], [Task("buy", mean=0.1), Task("like")], Scenario(["m"], {("a",): "a"})
    )
    x = {"taste": taste, "scenario": np.ones(rows, "int32")}
    keras.utils.set_random_seed(0)
    model = models.ranking(schema, head="cross_distil")
    model.compile(keras.optimizers.Adam(3e-2))
    model.fit(x, {"buy": buy, "like": like}, batch_size=500, epochs=10, verbose=0)
    teacher = np.asarray(model(x)["logits"]["buy_teacher"])[:, 0]
    neither = (buy == 0) & (like == 0)
    liked = (buy == 0) & (like == 1)
    assert teacher[liked].mean() > teacher[neither].mean() + 1
    assert teacher[buy == 1].mean() > teacher[liked].mean()
    platt = np.asarray(model(x)["training"]["buy_calibrated"])[:, 0]
    assert sigmoid(platt).mean() == pytest.approx(buy.mean(), abs=0.03)  # the score itself is no probability


def test_bad_input():
    with pytest.raises(ValueError, match=r"`pair` must name two binary tasks .* Received: pair=\('a',\)"):
        cross_distil([Task("a")])
    with pytest.raises(ValueError, match=r"`pair` must be one of .* Received: pair='c'"):
        cross_distil(TASKS, pair=("buy", "c"))
    with pytest.raises(ValueError, match=r"`distil_weight` must be in \[0, 1\]"):
        cross_distil(TASKS, distil_weight=1.5)

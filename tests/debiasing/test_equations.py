"""The equations of the ways to debias, by hand on a few rows, and what they refuse."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from helpers.head_oracles import cross_entropy

from tfmtr import models
from tfmtr.debiasing.dice import dice
from tfmtr.debiasing.ips import ips
from tfmtr.debiasing.macr import macr
from tfmtr.debiasing.pda import pda
from tfmtr.debiasing.popular_negatives import popular_negatives
from tfmtr.debiasing.score_correlation import score_correlation
from tfmtr.heads.parallel import parallel
from tfmtr.layers.title_popularity import TitlePopularity
from tfmtr.recipe import Recipe
from tfmtr.schema import Feature, Scenario, Schema, Task

TASKS = [Task("click")]
LOGITS = np.array([0.3, -1.0, 2.0, -0.4])
LABELS = np.array([1.0, 0.0, 1.0, np.nan])
POPULARITY = np.array([1.0, 0.5, 0.04, 0.25])
IDS = np.array([5, 6, 7, 8])
QUERIES = np.array([[1.0, 0.2], [0.3, -1.0], [0.5, 0.5], [-0.4, 0.8]])
TITLES = np.array([[0.4, 0.1], [-0.2, 0.9], [0.4, -0.3], [1.0, -0.6]])
PAIRS = [(0, 1), (2, 1)]  # of a positive row and the one row in which nothing happened


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loss(head, **training):
    given = {name.replace("__", "/"): tf.constant(value, tf.float32) for name, value in training.items()}
    if "id" in given:
        given["id"] = tf.constant(training["id"])
    logits = {"click": tf.constant(LOGITS[:, None], tf.float32)}
    labels = {"click": tf.constant(LABELS, tf.float32)}
    found = head.losses(head.outputs(logits), logits, {}, labels, {"training": given, "scenario": None})
    return {name: float(value) for name, value in found.items()}


def test_ips_weighs_positives_by_their_clipped_title_weight():
    inverse = np.minimum(4.0, POPULARITY**-0.5)
    np.testing.assert_allclose(inverse, [1, 2**0.5, 4, 2])
    plain = cross_entropy(sigmoid(LOGITS[:3]), LABELS[:3])
    for is_normalized, weights in ((False, [1, 1, 4]), (True, [1 / 2.5, 1, 4 / 2.5])):
        head = ips(TASKS, parallel(TASKS), clip=4.0, is_normalized=is_normalized)
        found = loss(head, title_weight=inverse)
        assert found == pytest.approx({"click": (plain * weights).mean()}, rel=1e-5)


def test_ips_keeps_weights_that_rows_have():
    head = ips(TASKS, parallel(TASKS), is_normalized=False)
    labels, logits = ({"click": tf.constant(v, tf.float32)} for v in (LABELS, LOGITS[:, None]))
    context = {"training": {"title_weight": tf.fill([4], 2.0)}, "sample_weight": tf.constant([3.0, 1, 0, 1])}
    plain = cross_entropy(sigmoid(LOGITS[:3]), LABELS[:3])
    found = head.losses(head.outputs(logits), logits, {}, labels, context)
    assert float(found["click"]) == pytest.approx((plain * [6, 1, 0]).mean(), rel=1e-5)


def test_popular_negatives_weigh_rows_of_label_0():
    labels, popularity = np.array([1.0, 0.0, 0.0, np.nan]), POPULARITY**0.75
    head = popular_negatives(TASKS, parallel(TASKS))
    logits = {"click": tf.constant(LOGITS[:, None], tf.float32)}
    context = {"training": {"title_weight": tf.constant(popularity, tf.float32)}}
    found = head.losses(head.outputs(logits), logits, {}, {"click": tf.constant(labels, tf.float32)}, context)
    weights = [1, *(popularity[1:3] / popularity[1:3].mean())]
    expected = (cross_entropy(sigmoid(LOGITS[:3]), labels[:3]) * weights).mean()
    assert float(found["click"]) == pytest.approx(expected, rel=1e-5)


def test_pda_compares_match_times_popularity():
    factor = POPULARITY**0.3
    found = loss(
        pda(TASKS, parallel(TASKS), num_negatives=3), id=IDS, title=TITLES, factor=factor, query__click=QUERIES
    )

    def probability(user, title):
        match = QUERIES[user] @ TITLES[title]
        return (match + 1 if match > 0 else np.exp(match)) * factor[title]

    terms = [-np.log(sigmoid(probability(i, i) - probability(i, j))) for i, j in PAIRS]
    assert found == pytest.approx({"click": np.mean(terms)}, rel=1e-5)


def test_a_row_without_negatives_among_its_neighbours_adds_nothing():
    head, given = pda(TASKS, parallel(TASKS), num_negatives=1), {"id": IDS, "title": TITLES, "factor": POPULARITY}
    q, v, m = QUERIES[2], TITLES, POPULARITY  # the row before row 0 is the last one, of no known label
    difference = (q @ v[2] + 1) * m[2] - (q @ v[1] + 1) * m[1]
    assert loss(head, **given, query__click=QUERIES)["click"] == pytest.approx(
        -np.log(sigmoid(difference)) / 2, rel=1e-5
    )
    same = given | {"id": np.full(4, 5)}
    assert loss(head, **same, query__click=QUERIES) == {"click": 0.0}


def test_dice_learns_interest_where_the_less_popular_title_was_chosen():
    head = dice(
        TASKS, parallel(TASKS), num_negatives=3, interest_weight=0.2, conformity_weight=0.3, discrepancy_weight=0.05
    )
    found = loss(head, id=IDS, title=TITLES, popularity=POPULARITY, query__click=QUERIES)
    terms = []
    for i, j in PAIRS:
        interest, conformity = QUERIES[i] * (TITLES[i] - TITLES[j])
        is_interest = POPULARITY[j] > POPULARITY[i]
        assert is_interest == (i == 2)
        term = -np.log(sigmoid(interest + conformity)) + 0.3 * -np.log(
            sigmoid(-conformity if is_interest else conformity)
        )
        apart = abs(TITLES[i][0] - TITLES[i][1]) + abs(QUERIES[i][0] - QUERIES[i][1])
        terms.append(term + 0.2 * is_interest * -np.log(sigmoid(interest)) - 0.05 * apart)
    assert found == pytest.approx({"click": np.mean(terms)}, rel=1e-5)


def schema(*tasks):
    title = Feature("title", "training", "string", width=2**31 - 1)
    features = [Feature("user", "user", "id", ["a", "b"]), Feature("movie", "title", "id", ["c", "d"]), title]
    return Schema(features, tasks or TASKS, Scenario(["territory"], {("DE",): "all"}))


X = {
    name: np.array(v, "int32")
    for name, v in {"user": [1, 2], "movie": [2, 1], "title": [8, 9], "scenario": [1, 1]}.items()
}


def test_macr_serves_the_match_less_c_times_both_parts():
    model = models.two_tower(schema(), debias=("macr", {"c": 3.0, "title_weight": 0.1, "user_weight": 0.2}), units=(4,))
    plain = models.two_tower(schema(), units=(4,))
    for layer in plain.layers:
        if layer.name != "click_score":
            layer.set_weights(model.get_layer(layer.name).get_weights())
    q = np.asarray(plain.user_tower({"user": X["user"], "scenario": X["scenario"]})["click"])
    v = np.asarray(plain.title_tower({"movie": X["movie"]}))
    w, w_u = (model.get_layer(name).get_weights()[0] for name in ("macr_of_title", "macr_click"))
    y_k, y_i, y_u = (q * v).sum(1), (v @ w)[:, 0], (q @ w_u)[:, 0]
    both, found = sigmoid(y_i) * sigmoid(y_u), model(X)
    np.testing.assert_allclose(found["logits"]["click"][:, 0], (y_k - 3) * both, rtol=1e-5)
    assert model.title_tower.output_shape == (None, 5)
    y = {"click": np.array([1.0, 0.0], "float32")}
    parts = [cross_entropy(sigmoid(logit), y["click"]).mean() for logit in (y_k * both, y_i, y_u)]
    assert float(model.compute_loss(X, y, found)) == pytest.approx(parts[0] + 0.1 * parts[1] + 0.2 * parts[2], rel=1e-5)


def test_score_correlation_is_that_of_the_positives():
    tasks = [Task("click", weight=2.0)]
    labels = np.array([1.0, 1.0, 0.0, 1.0])
    head = score_correlation(tasks, parallel(tasks), weight=0.5)
    logits = {"click": tf.constant(LOGITS[:, None], tf.float32)}
    context = {"training": {"popularity": tf.constant(POPULARITY, tf.float32)}}
    found = head.losses(head.outputs(logits), logits, {}, {"click": tf.constant(labels, tf.float32)}, context)
    of = [0, 1, 3]
    assert float(found["click_correlation"]) == pytest.approx(
        0.5 * 2 * np.corrcoef(LOGITS[of], POPULARITY[of])[0, 1] ** 2, rel=1e-4
    )


def test_popularity_is_counted_among_the_positives_of_the_first_task_before_the_first_step():
    model = models.two_tower(schema(), debias="ips", units=(4,))
    model.compile("sgd")
    x = {name: np.concatenate([value, value[:1]]) for name, value in X.items()}
    model.fit(x, {"click": np.array([1.0, 0.0, 1.0], "float32")}, verbose=0)
    (layer,) = (layer for layer in model.layers if isinstance(layer, TitlePopularity))
    np.testing.assert_allclose(layer(np.array([8, 9, 7])), [1, 1 / 3, 1 / 3])


@pytest.mark.parametrize(
    ("debias", "message"),
    [
        (functools.partial(ips, clip=0.5), r"`clip` must be .* Received: clip=0\.5"),
        (functools.partial(ips, power=-1), r"`power` must be .* Received: power=-1"),
        (functools.partial(pda, num_negatives=0), r"`num_negatives` must be .* Received: num_negatives=0"),
        (functools.partial(pda, power=-1.0), r"`power` must be .* Received: power=-1"),
        (functools.partial(popular_negatives, power=-1), r"`power` must be .* Received: power=-1"),
        (functools.partial(macr, c=-1.0), r"`c` must be .* Received: c=-1"),
        (("dice", {"served": "all"}), r"`served` of `debias=dice` must be one of .* Received: served='all'"),
        (dice, r"`debias=dice` parts vectors in two halves, .* must be even\. Received: 3"),
        (functools.partial(score_correlation, weight=-1.0), r"`weight` must be .* Received: weight=-1"),
    ],
)
def test_bad_input(debias, message):
    with pytest.raises(ValueError, match=message):
        models.two_tower(schema(), debias=debias, units=(3,))


def test_what_makes_no_sense_together_is_refused():
    with pytest.raises(ValueError, match=r"`debias` must be one of .* Did you mean 'macr'\? Received: debias='marc'"):
        Recipe(debias="marc")
    with pytest.raises(ValueError, match=r"Options of `debias=ips` must be one of .* Received: clp=2"):
        Recipe(debias=("ips", {"clp": 2}))
    with pytest.raises(ValueError, match=r"`debias` must be another one unless `form=two_tower`.*debias='pda'"):
        Recipe(debias="pda", form="ranking")
    with pytest.raises(ValueError, match=r"This way to debias needs queries .* Received: debias='pda'"):
        models.ranking(schema(), debias="pda")
    for other in ({"head": "in_batch_softmax"}, {"normalizer": "groups"}):
        with pytest.raises(ValueError, match=r"`head` must be `parallel`, with `normalizer=rows`, .*debias='dice'"):
            Recipe(debias="dice", **other)
    assert Recipe(debias=("ips", {"clip": 20}), head="in_batch_softmax").debias == ("ips", {"clip": 20})

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.head_oracles import nan

from tfmtr import models
from tfmtr.heads.in_batch_softmax import in_batch_softmax, is_negative, own_log_softmax
from tfmtr.schema import Feature, Scenario, Schema, Task

TASKS = [Task("click"), Task("like")]
IDS = np.asarray([7, 8, 7, 9])
QUERIES = {"click": np.asarray([[1.0, 0.2], [0.3, -1.0], [0.5, 0.5], [-0.4, 0.8]])}
QUERIES["like"] = -0.5 * QUERIES["click"]
TITLES = np.asarray([[0.4, 0.1], [-0.2, 0.9], [0.4, 0.1], [1.0, -0.6]])
LABELS = {"click": [1.0, 1.0, 0.0, nan], "like": [0.0, 1.0, 0.0, 1.0]}
LOG_P = np.log([0.5, 0.1, 0.5, 0.2])


def context(log_p=None, **more):
    given = {"id": tf.constant(IDS), "title": tf.constant(TITLES, tf.float32)}
    given |= {f"query/{name}": tf.constant(q, tf.float32) for name, q in QUERIES.items()}
    if log_p is not None:
        given["log_p"] = tf.constant(log_p, tf.float32)
    return {"training": given | more}


def losses(head, labels=LABELS, **kwargs):
    labels = {name: tf.constant(value, tf.float32) for name, value in labels.items()}
    return {name: float(v) for name, v in head.losses({}, {}, {}, labels, context(**kwargs)).items()}


def by_hand(task, *, log_p=0.0, temperature=1.0, allowed=None):
    """Mean over positives of -log softmax, the candidates as a function of (row, title)."""
    found = []
    for i, label in enumerate(LABELS[task]):
        if label != 1:
            continue
        scores = QUERIES[task][i] @ TITLES.T / temperature - log_p
        others = [j for j in range(4) if IDS[j] != IDS[i] and (allowed is None or allowed(i, j))]
        found.append(np.log(np.exp(scores[i]) + np.exp(scores[others]).sum()) - scores[i])
    return np.mean(found)


def test_the_loss_with_correction_and_without():
    for task in ("click", "like"):
        plain = losses(in_batch_softmax(TASKS, frequency=None))[task]
        assert plain == pytest.approx(by_hand(task), rel=1e-5)
        head = in_batch_softmax(TASKS, frequency="log_p", temperature=0.5)
        assert losses(head, log_p=LOG_P)[task] == pytest.approx(by_hand(task, log_p=LOG_P, temperature=0.5), rel=1e-5)
        head = in_batch_softmax(TASKS, frequency="log_p", power=0.4)
        assert losses(head, log_p=LOG_P)[task] == pytest.approx(by_hand(task, log_p=0.4 * LOG_P), rel=1e-5)


def test_negatives_of_the_batch_are_titles_of_rows_where_something_happened():
    head = in_batch_softmax(TASKS, frequency=None, negatives="batch")
    assert losses(head)["click"] == pytest.approx(by_hand("click", allowed=lambda i, j: j in (0, 1, 3)), rel=1e-5)
    assert losses(head)["like"] == pytest.approx(by_hand("like", allowed=lambda i, j: j in (0, 1, 3)), rel=1e-5)


def test_negatives_come_from_the_rows_territory():
    territory = np.asarray([1, 1, 2, 2])
    head = in_batch_softmax(TASKS, frequency=None, within="territory")
    found = losses(head, within=tf.constant(territory))
    assert found["click"] == pytest.approx(
        by_hand("click", allowed=lambda i, j: territory[i] == territory[j]), rel=1e-5
    )


def test_the_probability_of_a_hit_is_exactly_0():
    scores = tf.constant(np.random.default_rng(0).normal(size=(4, 4)) * 10, tf.float32)
    mask = is_negative(tf.constant(IDS), tf.constant([True] * 4))
    with tf.GradientTape() as tape:
        tape.watch(scores)
        loss = -own_log_softmax(scores, mask)[0]
    gradient = np.asarray(tape.gradient(loss, scores))[0]  # the probabilities, less 1 for the own title
    assert gradient[2] == 0.0  # row 2 has the title of row 0
    assert gradient[1] > 0
    assert gradient[0] == pytest.approx(-(gradient[1] + gradient[3]), rel=1e-4)


def test_only_the_hardest_negatives_are_kept():
    scores = tf.constant([[1.0, 5.0, 2.0], [0.0, 1.0, 3.0], [9.0, 0.0, 1.0]])
    found = own_log_softmax(scores, ~tf.eye(3, dtype=tf.bool), num_hard_negatives=1)
    np.testing.assert_allclose(
        found, [1 - np.logaddexp(1, 5), 1 - np.logaddexp(1, 3), 1 - np.logaddexp(1, 9)], rtol=1e-5
    )
    everything = own_log_softmax(scores, ~tf.eye(3, dtype=tf.bool))
    np.testing.assert_allclose(own_log_softmax(scores, ~tf.eye(3, dtype=tf.bool), 7), everything, rtol=1e-6)


def test_a_row_alone_with_its_title_has_loss_0_and_finite_gradients():
    scores = tf.constant([[3.0]])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        found = own_log_softmax(scores, tf.constant([[False]]))
    assert float(found[0]) == 0.0
    assert np.isfinite(np.asarray(tape.gradient(found, scores))).all()


NUM_TITLES = 200


def schema(*extra):
    features = [
        Feature("taste", "user", "number"),
        Feature("kind", "title", "id", [f"k{i}" for i in range(NUM_TITLES)]),
    ]
    return Schema([*features, *extra], [Task("click", mean=0.5)], Scenario(["market"], {("all",): "all"}))


def popular_data(rows=30_000):
    """Title n is had 1 / (n + 5) times as often; users of taste 1 have those of even number five times as often."""
    rng = np.random.default_rng(0)
    taste, number = rng.choice([-1.0, 1.0], rows), np.arange(NUM_TITLES)
    liked = (taste[:, None] > 0) == (number % 2 == 0)
    p = np.where(liked, 1.0, 0.2) / (number + 5)
    title = (rng.random((rows, 1)) > np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)).sum(axis=1)
    x = {"taste": taste.astype("float32"), "kind": 1 + title, "title": title, "scenario": np.ones(rows)}
    return {k: v if k == "taste" else v.astype("int32") for k, v in x.items()}, {"click": np.ones(rows, "float32")}


def test_without_the_correction_popular_titles_are_pushed_down():
    """The optimum with logQ is log p(title | user), of slope 1 in the log of the popularity; without, log(p / q)."""
    x, y = popular_data()
    log_popularity, slopes = -np.log(5.0 + np.arange(NUM_TITLES)), {}
    for frequency in ("streaming", None):
        keras.utils.set_random_seed(0)
        model = models.two_tower(
            schema(), units=(16, 8), head=lambda tasks, f=frequency: in_batch_softmax(tasks, frequency=f)
        )
        model.compile(keras.optimizers.Adam(1e-2))
        model.fit(x, y, batch_size=64, epochs=2, verbose=0)
        users = {"taste": np.asarray([1.0], "float32"), "scenario": np.ones(1, "int32")}
        query = model.user_tower(users)["click"]
        titles = model.title_tower({"kind": np.arange(1, NUM_TITLES + 1, dtype="int32")})
        score = np.asarray(query @ keras.ops.transpose(titles))[0]
        slopes[frequency] = np.polyfit(log_popularity[::2], score[::2], 1)[0]
        assert score[::2].mean() > score[1::2].mean() + 0.5  # what the user likes
    assert slopes["streaming"] == pytest.approx(1.0, abs=0.3)
    assert slopes[None] < 0.5 * slopes["streaming"]


def test_a_training_only_title_id_is_added_and_served_by_nothing():
    model = models.two_tower(schema(), units=(8, 4), head="in_batch_softmax")
    assert "title" in model.input
    assert set(model.predictor.input) == {"taste", "kind", "scenario"}
    given = schema(Feature("title", "training", "id", ["a", "b"]))
    assert models.two_tower(given, units=(8, 4), head="in_batch_softmax").schema == given
    own = models.two_tower(schema(), units=(8, 4), head=lambda tasks: in_batch_softmax(tasks, title="kind"))
    assert "title" not in own.input


def test_a_given_frequency_is_read_as_it_was_before_normalisation():
    feature = Feature("log_q", "training", "number", mean=-3.0, std=2.0)

    def head(tasks):
        return in_batch_softmax(tasks, frequency="log_q")

    model = models.two_tower(schema(feature), units=(8, 4), head=head)
    x = {"taste": np.zeros(2, "float32"), "kind": np.ones(2, "int32"), "title": np.ones(2, "int32")}
    x |= {"scenario": np.ones(2, "int32"), "log_q": np.asarray([0.0, 1.0], "float32")}
    np.testing.assert_allclose(model(x)["training"]["log_p"], [-3.0, -1.0])


def test_tasks_of_other_kinds_are_trained_as_in_parallel():
    tasks = [*TASKS, Task("seconds", kind="regression", weight=3.0)]
    labels = {**LABELS, "seconds": [1.0, 2.0, nan, nan]}
    labels = {name: tf.constant(value, tf.float32) for name, value in labels.items()}
    logits = {"seconds": tf.zeros((4, 1))}
    found = in_batch_softmax(tasks, frequency=None).losses({}, logits, {}, labels, context())
    assert float(found["seconds"]) == pytest.approx(3.0 * (0.5 + 2.0) / 2)


def test_bad_input():
    for options, message in (
        ({"negatives": "hard"}, "`negatives` must be one of .* Received: negatives='hard'"),
        ({"num_hard_negatives": 0}, "`num_hard_negatives` must be a positive integer"),
        ({"temperature": 0.0}, "a positive `temperature`"),
    ):
        with pytest.raises(ValueError, match=message):
            in_batch_softmax(TASKS, **options)
    with pytest.raises(ValueError, match="needs a binary task"):
        in_batch_softmax([Task("seconds", kind="regression")])
    for options, message in (
        ({"title": "taste"}, "`title` must be one of .* Received: title='taste'"),
        ({"frequency": "log_q"}, "`frequency` must be one of .* Received: frequency='log_q'"),
        ({"within": "country"}, "`within` must be one of .* Received: within='country'"),
    ):
        with pytest.raises(ValueError, match=message):
            models.two_tower(schema(), head=lambda tasks, o=options: in_batch_softmax(tasks, **o))

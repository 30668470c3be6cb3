"""What every way to debias must keep, found by file name, in the forms that it is for."""

import functools

import keras
import numpy as np
import pytest

from tfmtr import components, models
from tfmtr.schema import Feature, Scenario, Schema, Task

NAMES = components.names("debiasing")
FORMS = {name: ["two_tower"] + ["ranking"] * (not components.is_two_tower_only(name, "debiasing")) for name in NAMES}
EACH = pytest.mark.parametrize(("name", "form"), [(name, form) for name in NAMES for form in FORMS[name]])
TITLES = 40
TASKS = [Task("click", mean=0.3), Task("like", mean=0.1)]
STRONG = {
    "ips": ("ips", {"power": 1.0}),
    "popular_negatives": ("popular_negatives", {"power": 1.0}),
    "pda": ("pda", {"power": 1.0}),
    "macr": ("macr", {"c": 5.0, "title_weight": 1.0}),
    "dice": ("dice", {"conformity_weight": 1.0, "interest_weight": 1.0}),
    "score_correlation": ("score_correlation", {"weight": 100.0}),
}


def schema(tasks=TASKS):
    return Schema(
        [
            Feature("user", "user", "id", [f"u{i}" for i in range(30)]),
            Feature("movie", "title", "id", [f"t{i}" for i in range(TITLES)]),
            Feature("title", "training", "string", width=2**31 - 1),
        ],
        tasks,
        Scenario(["territory"], {("DE",): "all"}),
    )


@functools.cache
def data(rows=4096):
    """A log with planted bias: everybody likes the titles of their own parity, and clicks what is popular, too."""
    rng = np.random.default_rng(0)
    movie, user = rng.integers(1, TITLES + 1, rows), rng.integers(1, 31, rows)
    odds = 1.5 * (movie % 2 == user % 2) + 3.0 * (movie <= 8) - 2.5
    click = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype("float32")
    like = np.where(rng.random(rows) < 0.3, click, 0).astype("float32")
    x = {"user": user, "movie": movie, "title": 1000 + 7 * movie, "scenario": np.ones(rows)}
    return {name: value.astype("int32") for name, value in x.items()}, {"click": click, "like": like}


def build(debias, form="two_tower", tasks=TASKS):
    keras.utils.set_random_seed(0)
    sizes = {"units": (16, 8)} if form == "two_tower" else {"share": "shared_bottom"}
    model = getattr(models, form)(schema(tasks), debias=debias, unknown_rate=0.0, embedding_dim=4, **sizes)
    model.compile(keras.optimizers.SGD(0.1))
    return model


@functools.cache
def trained(name):
    model = build(STRONG.get(name), tasks=TASKS[:1])
    model.compile(keras.optimizers.Adam(0.01))
    x, y = data()
    many = [{name: np.concatenate([value] * 6) for name, value in part.items()} for part in (x, {"click": y["click"]})]
    model.fit(*many, batch_size=256, verbose=0)
    return model


def popularity_of_lists(model):
    """Share of the popular titles in the users' lists of eight."""
    titles = np.arange(1, TITLES + 1)
    user, title = np.repeat(np.arange(1, 31), TITLES), np.tile(titles, 30)
    users = model.user_tower({"user": np.arange(1, 31), "scenario": np.ones(30, "int32")})["click"]
    scores = np.asarray(users) @ np.asarray(model.title_tower({"movie": titles})).T
    inputs = {"user": user, "movie": title, "scenario": np.ones(len(user), "int32")}
    probabilities = np.asarray(model.predictor(inputs)["click"]).reshape(30, TITLES)
    logits = scores + model.biases["click"]
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-5)
    return (np.argsort(-scores, axis=1)[:, :8] < 8).mean()


@pytest.mark.parametrize("name", NAMES)
def test_lists_are_less_popular_and_one_dot_product_serves_them(name):
    found, plain = (popularity_of_lists(trained(which)) for which in (name, None))
    assert found < 0.9 * plain


@EACH
def test_losses_are_finite_and_every_weight_learns(name, form):
    tf = pytest.importorskip("tensorflow")
    model, (x, y) = build(name, form), data()
    for rows in (1, 256):
        x_, y_ = ({key: value[:rows] for key, value in part.items()} for part in (x, y))
        y_["like"] = np.where(np.arange(rows) % 3, y_["like"], np.nan).astype("float32")
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x_, y_, model(x_, training=True))
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
        assert np.isfinite(loss)
    for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), weight.path
        if "bias" not in weight.name:
            assert np.any(tf.convert_to_tensor(gradient)), weight.path


@EACH
def test_served_is_no_training_feature_and_files_keep_the_predictions(name, form, tmp_path):
    model, (x, y) = build(name, form), data()
    x, y = ({key: value[:64] for key, value in part.items()} for part in (x, y))
    assert "title" not in model.predictor.input
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected, found = (m.predict(x, verbose=0) for m in (model, again))
    for task, values in expected.items():
        np.testing.assert_allclose(found[task], values, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_that_is_not_binary_is_refused_or_left_alone(name):
    with pytest.raises(ValueError, match=f"`debias={name}` .*binary task"):
        models.two_tower(schema([Task("minutes", kind="regression")]), debias=name, units=(8,))

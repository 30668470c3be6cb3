import functools
import itertools

import keras
import numpy as np
import pytest

from tfmtr import models
from tfmtr.encoders.interactions.cross import cross
from tfmtr.encoders.interactions.fm import fm
from tfmtr.schema import Feature, Scenario, Schema, Task

RNG = np.random.default_rng(0)
SCHEMA = Schema(
    [
        Feature("user", "user", "id", map(str, range(10))),
        Feature("title", "title", "id", map(str, range(10))),
        Feature("age", "user", "number"),
    ],
    [Task("click"), Task("like", mean=0.2)],
    Scenario(["user"], {("0",): "all"}),
)


def rows(number):
    x = {name: RNG.integers(1, 11, number) for name in ("user", "title")}
    return {**x, "age": RNG.normal(size=number).astype("float32"), "scenario": np.ones(number, int)}


def test_fm_appends_the_sum_of_the_products_of_all_pairs():
    x, fields = RNG.normal(size=(3, 5)), RNG.normal(size=(4, 3, 2))
    out = fm(x, {str(i): field for i, field in enumerate(fields)})
    pairs = sum(fields[i] * fields[j] for i, j in itertools.combinations(range(4), 2))
    np.testing.assert_allclose(out, np.concatenate([x, pairs], axis=1), rtol=1e-5)


@pytest.mark.parametrize("projection_dim", [None, 2])
def test_cross_follows_the_equation(projection_dim):
    x = keras.Input((5,))
    model = keras.Model(x, cross(x, {}, num_layers=2, projection_dim=projection_dim))
    for weight in model.weights:
        weight.assign(RNG.normal(size=weight.shape))
    data = RNG.normal(size=(3, 5)).astype("float32")
    weights, crossed = [np.asarray(w) for w in model.weights], data
    for _ in range(2):
        kernels = [weights.pop(0) for _ in range(1 if projection_dim is None else 2)]
        crossed = data * (functools.reduce(np.matmul, kernels, crossed) + weights.pop(0)) + crossed
    np.testing.assert_allclose(model.predict(data, verbose=0), crossed, rtol=1e-4)


def test_first_order_adds_a_weight_of_every_value_to_each_task_s_logit():
    model = models.ranking(SCHEMA, share="shared_bottom", has_first_order=True)
    x = rows(4)
    before = model.predict(x, verbose=0)
    weights = {}
    for layer, feature in (("first_order_user_embedding", "user"), ("first_order_title_embedding", "title")):
        table = RNG.normal(size=(11, 2)).astype("float32")
        weights[feature] = table[x[feature]] - np.asarray(model.get_layer(layer).embeddings)[x[feature]]
        model.get_layer(layer).embeddings.assign(table)
    slope = np.asarray([[2.0, -1.0]], "float32")
    model.get_layer("first_order_age").kernel.assign(slope)
    added = weights["user"] + weights["title"] + x["age"][:, None] * slope
    after = model.predict(x, verbose=0)
    for t, task in enumerate(("click", "like")):
        logits = [np.log(p[task][:, 0] / (1 - p[task][:, 0])) for p in (before, after)]
        np.testing.assert_allclose(logits[1] - logits[0], added[:, t], atol=1e-4)


@pytest.mark.parametrize("encode", ["fm", "cross", functools.partial(cross, num_layers=1)])
def test_an_interaction_finds_what_a_linear_model_cannot(encode):
    """Users like the titles whose parity is theirs: no feature alone says anything."""
    x = rows(2000)
    y = {task: ((x["user"] + x["title"]) % 2).astype("float32") for task in ("click", "like")}
    losses = {}
    for choice in (None, encode):
        keras.utils.set_random_seed(0)
        model = models.ranking(SCHEMA, share="none", encode=choice, has_first_order=True)
        model.compile(keras.optimizers.Adam(0.02))
        losses[choice] = model.fit(x, y, epochs=12, batch_size=200, verbose=0).history["loss"][-1]
    assert losses[encode] < 0.5 * losses[None]


def test_survives_saving(tmp_path):
    model, x = models.ranking(SCHEMA, share="mmoe", encode="cross", has_first_order=True), rows(4)
    model.predictor.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").predict(x, verbose=0)
    np.testing.assert_allclose(again["like"], model.predict(x, verbose=0)["like"], atol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"`encode` must be one of \['cross', 'fm', 'fwfm'.*'cross'\?.*'crosss'"):
        models.ranking(SCHEMA, encode="crosss")
    with pytest.raises(ValueError, match=r"`encode=fm` multiplies pairs .* Received: \['user'\]"):
        models.ranking(SCHEMA.replace(features=[SCHEMA.features[0], SCHEMA.features[2]]), encode="fm")
    with pytest.raises(ValueError, match="`num_layers` must be a positive integer"):
        cross(np.ones((2, 3)), {}, num_layers=0)

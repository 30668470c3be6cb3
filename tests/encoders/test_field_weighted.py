import itertools

import keras
import numpy as np
import pytest

from tfmtr import models
from tfmtr.schema import Feature, Scenario, Schema, Task

TASKS = [Task("lead", mean=0.2), Task("sale", mean=0.1)]
USER, TITLE = ("age", "city"), ("advertiser", "size", "genre")


def schema(*extra):
    features = [Feature(name, "user", "id", ["a", "b", "c"]) for name in USER]
    features += [Feature(name, "title", "id", ["a", "b", "c"]) for name in TITLE]
    return Schema([*features, *extra], TASKS, Scenario(["market"], {("all",): "all"}))


def rows(number=4):
    rng = np.random.default_rng(1)
    x = {name: rng.integers(0, 4, number).astype("int32") for name in (*USER, *TITLE)}
    return x | {"scenario": np.ones(number, "int32")}


def randomize(model):
    rng = np.random.default_rng(2)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))


def embeddings(model, x):
    return {n: np.asarray(model.get_layer(f"{n}_embedding").embeddings)[x[n]] for n in (*USER, *TITLE)}


def test_a_ranking_model_has_the_equation_of_mt_fwfm():
    model, x = models.ranking(schema(), encode="fwfm", head="mt_fwfm", embedding_dim=3), rows()
    randomize(model)
    v = embeddings(model, x)
    for task in TASKS:
        # `share="none"` projects linearly once a task: two linear maps, one after the other.
        (first, start), (second, end) = (model.get_layer(f"{task.name}_{n}").get_weights() for n in ("vector", "logit"))
        bias = start @ second[:, 0] + end
        w, r = np.split((first @ second)[:, 0], [15])
        expected = bias + sum(v[name] @ w[3 * i : 3 * i + 3] for i, name in enumerate(v))
        pairs = itertools.combinations(v, 2)
        expected = expected + sum(r[k] * np.sum(v[a] * v[b], axis=1) for k, (a, b) in enumerate(pairs))
        logits = np.asarray(model(x)["logits"][task.name])[:, 0]
        np.testing.assert_allclose(logits, expected, rtol=1e-4)


def test_two_towers_are_the_same_sum_over_all_pairs_as_a_dot_product():
    model, x = models.two_tower(schema(), encode="fwfm", head="mt_fwfm", embedding_dim=3), rows()
    randomize(model)
    v = embeddings(model, x)

    def dot(a, b):
        return np.sum(v[a] * v[b], axis=1)

    titles = model.title_tower({name: x[name] for name in TITLE})
    queries = model.user_tower({name: x[name] for name in (*USER, "scenario")})
    for task in TASKS:
        query = model.get_layer(f"{task.name}_field_query")
        r, w = np.asarray(query.weight), np.asarray(query.title_linear)
        (term,) = model.get_layer(f"{task.name}_field_term").get_weights()
        expected = sum(r[i, j] * dot(a, b) for i, a in enumerate(USER) for j, b in enumerate(TITLE))
        expected += sum(v[name] @ w[3 * j : 3 * j + 3] for j, name in enumerate(TITLE))
        pairs = enumerate(itertools.combinations(TITLE, 2))
        expected += sum(np.asarray(query.title_pairs)[k] * dot(a, b) for k, (a, b) in pairs)
        np.testing.assert_allclose(np.sum(queries[task.name] * titles, axis=1), expected, rtol=1e-4)
        expected += sum(v[name] @ term[3 * i : 3 * i + 3, 0] for i, name in enumerate(USER)) + term[6, 0] * dot(*USER)
        expected += model.biases[task.name]
        np.testing.assert_allclose(np.asarray(model(x)["logits"][task.name])[:, 0], expected, rtol=1e-4)


def test_numbers_and_vectors_are_fields_too():
    extra = Feature("spend", "user", "number"), Feature("poster", "title", "vector", width=5)
    model = models.two_tower(schema(*extra), encode="fwfm", embedding_dim=3)
    x = rows() | {"spend": np.ones(4, "float32"), "poster": np.ones((4, 5), "float32")}
    assert model.get_layer("lead_field_query").weight.shape == (3, 4)
    assert np.isfinite(model.predict(x, verbose=0)["lead"]).all()


def test_a_pair_of_fields_matters_to_one_task_and_not_to_the_other():
    """What the paper is about: the same embeddings, weighed by each type of conversion its own way."""
    rng = np.random.default_rng(0)
    number = 4000
    x = {name: rng.integers(1, 4, number).astype("int32") for name in (*USER, *TITLE)}
    x["scenario"] = np.ones(number, "int32")
    y = {
        "lead": (x["age"] == x["advertiser"]).astype("float32"),
        "sale": (x["city"] == x["advertiser"]).astype("float32"),
    }
    keras.utils.set_random_seed(0)
    model = models.two_tower(schema(), encode="fwfm", head="mt_fwfm", embedding_dim=4)
    model.compile(keras.optimizers.Adam(2e-2))
    model.fit(x, y, batch_size=200, epochs=12, verbose=0)
    lead, sale = (np.abs(np.asarray(model.get_layer(f"{t}_field_query").weight))[:, 0] for t in ("lead", "sale"))
    assert lead[0] > 2 * lead[1]  # age by advertiser
    assert sale[1] > 2 * sale[0]  # city by advertiser


def test_bad_input():
    with pytest.raises(ValueError, match="two or more features of kind id"):
        models.ranking(schema().replace(features=schema().features[:1]), encode="fwfm")
    with pytest.raises(ValueError, match=r'needs share="none", literal=False and no dropout. Received: share=.ple.'):
        models.two_tower(schema(), encode="fwfm", share="ple")
    with pytest.raises(ValueError, match=r"`encode` must be one of .* Received: encode='fm'"):
        models.two_tower(schema(), encode="fm")

import functools

import keras
import numpy as np
import pytest
from keras.src.trainers.trainer import model_supports_jit

from tfmtr import inputs, models, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.schema import Task
from tfmtr.sharing._shared import Shared


@pytest.fixture(scope="module")
def data(tiny):
    return Dataset(tiny)


def one_batch(data, rows=400):
    table = next(inputs.read_tables(data.examples("train"), rows=rows))
    return inputs.model_inputs(table, data.schema, inputs.open_stores(data)), inputs.labels(table, data.schema)


def build(data, **options):
    keras.utils.set_random_seed(0)
    model = models.two_tower(data.schema, **{"units": (16, 8), "unknown_rate": 0.01, **options})
    model.compile(keras.optimizers.Adam(1e-2))
    return model


@pytest.mark.parametrize("share", ["none", "territory_branches"])
def test_probability_is_the_sigmoid_of_query_times_title_plus_bias(data, share):
    model, (x, y) = build(data, share=share), one_batch(data)
    model.fit(x, y, epochs=2, verbose=0)
    query = model.user_tower.predict({n: x[n] for n in model.user_tower.input}, verbose=0)["event"]
    title = model.title_tower.predict({n: x[n] for n in model.title_tower.input}, verbose=0)
    logit = np.sum(query * title, axis=1) + model.biases["event"]
    np.testing.assert_allclose(
        model.predict(x, verbose=0)["event"][:, 0], 1 / (1 + np.exp(-logit)), rtol=1e-4, atol=1e-6
    )


def test_the_bias_starts_at_the_log_odds(data):
    assert build(data).biases["event"] == pytest.approx(np.log(0.2 / 0.8), rel=1e-6)


def test_the_bias_of_a_regression_task_starts_at_its_mean(data):
    schema = data.schema.replace(tasks=[Task("watch", "event", kind="regression", mean=12.5)])
    assert models.two_tower(schema, units=(16, 8)).biases == {"watch": 12.5}
    assert float(models.ranking(schema).get_layer("watch_logit").bias[0]) == 12.5


def test_a_title_has_one_vector_for_all_scenarios_and_a_user_one_for_each(data):
    model = build(data, share="territory_branches")
    assert "scenario" not in model.title_tower.input
    x, _ = one_batch(data, rows=1)
    user = {n: np.repeat(x[n], 3, axis=0) for n in model.user_tower.input} | {"scenario": np.arange(3)}
    assert len(np.unique(model.user_tower.predict(user, verbose=0)["event"].round(5), axis=0)) == 3


def test_vectors_are_linear_in_the_last_layer_and_the_papers_own_form_is_not(data):
    x, _ = one_batch(data)
    for share in ("none", "territory_branches"):
        for literal in (False, True):
            model = build(data, share=share, literal=literal)
            query = model.user_tower.predict({n: x[n] for n in model.user_tower.input}, verbose=0)["event"]
            title = model.title_tower.predict({n: x[n] for n in model.title_tower.input}, verbose=0)
            assert (query.min() >= 0, title.min() >= 0) == (literal, literal)
            # Non-negative vectors: every probability is at least one half, which is why this is not the default.
            assert (model.predict(x, verbose=0)["event"].min() >= 0.5) == literal


def test_baseline_adds_no_layer_and_branches_add_one_block_a_group(data):
    names = [layer.name for layer in build(data, share="none").layers]
    assert "event_branches" not in names
    # user_relu_1 is what a sharing file would get; the identity takes the linear layer before it
    assert "user_relu_1" not in names
    branches = build(data, share="territory_branches").get_layer("event_branches")
    assert branches.num_scenarios == 3  # west, east, default


def test_the_default_branch_is_trained(data):
    x, y = one_batch(data)
    known = x["scenario"] > 0
    x, y = {n: v[known] for n, v in x.items()}, {n: v[known] for n, v in y.items()}
    moved = {}
    for rate in (1e-9, 0.5):
        model = build(data, share="territory_branches", unknown_rate=rate)
        kernel = model.get_layer("event_branches").kernels[0]
        before = np.array(kernel)
        model.fit(x, y, verbose=0)
        moved[rate] = not np.array_equal(before, np.asarray(kernel))
    assert moved == {1e-9: False, 0.5: True}


def test_is_not_compiled_by_xla(data, monkeypatch):
    monkeypatch.setattr(
        "keras.src.trainers.trainer.Trainer._resolve_auto_jit_compile", lambda self: True
    )  # as on a GPU
    model = build(data, share="territory_branches")
    assert model.jit_compile is False
    assert not model_supports_jit(model)


def test_compiling_by_xla_trains_the_same_and_refuses_routed_layers(data):
    x, y = one_batch(data)
    losses = {}
    for is_compiled in (False, True):
        keras.utils.set_random_seed(0)
        model = build(data, share="none")
        model.compile(keras.optimizers.Adam(1e-2), jit_compile=is_compiled)
        losses[is_compiled] = model.fit(x, y, batch_size=len(y["event"]), epochs=3, verbose=0).history["loss"]
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-4)
    with pytest.raises(ValueError, match=r"build the layers with `routed=False`. Received: \['event_branches'\]"):
        build(data, share="territory_branches").compile(jit_compile=True)


def test_unobserved_labels_change_nothing(data):
    model, (x, y) = build(data), one_batch(data)
    loss = model.compute_loss(x, y, model(x))
    double = {n: np.concatenate([v, v]) for n, v in x.items()}
    masked = {"event": np.concatenate([y["event"], np.full(len(y["event"]), np.nan, "float32")])}
    np.testing.assert_allclose(model.compute_loss(double, masked, model(double)), loss, rtol=1e-5)


def test_a_sharing_file_may_add_a_term_and_ask_for_an_output_layer_of_each_scenario(data):
    def share(x, scenario, *, towers, num_scenarios, term):
        return Shared({t: x for t in towers}, {t: x[:, :1] * 0 + term for t in towers}, routed_output=True)

    x, _ = one_batch(data)
    logits = []
    for term in (0.0, 3.0):
        keras.utils.set_random_seed(0)
        model = models.ranking(data.schema, share=functools.partial(share, term=term))
        logits.append(np.asarray(model(x)["logits"]["event"])[:, 0])
    np.testing.assert_allclose(logits[1] - logits[0], 3.0, atol=1e-5)
    layer = model.get_layer("event_logit")
    vector = np.asarray(model(x)["vectors"]["event"])
    expected = [
        row @ np.asarray(layer.kernels[i])[:, 0] + 3.0 + np.log(0.2 / 0.8)
        for row, i in zip(vector, np.maximum(x["scenario"] - 1, 0), strict=True)
    ]
    np.testing.assert_allclose(logits[1], expected, atol=1e-4)
    assert len(set(np.maximum(x["scenario"] - 1, 0))) == 2  # both groups


def test_a_layer_s_own_loss_is_added(data):
    def share(x, scenario, *, towers, num_scenarios, rate):
        return dict.fromkeys(towers, keras.layers.ActivityRegularization(l1=rate, name="penalty")(x))

    x, y = one_batch(data)
    losses = []
    for rate in (0.0, 0.5):
        keras.utils.set_random_seed(0)
        model = models.ranking(data.schema, share=functools.partial(share, rate=rate))
        model.compile()
        outputs = model(x)
        losses.append(float(model.compute_loss(x, y, outputs)))
    penalty = 0.5 * np.abs(outputs["vectors"]["event"]).sum() / len(y["event"])
    assert losses[1] - losses[0] == pytest.approx(penalty, rel=1e-4)


def test_branches_beat_the_global_model_where_territories_differ(data):
    """The effect the paper is about, on data whose tastes are a territory's own."""
    losses = {}
    for share, groups in (("territory_branches", "given"), ("territory_branches", "one")):
        recipe = training.Recipe(share=share, groups=groups, units=(32, 16), learning_rate=1e-2)
        schema = recipe.adapt(data.schema)
        model = recipe.build(schema)
        files = data.examples("train", windows=[0, 1, 2], sampling=("random", "active"))
        train = inputs.batches(data, files, batch_size=512, seed=0, schema=schema)
        test = inputs.batches(data, data.examples("test", windows=[1, 2, 3]), schema=schema)
        model.fit(train, epochs=6, shuffle=False, verbose=0)
        losses[groups] = model.evaluate(test, verbose=0)
    assert losses["given"] < losses["one"]

"""What every sharing file must keep, found by file name."""

import keras
import numpy as np
import pytest

from tfmtr import components, models
from tfmtr.schema import Feature, Scenario, Schema, Task

NAMES = components.names("sharing")
TASKS = [Task("click", mean=0.3), Task("like", mean=0.1)]


def schema(tasks=2, groups=2):
    return Schema(
        [Feature("user_vector", "user", "vector", width=6), Feature("title_vector", "title", "vector", width=5)],
        TASKS[:tasks],
        Scenario(["territory"], {(f"t{i}",): f"g{i}" for i in range(groups)}),
    )


def data(rows=256, scenarios=3, seed=0):
    rng = np.random.default_rng(seed)
    x = {
        "user_vector": rng.normal(size=(rows, 6)).astype("float32"),
        "title_vector": rng.normal(size=(rows, 5)).astype("float32"),
        "scenario": np.arange(rows).astype("int32") % scenarios,
    }
    signal = x["user_vector"][:, 0] * x["title_vector"][:, 0] * np.where(x["scenario"] == 1, 1, -1)
    y = {"click": (signal > 0).astype("float32"), "like": (signal > 1).astype("float32")}
    return x, y


def build(name, *, tasks=2, groups=2, **options):
    keras.utils.set_random_seed(0)
    model = models.two_tower(schema(tasks, groups), share=name, units=(16, 8), unknown_rate=0.0, **options)
    model.compile(keras.optimizers.Adam(1e-2))
    return model


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("towers", [("a",), ("a", "b", "c")])
@pytest.mark.parametrize("num_scenarios", [1, 4])
def test_one_vector_for_each_requested_tower(name, towers, num_scenarios):
    x, scenario = keras.Input((8,)), keras.Input((), dtype="int32")
    vectors = components.find("sharing", name)(x, scenario, towers=towers, num_scenarios=num_scenarios)
    assert tuple(vectors) == towers
    assert {vector.shape for vector in vectors.values()} == {(None, 8)}


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_gets_a_gradient_from_a_batch_with_every_scenario(name):
    tf = pytest.importorskip("tensorflow")
    model, (x, y) = build(name), data()
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    # A bias before batch normalisation cannot change the output: its gradient is zero but for rounding.
    for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        if "bias" not in weight.path:
            assert np.any(np.asarray(gradient)), weight.path


@pytest.mark.parametrize("name", NAMES)
def test_no_two_equal_shaped_kernels_start_equal(name):
    kernels = [w for w in build(name, groups=3).trainable_variables if len(w.shape) == 2]
    values = [np.asarray(kernel) for kernel in kernels]
    for i in range(len(values)):
        for j in range(i):
            assert values[i].shape != values[j].shape or not np.array_equal(values[i], values[j]), kernels[i].path


@pytest.mark.parametrize("name", NAMES)
def test_learns_a_small_problem(name):
    model, (x, y) = build(name), data()
    history = model.fit(x, y, epochs=20, batch_size=64, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]


@pytest.mark.parametrize("name", NAMES)
def test_keras_and_saved_model_keep_the_predictions(name, tmp_path):
    tf = pytest.importorskip("tensorflow")
    model, (x, y) = build(name), data(64)
    model.fit(x, y, verbose=0)
    expected = model.predict(x, verbose=0)
    model.predictor.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras").predict(x, verbose=0)
    model.predictor.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")
    served = saved.serve(x)
    for task in expected:
        np.testing.assert_allclose(reloaded[task], expected[task], atol=1e-6)
        np.testing.assert_allclose(served[task], expected[task], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_trains_in_mixed_bfloat16(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, (x, y) = build(name), data()
        assert np.isfinite(model.fit(x, y, epochs=2, verbose=0).history["loss"]).all()
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 50])
def test_a_missing_scenario_and_a_batch_of_one_row_work(name, rows):
    model, (x, y) = build(name), data(rows, scenarios=1)
    assert np.isfinite(model.train_on_batch(x, y))
    assert model.predict(x, verbose=0)["click"].shape == (rows, 1)

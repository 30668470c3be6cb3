"""What every head must keep, found by file name: any labels give finite losses, and the served graph is saved."""

import functools

import keras
import numpy as np
import pytest

from tfmtr import components, models
from tfmtr.schema import Feature, Scenario, Schema, Task

tf = pytest.importorskip("tensorflow")
NAMES = components.names("heads")
FORMS = ["two_tower", "ranking"]
nan = float("nan")


def chain(*levels):
    return [Task("click", mean=0.3), *(Task(name, mean=0.1, after="click") for name in levels)]


# The first of these that a head takes is what it is tested with.
TASKS = [chain("purchase"), chain("cart", "purchase"), chain("view", "cart", "purchase")]


@functools.cache
def tasks_of(name):
    """Tasks that the head is made for."""
    for tasks in TASKS:
        try:
            components.find("heads", name)(tasks)
        except ValueError:
            continue
        return tuple(tasks)
    raise AssertionError(f"no tasks for head={name}")


@functools.cache
def model_of(name, form):
    schema = Schema(
        [
            Feature("user", "user", "id", [f"u{i}" for i in range(6)]),
            Feature("user_vector", "user", "vector", width=4),
            Feature("title_vector", "title", "vector", width=5),
        ],
        tasks_of(name),
        Scenario(["territory"], {("t0",): "g0", ("t1",): "g1"}),
    )
    keras.utils.set_random_seed(0)
    sizes = {"units": (8, 6)} if form == "two_tower" else {}
    share = functools.partial(components.find("sharing", "shared_bottom"), units=(8,), tower_units=(6,))
    model = getattr(models, form)(schema, share=share, head=name, embedding_dim=3, **sizes)
    model.compile(keras.optimizers.Adam(1e-2))
    return model


def rows(number=24, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "user": rng.integers(0, 7, number).astype("int32"),
        "user_vector": rng.normal(size=(number, 4)).astype("float32"),
        "title_vector": rng.normal(size=(number, 5)).astype("float32"),
        "scenario": 1 + np.arange(number, dtype="int32") % 2,
    }


def all_labels(tasks, number=24):
    """Batches of labels by what is hard about them."""
    click = (np.arange(number) % 3 == 0).astype("float32")
    deep = {task.column: click * (np.arange(number) % 2 == 0) for task in tasks[1:]}
    some = {"click": click} | {name: values.astype("float32") for name, values in deep.items()}
    constant = {value: {task.column: np.full(number, value, "float32") for task in tasks} for value in (0.0, 1.0)}
    return {
        "some of each": some,
        "all positive": constant[1.0],
        "no click at all": constant[0.0],
        "clicks without more": constant[0.0] | {"click": np.ones(number, "float32")},
        "last task unknown": some | {tasks[-1].column: np.full(number, nan, "float32")},
        "click unknown": some | {"click": np.full(number, nan, "float32")},
    }


EACH = pytest.mark.parametrize(("name", "form"), [(name, form) for name in NAMES for form in FORMS])


@EACH
def test_any_labels_give_finite_losses_and_gradients(name, form):
    model, x = model_of(name, form), rows()
    for kind, y in all_labels(tasks_of(name)).items():
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
        assert np.isfinite(loss), kind
        assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients if g is not None), kind
        if kind == "some of each":  # every weight learns
            unmoved = [w.path for w, g in zip(model.trainable_variables, gradients, strict=True) if g is None]
            assert unmoved == []


@EACH
def test_propensities_near_0_and_1_give_finite_losses_and_gradients(name, form):
    head = components.find("heads", name)(tasks_of(name))
    for far in (-60.0, 60.0):
        logits = {tower: tf.Variable([[far], [-far], [far]]) for tower in head.towers()}
        labels = {task.column: tf.constant([0.0, 1.0, 1.0]) for task in tasks_of(name)}
        with tf.GradientTape() as tape:
            values = {tower: tf.convert_to_tensor(value) for tower, value in logits.items()}
            loss = sum(head.losses(head.outputs(values), values, {}, labels, {}).values())
        gradients = tape.gradient(loss, list(logits.values()))
        assert np.isfinite(loss)
        assert all(np.isfinite(g).all() for g in gradients if g is not None)


@pytest.mark.parametrize("name", NAMES)
def test_learns_and_the_served_graph_is_kept_without_training_only_towers(name, tmp_path):
    """In two-tower form; the contract of sharing files saves both forms."""
    model, x = model_of(name, "two_tower"), rows(120)
    y = all_labels(tasks_of(name), 120)["some of each"]
    losses = model.fit(x, y, epochs=10, batch_size=40, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    expected = model.predict(x, verbose=0)
    assert {task.name for task in tasks_of(name)} <= set(expected)
    model.predictor.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras").predict(x, verbose=0)
    model.predictor.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")  # must outlive its functions
    served = saved.serve(x)
    for task, values in expected.items():
        assert ((values >= 0) & (values <= 1)).all()
        np.testing.assert_allclose(reloaded[task], values, atol=1e-6)
        np.testing.assert_allclose(served[task], values, atol=1e-6)
    towers = model.head.towers()
    layers = {layer.name for layer in model.predictor.layers}
    assert {tower for tower in towers if f"{tower}_score" in layers} == {n for n, t in towers.items() if t.is_served}

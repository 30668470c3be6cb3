"""What every head must keep, found by file name: any labels give finite losses, and the served graph is saved."""

import dataclasses
import functools
import os

import keras
import numpy as np
import pytest

from studies.combinations import study as combinations
from tfmtr import components, models
from tfmtr.heads._head import TrainingGraph

tf = pytest.importorskip("tensorflow")
NAMES = components.names("heads")
FORMS = combinations.FORMS
EACH = pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in NAMES for form in FORMS if (name, form) not in combinations.REFUSED]
)
nan = float("nan")


@functools.cache
def model_of(name, form):
    model = combinations.build(name, "shared_bottom", form)
    model.compile(keras.optimizers.SGD(0.2))
    return model


def rows_of(model, number=24):
    return {name: value for name, value in combinations.rows(number).items() if name in model.input}


def all_labels(tasks, number=24):
    """Batches of labels by what is hard about them."""
    some = combinations.labels(tasks, number)
    constant = {value: {task.column: np.full(number, value, "float32") for task in tasks} for value in (0.0, 1.0)}
    return {
        "some of each": some,
        "all positive": constant[1.0],
        "no click at all": constant[0.0],
        "clicks without more": constant[0.0] | {"click": np.ones(number, "float32")},
        "last task unknown": some | {tasks[-1].column: np.full(number, nan, "float32")},
        "click unknown": some | {"click": np.full(number, nan, "float32")},
    }


def some():
    """Each head with a fifth of the sharing files, and so each of these with a fifth of the heads, in one of the forms.

    `studies/combinations/study.py` goes through all, as do these tests with `FULL_MATRIX=1`.
    """
    shares, one_form = components.names("sharing"), {head for head, _ in combinations.REFUSED}
    for head, share, form in combinations.combinations():
        place = NAMES.index(head) + shares.index(share)
        turn = place % 5 == 0 and (head in one_form or (place // 5 + FORMS.index(form)) % 2 == 0)
        if turn or os.environ.get("FULL_MATRIX"):
            yield head, share, form


def exported():
    """Each head in one of the forms, by turns, with the layers that are saved soonest, as each sharing file has a test.

    With `FULL_MATRIX=1` each sharing file, too.
    """
    for head, share, form in combinations.covering():
        yield head, share if os.environ.get("FULL_MATRIX") else "shared_bottom", form


@pytest.mark.parametrize(("head", "share", "form"), some())
def test_any_sharing_file_makes_a_step_with_finite_loss_and_gradients(head, share, form):
    combinations.check_step(combinations.build(head, share, form), combinations.labels(combinations.tasks_of(head)))


@pytest.mark.parametrize(("head", "form"), combinations.REFUSED)
def test_what_is_refused_is_refused_by_name(head, form):
    with pytest.raises(ValueError, match=rf"use `two_tower`. Received: head='{head}'"):
        combinations.build(head, "shared_bottom", form)


@pytest.mark.parametrize(("head", "share", "form"), exported())
def test_the_exported_graph_keeps_the_predictions(head, share, form, tmp_path):
    is_plain = share == "shared_bottom"
    combinations.check_export(model_of(head, form) if is_plain else combinations.build(head, share, form), tmp_path)


@EACH
def test_any_labels_give_finite_losses_and_gradients(name, form):
    model = model_of(name, form)
    x = rows_of(model)
    kinds, found = all_labels(combinations.tasks_of(name)), {}
    with tf.GradientTape(persistent=True) as tape:
        y_pred = model(x, training=True)
        for kind, y in kinds.items():
            found[kind] = model.compute_loss(x, y, y_pred)
    for kind, loss in found.items():
        gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
        assert np.isfinite(loss), kind
        assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients if g is not None), kind
        if kind == "some of each":  # every weight learns
            unmoved = [w.path for w, g in zip(model.trainable_variables, gradients, strict=True) if g is None]
            assert unmoved == []


@EACH
def test_propensities_near_0_and_1_give_finite_losses_and_gradients(name, form):
    tasks = combinations.tasks_of(name)
    head = components.find("heads", name)(tasks)
    schema = head.complete(combinations.schema_of(tasks))
    x = {feature: tf.constant(value) for feature, value in combinations.rows(3).items()}
    for far in (-60.0, 60.0):
        logits = {tower: tf.Variable([[far], [-far], [far]]) for tower in head.towers()}
        labels = {task.column: tf.constant([0.0, 1.0, 1.0]) for task in tasks}
        with tf.GradientTape() as tape:
            values = {tower: tf.convert_to_tensor(value) for tower, value in logits.items()}
            graph = TrainingGraph(schema, x, values, {}, values, values, tf.ones((3, 1)))
            context = {"training": head.training(graph), "scenario": x["scenario"]}
            loss = sum(head.losses(head.outputs(values), values, {}, labels, context).values())
        gradients = tape.gradient(loss, list(logits.values()))
        assert np.isfinite(loss)
        assert all(np.isfinite(g).all() for g in gradients if g is not None)


@pytest.mark.parametrize("name", NAMES)
def test_the_weight_of_a_task_scales_its_losses(name):
    tasks = combinations.tasks_of(name)
    heavy = [dataclasses.replace(task, weight=3.0) for task in tasks]
    rng = np.random.default_rng(0)
    x = {feature: tf.constant(value) for feature, value in combinations.rows(12).items()}
    y = {column: tf.constant(value) for column, value in combinations.labels(tasks, 12).items()}
    found = []
    for some in (tasks, heavy):
        head = components.find("heads", name)(some)
        rng = np.random.default_rng(0)
        logits = {tower: tf.constant(rng.normal(size=(12, 1)), tf.float32) for tower in head.towers()}
        schema = head.complete(combinations.schema_of(some))
        keras.utils.set_random_seed(0)
        training = head.training(TrainingGraph(schema, x, logits, {}, logits, logits, tf.ones((12, 1))))
        context = {"training": training, "scenario": x["scenario"]}
        found.append({k: float(v) for k, v in head.losses(head.outputs(logits), logits, {}, y, context).items()})
    light, weighed = found
    for task in tasks:
        assert weighed[task.name] == pytest.approx(3 * light[task.name], rel=1e-5)
        assert light[task.name] > 0


@pytest.mark.parametrize("name", NAMES)
def test_learns_and_the_served_graph_is_kept_without_training_only_towers(name, tmp_path):
    """In two-tower form; the contract of sharing files saves both forms."""
    model = model_of(name, "two_tower")
    x = rows_of(model, 120)
    y = all_labels(combinations.tasks_of(name), 120)["some of each"]
    before = float(model.compute_loss(x, y, model(x, training=True)))
    for _ in range(10):
        model.train_step(({name: tf.constant(value) for name, value in x.items()}, y))
    assert float(model.compute_loss(x, y, model(x, training=True))) < before
    served = {feature: x[feature] for feature in model.predictor.input}
    assert not {"position", "elapsed", "title"} & set(served)
    expected = {task: np.asarray(values) for task, values in model.predictor(served).items()}
    assert {task.name for task in combinations.tasks_of(name)} <= set(expected)
    model.predictor.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")(served)
    for task, values in expected.items():
        assert ((values >= 0) & (values <= 1)).all()
        np.testing.assert_allclose(reloaded[task], values, atol=1e-6)
    towers = model.head.towers()
    layers = {layer.name for layer in model.predictor.layers}
    assert {tower for tower in towers if f"{tower}_score" in layers} == {n for n, t in towers.items() if t.is_served}


def test_a_feature_that_is_known_in_training_only_must_be_in_the_schema():
    tasks = combinations.tasks_of("esmm")
    schema = combinations.schema_of(tasks)
    served = schema.replace(features=[f for f in schema.features if f.role != "training"])
    for head, name in (("position_bias", "position"), ("esdf", "elapsed")):
        with pytest.raises(ValueError, match=rf"`head={head}` reads .* Feature\('{name}', \"training\", ...\)"):
            models.ranking(served, head=head)

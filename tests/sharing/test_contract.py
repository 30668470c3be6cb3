"""What every sharing file must keep, found by file name, in ranking and in two-tower form."""

import functools
import inspect
import os

import keras
import numpy as np
import pytest

from tfmtr import components, models
from tfmtr.schema import Feature, Scenario, Schema, Task
from tfmtr.sharing._shared import as_shared

NAMES = components.names("sharing")
FORMS = ["two_tower", "ranking"]
EACH = pytest.mark.parametrize(("name", "form"), [(name, form) for name in NAMES for form in FORMS])
SIZES = [(1, 1), (1, 3), (2, 1)]  # numbers of tasks and groups; the other tests have several of both


def by_turns(first):
    """What takes long is seen in one form of each file, by turns, or with `FULL_MATRIX=1` in both."""
    forms = [FORMS if os.environ.get("FULL_MATRIX") else [FORMS[(first + i) % 2]] for i in range(len(NAMES))]
    return [(name, form) for name, some in zip(NAMES, forms, strict=True) for form in some]


BY_TURNS = pytest.mark.parametrize(("name", "form"), by_turns(0))
OTHER_TURNS = pytest.mark.parametrize(("name", "form"), by_turns(1))
TASKS = [Task("click", mean=0.3), Task("like", mean=0.1)]


def schema(tasks=2, groups=3):
    return Schema(
        [
            Feature("user", "user", "id", [f"u{i}" for i in range(6)]),
            Feature("age", "user", "id", ["1", "2"]),
            Feature("user_vector", "user", "vector", width=6),
            Feature("title_vector", "title", "vector", width=5),
        ],
        TASKS[:tasks],
        Scenario(["territory"], {(f"t{i}",): f"g{i}" for i in range(groups)}),
    )


def data(rows=256, scenarios=3, seed=0):
    """The sign of the signal depends on the scenario; scenarios are 1, 2, ... (0 would be unknown)."""
    rng = np.random.default_rng(seed)
    x = {
        "user": rng.integers(0, 7, rows).astype("int32"),
        "age": rng.integers(0, 3, rows).astype("int32"),
        "user_vector": rng.normal(size=(rows, 6)).astype("float32"),
        "title_vector": rng.normal(size=(rows, 5)).astype("float32"),
        "scenario": 1 + np.arange(rows).astype("int32") % scenarios,
    }
    signal = x["user_vector"][:, 0] * x["title_vector"][:, 0] * np.where(x["scenario"] == 1, 1, -1)
    y = {"click": (signal > 0).astype("float32"), "like": (signal > 0.5).astype("float32")}
    return x, y


def small(name):
    """The sharing function with small widths, as far as it has such options."""
    share = components.find("sharing", name)
    options = inspect.signature(share).parameters
    small = {"units": 16, "tower_units": 8, "expert_units": 16}
    chosen = {}
    for option, value in small.items():
        if option in options and options[option].default is not None:
            default = options[option].default
            chosen[option] = (value,) * min(len(default), 2) if isinstance(default, tuple) else value
    return functools.partial(share, **chosen)


def build(name, form="two_tower", *, tasks=2, groups=3):
    keras.utils.set_random_seed(0)
    sizes = {"units": (16, 8)} if form == "two_tower" else {}
    assembly = getattr(models, form)
    model = assembly(schema(tasks, groups), share=small(name), unknown_rate=0.0, embedding_dim=4, **sizes)
    model.compile(keras.optimizers.SGD(0.1))  # a single step of Adam takes long for its state
    return model


@functools.cache
def trained(name, form):
    """A model that several tests look at, so that it is traced once, and its losses before and after 30 epochs.

    They are one epoch of 30 times the rows: an epoch's own work takes longer than its four steps. Adam, with twenty
    operations for each weight, would be a third of the tracing.
    """
    model, (x, y) = build(name, form), data()
    model.compile(keras.optimizers.SGD(0.5))
    losses = [float(model.compute_loss(x, y, model(x, training=True)))]
    many = [{key: np.concatenate([value] * 30) for key, value in part.items()} for part in (x, y)]
    model.fit(*many, batch_size=64, verbose=0)
    return model, [*losses, float(model.compute_loss(x, y, model(x, training=True)))]


@functools.cache
def stepped(name, form):
    """A model after one step, its kernels before it, and its gradients of the next: what several tests look at.

    Some weights start where a gradient is zero by symmetry (a gate's ReLU, a zero start): these are seen later.
    """
    model, (x, y) = build(name, form), data()
    kernels = {weight.path: np.array(weight) for weight in model.trainable_variables if "kernel" in weight.name}
    step(model, x, y)
    return model, kernels, step(model, x, y)[1]


def step(model, x, y):
    """One training step without tracing; returns the loss and the gradients."""
    tf = pytest.importorskip("tensorflow")
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return loss, gradients


@pytest.mark.parametrize(
    ("name", "form", "tasks", "groups"),
    [(*cell, *sizes) for turn, sizes in enumerate(SIZES) for cell in by_turns(turn)]
    + [(name, form, 2, 3) for name in NAMES for form in FORMS],
)
def test_one_vector_for_each_tower_with_one_or_many_tasks_and_scenarios(name, form, tasks, groups):
    is_common = (tasks, groups) == (2, 3)
    outputs = (stepped(name, form)[0] if is_common else build(name, form, tasks=tasks, groups=groups)).output
    wanted = [task.name for task in TASKS[:tasks]]
    assert sorted(outputs["vectors"]) == sorted(outputs["outputs"]) == sorted(wanted)
    assert len({vector.shape for vector in outputs["vectors"].values()}) == 1


@EACH
def test_every_weight_gets_a_gradient_from_a_batch_with_every_scenario(name, form):
    model, _, gradients = stepped(name, form)
    for weight, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        # A bias before a normalisation cannot change the output: its gradient is zero but for rounding.
        if "bias" not in weight.name:
            assert np.any(keras.ops.convert_to_numpy(gradient)), weight.path


@EACH
def test_no_two_equal_shaped_kernels_start_equal(name, form):
    """Kernels that are meant to start at zero or at the identity have names that say so."""
    kernels = {}
    for path, value in stepped(name, form)[1].items():
        if any(word in path.rpartition("/")[2] for word in ("zero", "identity")):
            continue
        experts = [value] if value.ndim == 2 else np.moveaxis(value, 1, 0)  # (width, experts, units)
        kernels |= {f"{path}[{i}]": expert for i, expert in enumerate(experts)}
    paths = list(kernels)
    for i, path in enumerate(paths):
        for other in paths[:i]:
            same = kernels[path].shape == kernels[other].shape and np.array_equal(kernels[path], kernels[other])
            assert not same, (path, other)


@BY_TURNS
def test_learns_a_small_problem(name, form):
    _, history = trained(name, form)
    # Without sharing, a ranking model is a logistic regression: it cannot learn a product of two inputs.
    assert history[-1] < (1.0 if (name, form) == ("none", "ranking") else 0.8) * history[0]


@BY_TURNS
def test_keras_and_saved_model_keep_the_predictions(name, form, tmp_path):
    tf = pytest.importorskip("tensorflow")
    (model, _), (x, _) = trained(name, form), data(64)
    expected = {task: np.asarray(values) for task, values in model.predictor(x).items()}
    model.predictor.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")(x)
    model.predictor.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")
    served = saved.serve(x)
    for task in expected:
        np.testing.assert_allclose(reloaded[task], expected[task], atol=1e-6)
        np.testing.assert_allclose(served[task], expected[task], atol=1e-6)


@OTHER_TURNS
def test_trains_in_mixed_bfloat16(name, form):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, (x, y) = build(name, form), data()
        losses = [float(step(model, x, y)[0]) for _ in range(3)]
        assert np.isfinite(losses).all()
        assert losses[-1] < losses[0]
    finally:
        keras.config.set_dtype_policy("float32")


@EACH
def test_a_missing_scenario_and_a_batch_of_one_row_work(name, form):
    model, *_ = stepped(name, form)
    for rows in (1, 50):
        x, y = data(rows, scenarios=1)
        assert np.isfinite(step(model, x, y)[0])
        outputs = model.predictor(x)
        assert outputs["click"].shape == (rows, 1)
        assert np.isfinite(outputs["click"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_returns_vectors_by_tower_name_and_nothing_else(name):
    """A file creates no inputs, logits or losses."""
    inputs = {"x": keras.Input((8,)), "scenario": keras.Input((), dtype="int32")}
    sides = {
        "fields": keras.Input((3, 4)),
        "prior": keras.Input((6,)),
        "scenario_features": keras.Input((4,)),
        "task_representations": {tower: keras.Input((8,)) for tower in ("a", "b")},
    }
    share = components.find("sharing", name)
    sides = {side: value for side, value in sides.items() if side in inspect.signature(share).parameters}
    vectors = as_shared(share(**inputs, towers=("a", "b"), num_scenarios=3, **sides)).vectors
    assert tuple(vectors) == ("a", "b")
    assert {len(vector.shape) for vector in vectors.values()} == {2}

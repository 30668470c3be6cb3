"""What a Keras user does with a model: fits it from what is at hand, saves it, loads it elsewhere, exports it."""

import dataclasses
import subprocess
import sys
from typing import ClassVar

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfmtr import inputs, models, training
from tfmtr.exporting import export
from tfmtr.recipe import Recipe
from tfmtr.schema import Feature, Scenario, Schema, Task

SCHEMA = Schema(
    [
        Feature("user", "user", "id", ["a", "b", "c"]),
        Feature("age", "user", "number", mean=40.0, std=10.0),
        Feature("tastes", "user", "set", ["drama", "news"], width=2),
        Feature("movie", "title", "id", ["m1", "m2"]),
        Feature("poster", "title", "vector", width=3),
    ],
    [Task("click"), Task("like")],
    Scenario(["land"], {("DE",): "west", ("PL",): "east"}),
)
FORMS = {
    "two_tower": {"units": (8, 4), "share": ("ple", {"num_experts": 2})},
    "ranking": {"share": "shared_bottom", "per_pair": True, "encode": ("cross", {"num_layers": 1})},
}
LOAD = """
import sys, numpy as np, tfmtr
assert 'keras' not in sys.modules
import keras
x = dict(np.load(sys.argv[1] + "/x.npz"))
for form in sys.argv[2:]:
    model = keras.saving.load_model(sys.argv[1] + f"/{form}.keras")
    print(type(model).__name__, type(model.optimizer).__name__, model.balance_name)
    np.save(sys.argv[1] + f"/{form}.npy", model.predictor(x)["click"])
"""


def frame(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"user": rng.choice(["a", "b", "c", "new", None], rows), "age": rng.normal(40, 10, rows)})
    table["land"], table["movie"] = rng.choice(["DE", "PL", "FR"], rows), rng.choice(["m1", "m2"], rows)
    table["tastes"] = [list(rng.choice(["drama", "news", "x"], rng.integers(0, 3))) for _ in range(rows)]
    table["poster"] = list(rng.normal(size=(rows, 3)).astype("float32"))
    table["click"] = ((table.age > 40) == (table.movie == "m1")).astype(float)
    table["like"] = table.click.where(rng.random(rows) < 0.5)  # null: not observed
    return table


@pytest.fixture(params=FORMS)
def model(request):
    return model_of(request.param)


def model_of(form):
    keras.utils.set_random_seed(0)
    return getattr(models, form)(SCHEMA, embedding_dim=4, **FORMS[form])


def test_it_fits_from_a_frame_a_dictionary_and_a_dataset(model):
    table = frame()
    x, y = inputs.encode_frame(table, SCHEMA)
    assert x["user"].tolist()[:5] == [
        ["a", "b", "c"].index(u) + 1 if u in ("a", "b", "c") else 0 for u in table.user[:5]
    ]
    model.compile(keras.optimizers.SGD(0.5))
    variables = [*model.variables, *model.optimizer.variables]
    start, losses = [np.asarray(variable) for variable in variables], []
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(100)
    for arguments in ((table,), (x, y), (x, table[["click", "like"]]), (batches,)):
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        options = {} if arguments[0] is batches else {"batch_size": 100}
        history = model.fit(*arguments, epochs=2, shuffle=False, verbose=0, **options).history
        losses.append(history["loss"])
    np.testing.assert_allclose(losses, [losses[0]] * 4, rtol=1e-5)
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(
        model.predict(table, verbose=0)["click"], model.predict(x, verbose=0)["click"], rtol=1e-5
    )
    assert model.evaluate(table, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)
    assert "val_loss" in model.fit(table, validation_data=frame(50, seed=1), epochs=1, verbose=0).history


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop(columns="age"),
            r"`frame` must have a column for every .* Received: none for \['age'\]",
        ),
        (lambda t: t.drop(columns="land"), r"Received: none for \['land'\]"),
        (
            lambda t: t.assign(poster=[[1.0]] * len(t)),
            r"`poster` must have 3 numbers in each row.* \(400, 1\)",
        ),
        (lambda t: t.assign(poster=[[1.0], None] * 200), "`poster` must have 3 numbers in each row"),
        (lambda t: t.assign(poster=[[1.0, 2.0, np.nan]] * 400), "`poster` must be finite"),
        (lambda t: t.assign(age=pd.Timestamp("2025-01-01")), "`age` must have values of one kind"),
        (lambda t: t.assign(age="old"), "`age` must have values of one kind"),
        (lambda t: t.assign(age=np.inf), "`age` must be finite or null"),
        (lambda t: t.assign(click="yes"), "`click` must have values of one kind"),
        (lambda t: t.assign(movie=["m1", 2] * 200), "`movie` must have values of one kind"),
    ],
)
def test_a_frame_that_lacks_something_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        inputs.encode_frame(change(frame()), SCHEMA)


@pytest.mark.usefixtures("eager")
def test_saved_models_are_loaded_in_another_process_and_go_on(tmp_path):
    table, saved = frame(), {form: model_of(form) for form in FORMS}
    for form, model in saved.items():
        model.compile(keras.optimizers.Adam(0.01), balance="pcgrad")
        model.fit(table, batch_size=200, epochs=1, verbose=0)
        model.save(tmp_path / f"{form}.keras")
    x, _ = inputs.encode_frame(table, SCHEMA)
    np.savez(tmp_path / "x.npz", **x)
    result = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path), *FORMS], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"{type(model).__name__} Adam pcgrad" for model in saved.values()]
    for form, model in saved.items():
        expected = model.predict(x, verbose=0)["click"]
        np.testing.assert_allclose(np.load(tmp_path / f"{form}.npy"), expected, atol=1e-6)
        loaded = keras.saving.load_model(tmp_path / f"{form}.keras")
        how = {"batch_size": 200, "epochs": 1, "shuffle": False, "verbose": 0}
        losses = [one.fit(table, **how).history["loss"][0] for one in (model, loaded)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # weights and the optimizer's state are those


@pytest.mark.usefixtures("eager")
def test_a_clone_that_would_have_no_losses_is_refused_and_says_what_makes_one(model):
    model.compile("adam")
    for compiled in (model, type(model).from_config(model.get_config())):
        with pytest.raises(ValueError, match=r"make another one with `type\(model\)\.from_config") as refused:
            keras.models.clone_model(compiled)
        assert "\n" not in str(refused.value)
    another = type(model).from_config(model.get_config())
    another.compile(keras.optimizers.Adam(0.03))
    assert [v.shape for v in another.variables] == [v.shape for v in model.variables]
    before = np.asarray(model.trainable_variables[0])
    losses = another.fit(frame(), batch_size=200, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    np.testing.assert_array_equal(model.trainable_variables[0], before)  # the clone has weights of its own
    plain = keras.models.clone_model(model.predictor)
    assert plain.output["click"].shape == (None, 1)


def test_a_model_of_a_nameless_function_says_what_can_be_saved(tmp_path):
    def mine(x, scenario, *, towers, num_scenarios):
        return {tower: keras.layers.Dense(4)(x) for tower in towers}

    model = models.ranking(SCHEMA, share=mine)
    with pytest.raises(ValueError, match=r"`share` must be a name, or .* save `model\.predictor`.*=<function"):
        model.save(tmp_path / "m.keras")


def test_what_is_served_is_exported(model, tmp_path):
    x, _ = inputs.encode_frame(frame(20), SCHEMA)
    model.export(str(tmp_path / "saved"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))  # must outlive its function
    served = loaded.serve({name: tf.constant(value) for name, value in x.items()})
    np.testing.assert_allclose(served["click"], model.predict(x, verbose=0)["click"], atol=1e-6)


RECIPE = Recipe(form="ranking", share="mmoe", epochs=6, patience=1, batch_size=100, learning_rate=0.05, seed=3)


@pytest.mark.usefixtures("eager")
def test_fit_is_the_loop_that_one_would_write():
    table, known = frame(), frame(200, seed=1)
    (x, y), (known_x, known_y) = (inputs.encode_frame(one, SCHEMA) for one in (table, known))

    def judge(model):
        return -np.corrcoef(model.predict(known_x, verbose=0)["click"][:, 0], known_y["click"])[0, 1]

    fitted = training.fit(RECIPE, SCHEMA, (x, y), judge=judge)
    keras.utils.set_random_seed(3)
    model = models.ranking(SCHEMA, share="mmoe", unknown_rate=0.05)
    model.compile(keras.optimizers.Adam(0.05))
    stop = keras.callbacks.EarlyStopping("judged", mode="min", patience=1, restore_best_weights=True)
    with training.op_determinism(True):
        history = model.fit(
            x, y, batch_size=100, epochs=6, verbose=0, callbacks=[training.Judge(judge), stop]
        ).history  # fmt: skip
    assert fitted.history == {name: pytest.approx(values, rel=1e-6) for name, values in history.items()}
    assert judge(fitted.model) == pytest.approx(min(history["judged"]), rel=1e-6)  # the best epoch is kept
    assert len(history["judged"]) <= 6


@pytest.mark.usefixtures("eager")
def test_fit_takes_a_frame_a_dataset_and_a_budget():
    table = frame()
    x, y = inputs.encode_frame(table, SCHEMA)
    recipe = dataclasses.replace(RECIPE, epochs=Recipe().epochs, updates=7, patience_updates=None)
    batches = inputs.in_memory(x, y, batch_size=100)
    for train in (table, batches.apply(tf.data.experimental.assert_cardinality(4))):
        fitted = training.fit(recipe, SCHEMA, train, validation=table)
        assert int(fitted.model.optimizer.iterations) == 7  # the second epoch of four batches is cut
        assert len(fitted.history["val_loss"]) == 2


WEIGHED = SCHEMA.replace(features=[*SCHEMA.features, Feature("counts", "training", "number", mean=2.0, std=3.0)])
QUICK = Recipe(form="ranking", share="none", epochs=1, batch_size=100, learning_rate=0.05)


@pytest.mark.usefixtures("eager")
def test_rows_at_hand_count_by_their_weights():
    counts = pd.Series(np.random.default_rng(0).choice([0.0, 5.0, None], 400), dtype=float)  # null: 1
    schema = WEIGHED.replace(tasks=[Task("watch", column="click"), Task("like")])  # Keras has weights by column
    table, known = (frame(seed=seed).assign(counts=counts) for seed in (0, 1))
    weights = counts.fillna(1.0).to_numpy("float32")
    arrays = [(*inputs.encode_frame(one, schema), weights) for one in (table, known)]
    recipe, found = dataclasses.replace(QUICK, row_weights="counts"), []
    batches = tf.data.Dataset.from_tensor_slices(arrays[0]).batch(400)
    # One batch, of whatever order, and a short step: Adam's first one is as long where a gradient is rounding alone.
    whole = dataclasses.replace(recipe, batch_size=400, learning_rate=1e-4)
    for train, validation in ((table, known), arrays, (batches, arrays[1])):
        found.append(training.fit(whole, schema, train, validation=validation).history)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose([one[name] for one in found], [found[0][name]] * 3, rtol=1e-5)
    plain = training.fit(dataclasses.replace(whole, row_weights=None), schema, table, validation=known).history
    assert found[0]["loss"][0] > 1.5 * plain["loss"][0]
    assert found[0]["val_loss"][0] > 1.5 * plain["val_loss"][0]


@pytest.mark.usefixtures("eager")
def test_rows_of_active_users_are_left_out_without_upsampling():
    table = frame().assign(sampling=["random", "active"] * 200)
    alone = table[table.sampling == "random"]
    recipes = [dataclasses.replace(QUICK, upsample=upsample, batch_size=400) for upsample in (False, True)]
    left, all_rows = (training.fit(recipe, SCHEMA, table).history["loss"][0] for recipe in recipes)
    assert training.fit(recipes[1], SCHEMA, alone).history["loss"][0] == pytest.approx(left, rel=1e-6)
    assert abs(left - all_rows) > 1e-5


@pytest.mark.usefixtures("eager")
def test_groups_of_the_recipe_are_those_of_a_frame_s_rows():
    share = ("star", {"units": (8, 4)})
    recipe, known = (
        dataclasses.replace(QUICK, share=share, groups="one", unknown_rate=0.0, epochs=2),
        frame(200, seed=1),
    )
    one = SCHEMA.replace(scenario=Scenario(["land"], {("DE",): "all", ("PL",): "all"}))
    given = dataclasses.replace(recipe, groups="given")
    losses = [training.fit(*of, frame(), validation=known).history for of in ((recipe, SCHEMA), (given, one))]
    assert losses[0] == {name: pytest.approx(values, rel=1e-6) for name, values in losses[1].items()}


class Weights(keras.callbacks.Callback):
    """The moving average of the weights after each step, by hand."""

    average = None

    def on_train_batch_end(self, batch, logs=None):
        now = [np.asarray(variable) for variable in self.model.trainable_variables]
        self.average = now if self.average is None else [0.8 * a + 0.2 * w for a, w in zip(self.average, now)]  # noqa: B905

    def on_epoch_end(self, epoch, logs=None):
        logs["epoch"] = epoch


@pytest.mark.usefixtures("eager")
def test_epochs_are_judged_and_kept_with_the_moving_averages_of_the_weights():
    averaged = dataclasses.replace(QUICK, optimizer=("adam", {"use_ema": True, "ema_momentum": 0.8}), epochs=2)
    table, known, by_hand = frame(), frame(200, seed=1), Weights()
    plain = training.fit(dataclasses.replace(QUICK, epochs=2), SCHEMA, table, validation=known, callbacks=[by_hand])
    assert plain.history["epoch"] == [0, 1]  # what a callback of one's own adds
    judged = training.fit(averaged, SCHEMA, table, validation=known)
    kept = judged.model.evaluate(known, batch_size=100, verbose=0)
    assert kept == pytest.approx(min(judged.history["val_loss"]), rel=1e-5)
    assert abs(judged.history["val_loss"][0] - plain.history["val_loss"][0]) > 1e-3
    for fitted in (judged, training.fit(averaged, SCHEMA, table)):  # the last epoch is the best one, too
        for variable, average in zip(fitted.model.trainable_variables, by_hand.average, strict=True):
            np.testing.assert_allclose(variable, average, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "train", "message"),
    [
        (
            {},
            lambda x, y: inputs.in_memory(x, y, batch_size=50).filter(lambda *_: True),
            "a dataset that knows how many",
        ),
        ({"learning_rate": 1e38}, lambda x, y: (x, y), "No epoch has a finite val_loss: lower `learning_rate`"),
        ({"task_weights": {"buy": 1.0}}, lambda x, y: (x, y), "`task_weights` must be one of"),
        (
            {"row_weights": "counts"},
            lambda x, y: (x, y),
            r"`train` must have the weights of its rows as a third item, .* row_weights='counts' and 2 items",
        ),
        (
            {"row_weights": "counts"},
            lambda x, y: inputs.in_memory(x, y, batch_size=50),
            r"row_weights='counts' and 2 items",
        ),
        (
            {"row_weights": "counts"},
            lambda x, y: (x, y, np.ones(400, "float32")),
            r"`validation` must have the column by which .* a DataFrame without 'counts'",
        ),
        ({"upsample": False}, lambda x, y: (x, y), r"`upsample=False` leaves out the rows of active users, so `train`"),
        ({"upsample": False}, lambda x, y: frame(), r"Received: upsample=False and rows without"),
    ],
)
@pytest.mark.usefixtures("eager")
def test_what_cannot_be_fitted_is_said(changes, train, message):
    table = frame()
    recipe = dataclasses.replace(RECIPE, **{"epochs": 2, **changes})
    schema = WEIGHED if recipe.row_weights else SCHEMA
    with pytest.raises(ValueError, match=message) as refused:
        training.fit(recipe, schema, train(*inputs.encode_frame(table, SCHEMA)), validation=table)
    assert "\n" not in str(refused.value)


def test_frames_are_encoded_with_the_groups_of_the_recipe(monkeypatch):
    seen = []
    monkeypatch.setattr(models.JointModel, "fit", lambda self, **given: seen.append((self, given)) or History)
    recipe = dataclasses.replace(RECIPE, groups={"DE": "a", "PL": "b"})
    training.fit(recipe, SCHEMA, frame())
    (model, given) = seen[0]
    assert model.schema.scenario.names == ("a", "b")
    wanted = frame().land.map({"DE": 1, "PL": 2, "FR": 0})  # with SCHEMA's own groups the other way round
    assert given["x"]["scenario"].tolist() == wanted.tolist()
    weights = np.arange(400.0)
    training.fit(RECIPE, SCHEMA, (*inputs.encode_frame(frame(), SCHEMA), weights))
    assert seen[1][1]["sample_weight"] is weights


class History:
    history: ClassVar = {"loss": [1.0]}


X, Y = inputs.encode_frame(frame(20), SCHEMA)
OTHER = np.arange(20) % 7


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([1, 2], r"`train` must be \(x, y\) or .* Received: a list"),
        (X, "Received: a dict"),
        ((X,), "Received: a tuple"),
        ((X, np.zeros(20)), r"`y` must have the labels \['click', 'like'\] by name.*Received: ndarray"),
        ((X, {}), r"`y` must have the labels .* Received: \[\]"),
        ((X, {"click": Y["click"]}), r"Received: \['click'\]"),
        ((X, Y | {"click": OTHER}), r"`click` must be 0, 1 or null, as the task is binary\. Received: 2 in 14 of 20"),
        ((X, Y | {"click": ["a"] * 20}), "`click` must be a label, numbers or null"),
        ((X, {name: y[:, None] for name, y in Y.items()}), r"must have shape \(batch,\), .*'click': \(None, 1\)"),
        ((X, Y, np.ones((20, 1))), r"a weight for each of its 20 rows.* of shape \(20, 1\)"),
        ((X | {"movie": frame(20).movie}, Y), r"`x` must have encoded features.*Received: \['movie'\]"),
        (({n: x for n, x in X.items() if n != "age"}, Y), r"Received: \['age'\] missing or not encoded"),
        (
            (X | {"scenario": X["scenario"] + 1}, Y),
            "`scenario` must be a group's number, from 0 to 2; .* Received: 1 to 3",
        ),
        ((X | {"scenario": X["scenario"] - 9}, Y), "`scenario` must be a group's number, from 0 to 2"),
        ((X | {"movie": X["movie"] + 9}, Y), "`movie` must have places in its vocabulary, from 0 to 2, .* to 11"),
        ((X | {"movie": X["movie"] - 9}, Y), "`movie` must have places in its vocabulary, from 0 to 2"),
        ((X | {"age": X["age"][:7]}, Y), r"`x` and `y` must have one row for each of the 20 .* Received: \{'age': 7\}"),
        ((X, Y | {"like": Y["like"][:7]}), r"one row for each of the 20 .*\{'label like': 7\}"),
        (frame(20)[:0], "`frame` must have a row"),
        (frame(20).drop(columns="like"), r"`y` must have the labels .* Received: \['click'\]"),
    ],
)
def test_fit_says_what_it_cannot_take(train, message):
    with pytest.raises(ValueError, match=message):
        training.fit(RECIPE, SCHEMA, train)


def batched(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(10)


def with_column(name, values):
    return frame(20).assign(**{name: values})


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            with_column("tastes", "drama"),
            "`tastes` must have values of one kind.* Received: .*string, which are no lists",
        ),
        (pd.concat([frame(20), frame(20)[["age"]]], axis=1), r"`frame` must have each column once.* \['age'\]"),
        ((X, Y, np.ones(3)), r"`train` must have a weight for each of its 20 rows.* of shape \(3,\)"),
        ((X, Y, -np.ones(20)), "weights of `train` must be finite, never negative and somewhere positive.* with -1"),
        ((X, Y, np.full(20, np.nan)), "must be finite, never negative and somewhere positive.* with nan"),
        ((X, Y, np.zeros(20)), "must be finite, never negative and somewhere positive"),
        ((X, Y, ["a"] * 20), "`train` must have a weight for each"),
        ((X, Y, {"click": np.ones(20)}), "`train` must have a weight for each.* Received: a dict"),
        (batched(X), r"must have batches of \(x, y\) or \(x, y, weights\).* Received: 1 item"),
        (tf.data.Dataset.from_tensor_slices(X).batch(10), r"\(x, y, weights\).* Received: a dict"),
        (tf.data.Dataset.from_tensor_slices((X, Y)), "must have batches; `dataset.batch` makes them"),
        (batched(X, {"click": Y["click"]}), r"`y` must have the labels \['click', 'like'\].* Received: \['click'\]"),
        (batched(X, Y["click"]), r"`y` must have the labels .* Received: a TensorSpec"),
        (batched({n: x for n, x in X.items() if n != "scenario"}, Y), r"Received: \['scenario'\] missing or not enc"),
        (batched(X | {"movie": frame(20).movie.tolist()}, Y), r"Received: \['movie'\] missing or not encoded"),
        (batched(X, Y | {"click": ["a"] * 20}), "`click` must be a label, numbers or null"),
    ],
)
def test_what_fit_cannot_take_is_said_in_one_line(train, message):
    with pytest.raises(ValueError, match=message) as refused:
        training.fit(RECIPE, SCHEMA, train)
    assert "\n" not in str(refused.value)


def test_validation_is_looked_at_as_rows_are():
    with pytest.raises(ValueError, match="`validation` must have a weight for each of its 20 rows"):
        training.fit(RECIPE, SCHEMA, (X, Y), (X, Y, np.ones(3)))
    with pytest.raises(ValueError, match=r"must have batches of \(x, y\)"):
        training.fit(RECIPE, SCHEMA, (X, Y), tf.data.Dataset.from_tensor_slices(X).batch(10))


def test_lists_null_columns_and_labels_of_other_numbers_are_taken(plain):
    rows = training.fit(RECIPE, SCHEMA, with_column("tastes", None)).history["loss"]
    assert np.isfinite(rows).all()
    wide = {name: y.astype("float64") for name, y in Y.items()}
    lists = {name: x.tolist() for name, x in X.items()}
    whole = batched(X, wide).unbatch().batch(20)  # a loss is a mean over batches
    losses = [plain.evaluate(*of, verbose=0) for of in ((X, Y), (whole,), (lists, Y))]
    np.testing.assert_allclose(losses[1:], losses[0], rtol=1e-6)


@pytest.mark.parametrize(("recipe", "schema"), [(None, SCHEMA), (RECIPE, "data")])
def test_fit_says_which_argument_is_of_another_kind(recipe, schema):
    with pytest.raises(ValueError, match=r"`(recipe|schema)` must be a (Recipe|Schema)\. Received: a (NoneType|str)"):
        training.fit(recipe, schema, frame(20))


@pytest.fixture(scope="module")
def plain():
    model = models.ranking(SCHEMA, embedding_dim=2)
    model.compile("sgd")
    return model


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda model: model.fit(), "`x` must be a DataFrame, a dictionary of arrays, or a dataset of batches"),
        (lambda model: model.predict([1]), "`x` must be a DataFrame, .* Received: a list"),
        (
            lambda model: model.predict({"age": X["age"]}),
            r"`x` must have each feature that is served.*'movie', 'poster'",
        ),
        (
            lambda model: model.compile("sgd", loss="mse"),
            "`loss` must be left out: a joint model has its head's losses",
        ),
        (lambda model: model.compile("sgd", loss_weights=[1]), "`loss_weights` must be left out"),
        (lambda model: model.compile("sgd", balance="pcgrd"), "`balance` must be one of .*Did you mean 'pcgrad'"),
        (lambda model: models.ranking("schema"), "`schema` must be a Schema. Received: a str"),
        (
            lambda model: models.ranking(SCHEMA, share=("ple", {"num_expert": 2})),
            "Options of `share=ple` must be .*Did you mean 'num_experts'",
        ),
        (
            lambda model: models.two_tower(SCHEMA, head=("escm2", {"clip": "a"})),
            "`clip` of `head=escm2` must be a value",
        ),
        (lambda model: models.ranking(SCHEMA, encode=("cross", {"layers": 2})), "Did you mean 'num_layers'"),
        (lambda model: training.fit(RECIPE, SCHEMA, frame(20), judge=3), "`judge` must be a function from a model"),
        (
            lambda model: export(model.predictor, "out"),
            "`run` must be a run directory, or a two-tower model .* Functional",
        ),
        (
            lambda model: export(None, "out"),
            "`run` must be a run directory, or a two-tower model .* Received: a NoneType",
        ),
    ],
)
def test_what_a_model_cannot_take_is_said_in_one_line_and_changes_nothing(plain, use, message):
    with pytest.raises(ValueError, match=message) as refused:
        use(plain)
    assert "\n" not in str(refused.value)
    assert (plain.balance_name, plain.compiled) == (None, True)


def test_whole_and_boolean_labels_are_numbers(plain):
    labels = {"click": Y["click"] > 0, "like": np.nan_to_num(Y["like"]).astype(int)}
    assert np.isfinite(plain.evaluate(X, labels, verbose=0))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (frame(40)[["click", "like"]][20:], "`y` must have the index of `x`, row by row. Received: 'click' with"),
        (frame(20).click, "`y` must have the labels"),
        ({"clicks": Y["click"]}, r"`y` must have the labels .* Received: \['clicks'\]"),
    ],
)
def test_labels_beside_a_frame_are_those_of_its_rows(plain, y, message):
    rows = frame(20).drop(columns=["click", "like"])
    with pytest.raises(ValueError, match=message):
        plain.fit(rows, y, verbose=0)
    with pytest.raises(ValueError, match=message):
        plain.evaluate(rows, y, verbose=0)
    with pytest.raises(ValueError, match=message):
        plain.fit(X, Y, validation_data=(rows, y), verbose=0)


def test_arguments_stand_where_keras_has_them(plain):
    history = plain.fit(frame(20), None, 5, 2, 0, validation_data=(X, Y, np.ones(20)))
    assert len(history.history["val_loss"]) == 2
    assert plain.evaluate(frame(20), None, 5, 0) == pytest.approx(plain.evaluate(X, Y, 5, 0), rel=1e-5)
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)
    np.testing.assert_allclose(plain.predict(batches, None, 0)["like"], plain.predict(X, 20, 0)["like"], atol=1e-6)


def test_a_saved_model_keeps_its_regularisation_and_what_does_not_decay(tmp_path):
    recipe = dataclasses.replace(RECIPE, l2=0.5, weight_decay=0.1, share="none")
    model = recipe.build(SCHEMA)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert float(sum(loaded.losses)) == pytest.approx(float(sum(model.losses)))
    decayed = [[one.optimizer._use_weight_decay(v) for v in one.trainable_variables] for one in (model, loaded)]
    assert decayed[0] == decayed[1]
    assert 0 < sum(decayed[1]) < len(decayed[1])


def test_what_is_refused_leaves_an_older_file_and_what_is_not_compiled_is_saved(tmp_path):
    models.ranking(SCHEMA).save(tmp_path / "m.keras")
    assert not keras.saving.load_model(tmp_path / "m.keras").compiled
    before = (tmp_path / "m.keras").read_bytes()
    with pytest.raises(ValueError, match="`share` must be a name, or a function that others can import"):
        models.ranking(SCHEMA, share=lambda x, scenario, *, towers, num_scenarios: dict.fromkeys(towers, x)).save(
            tmp_path / "m.keras"
        )
    assert (tmp_path / "m.keras").read_bytes() == before


def first_tower(x, scenario, *, towers, num_scenarios):
    return dict.fromkeys(towers, x)


def test_a_file_that_names_code_needs_safe_mode_to_be_off(tmp_path):
    models.ranking(SCHEMA, share=first_tower).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"`share` of this file is a function .* load with `safe_mode=False`"):
        keras.saving.load_model(tmp_path / "m.keras")
    assert keras.saving.load_model(tmp_path / "m.keras", safe_mode=False).built_with[2]["share"].endswith("first_tower")

import keras
import numpy as np
import pytest

from tfmtr import components, inputs, models, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.growth import grow_schema, warm_start
from tfmtr.run import Run
from tfmtr.schema import Feature, Scenario, Schema, Task

ATTENDS_TO_ALL = {"hinet", "m3oe"}  # a new scenario takes part in the mixtures of the old ones


def make_schema(territories, groups, genres=("drama", "news"), **changes):
    features = [
        Feature("territory", "user", "id", territories),
        Feature("age", "user", "number", mean=changes.get("mean", 40.0), std=10.0),
        Feature("user_vector", "user", "vector", width=4),
        Feature("title_vector", "title", "vector", width=changes.get("width", 3)),
        Feature("genres", "title", "set", genres, width=2),
    ]
    return Schema(features, [Task("click", mean=0.2), Task("like", mean=0.1)], Scenario(["territory"], groups))


OLD = make_schema(["DE", "US"], {("DE",): "east", ("US",): "west"})
NEW = make_schema(
    ["BR", "US", "DE"], {("BR",): "atlantic", ("US",): "west", ("DE",): "east"}, ("comedy", "drama"), mean=1.0
)


def build(schema, share="territory_branches", optimizer="adam", seed=0):
    keras.utils.set_random_seed(seed)
    model = models.two_tower(schema, share=share, units=(8, 4))
    model.compile(training.optimizer_of(optimizer)(0.01))
    model.optimizer.build(model.trainable_variables)
    return model


def batch(schema, territories, genres, rows=64, seed=1):
    """The same rows as the indices of a schema."""
    rng = np.random.default_rng(seed)
    territory = rng.choice(territories, rows)
    vocabulary, words = list(schema.features[0].vocabulary), list(schema.features[-1].vocabulary)
    places = {group: i + 1 for i, group in enumerate(schema.scenario.names)}
    groups = {key[0]: places[group] for key, group in schema.scenario.groups.items()}
    drawn = rng.choice(genres, (rows, 2))
    x = {
        "territory": [vocabulary.index(t) + 1 if t in vocabulary else 0 for t in territory],
        "scenario": [groups.get(t, 0) for t in territory],
        "genres": [[words.index(g) + 2 if g in words else 1 for g in row] for row in drawn],
    }
    x = {name: np.asarray(value, "int32") for name, value in x.items()}
    x |= {
        "age": rng.normal(size=rows),
        "user_vector": rng.normal(size=(rows, 4)),
        "title_vector": rng.normal(size=(rows, 3)),
    }
    y = {task: (rng.random(rows) < 0.3).astype("float32") for task in ("click", "like")}
    return {name: value if value.dtype == "int32" else value.astype("float32") for name, value in x.items()}, y


def test_old_places_stay_and_new_ones_follow():
    grown = grow_schema(OLD, NEW)
    assert grown.features[0].vocabulary == ("DE", "US", "BR")
    assert grown.features[-1].vocabulary == ("drama", "news", "comedy")
    assert grown.features[1].mean == 40.0
    assert grown.scenario.names == ("east", "west", "atlantic")  # sorted it would be the first
    assert Schema.from_json(grown.to_json()) == grown
    assert grow_schema(grown, NEW) == grown
    assert grow_schema(OLD, OLD) == OLD


def test_a_schema_that_never_grew_is_written_as_ever():
    assert '"order"' not in OLD.to_json()


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (OLD.replace(features=OLD.features[:-1]), "same features only.*genres"),
        (OLD.replace(tasks=OLD.tasks[:1]), "same tasks only.*like"),
        (make_schema(["DE"], {("DE",): "east"}, width=5), "as wide as the model's.*5"),
        (OLD.replace(scenario=Scenario(["device"], {("tv",): "a"})), "same columns of the scenario.*device"),
    ],
)
def test_what_cannot_grow_is_refused(new, message):
    with pytest.raises(ValueError, match=message):
        grow_schema(OLD, new)


@pytest.mark.parametrize("share", components.names("sharing"))
def test_a_grown_model_answers_as_the_old_one(share, tmp_path):
    """On rows of old territories, and of new ones as what they were until now: unknown."""
    old, rng = build(OLD, share), np.random.default_rng(3)
    for variable in old.trainable_variables:
        variable.assign(np.asarray(variable) + rng.normal(0, 0.1, variable.shape))  # as if trained
    training.save(old, tmp_path / "old.npz")
    schema = grow_schema(OLD, NEW)
    new = build(schema, share, seed=7)
    grown = warm_start(new, schema, OLD, tmp_path / "old.npz")
    assert any("territory_embedding" in name for name in grown)
    territories, genres = ["DE", "US", "BR"], ["drama", "comedy", "news"]
    before, after = (
        model.predictor(batch(schema, territories, genres)[0]) for model, schema in ((old, OLD), (new, schema))
    )
    if share == "hinet":
        experts = np.asarray(new.get_layer("scenario_experts").kernel)
        assert np.abs(experts[:, -2] - experts[:, -1]).max() > 0  # two equal experts would stay equal for ever
    if share in ATTENDS_TO_ALL:
        assert all(np.isfinite(np.asarray(after[task])).all() for task in after)
        return
    for task in before:
        np.testing.assert_allclose(after[task], before[task], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", components.names("optimizers"))
@pytest.mark.usefixtures("eager")
def test_the_optimizer_goes_on_too(optimizer, tmp_path):
    """Two more steps of a model that grew by nothing are two more steps of the old one."""
    old, new = build(OLD, optimizer=optimizer), build(OLD, optimizer=optimizer, seed=5)
    x, y = batch(OLD, ["DE", "US"], ["drama", "news"])
    for _ in range(3):
        old.train_on_batch(x, y)
    training.save(old, tmp_path / "old.npz")
    assert warm_start(new, OLD, OLD, tmp_path / "old.npz") == []
    assert int(new.optimizer.iterations) == 3
    losses = [[float(model.train_on_batch(x, y)) for _ in range(2)] for model in (old, new)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.parametrize("optimizer", components.names("optimizers"))
@pytest.mark.usefixtures("eager")
def test_the_optimizer_grows_with_the_tables(optimizer, tmp_path):
    old = build(OLD, optimizer=optimizer)
    x, y = batch(OLD, ["DE", "US", "XX"], ["drama", "news"])
    old.train_on_batch(x, y)
    training.save(old, tmp_path / "old.npz")
    schema = grow_schema(OLD, NEW)
    new = build(schema, optimizer=optimizer)
    warm_start(new, schema, OLD, tmp_path / "old.npz")
    for variable in new.optimizer.variables:
        if "territory_embedding" in variable.path:
            value = np.asarray(variable)
            assert len(value) == 4
            np.testing.assert_array_equal(value[3], value[0])  # BR as the unknown territory, which the batch had
            assert np.abs(value[0]).max() > 0
            break
    else:
        pytest.fail("no state of the table")


@pytest.mark.usefixtures("eager")
def test_a_new_group_learns_a_branch_of_its_own(tmp_path):
    training.save(build(OLD), tmp_path / "old.npz")
    schema = grow_schema(OLD, NEW)
    new = build(schema)
    warm_start(new, schema, OLD, tmp_path / "old.npz")
    branches = new.get_layer("click_branches")
    kernels = [np.asarray(kernel) for kernel in branches.kernels]
    np.testing.assert_array_equal(kernels[3], kernels[0])
    x, y = batch(schema, ["BR"], ["drama"])
    new.train_on_batch(x, y)
    after = [np.asarray(kernel) for kernel in branches.kernels]
    np.testing.assert_array_equal(after[1], kernels[1])
    assert np.abs(after[3] - kernels[3]).max() > 0


def test_another_recipe_is_refused(tmp_path):
    training.save(build(OLD), tmp_path / "old.npz")
    with pytest.raises(ValueError, match=r"written by another recipe.*branches"):
        warm_start(build(OLD, "star"), OLD, OLD, tmp_path / "old.npz")
    training.save(build(grow_schema(OLD, NEW)), tmp_path / "new.npz")
    with pytest.raises(ValueError, match=r"cannot shrink|without"):
        warm_start(build(OLD), OLD, OLD, tmp_path / "new.npz")


def test_a_run_goes_on_and_a_finished_one_is_left(tiny, tmp_path, monkeypatch):
    recipe = training.Recipe(units=(8,), epochs=1, batch_size=256, listwise=False)
    training.train(tiny, tmp_path / "first", recipe, verbose=0)
    files = Dataset(tiny).examples("train", windows=[1])
    training.go_on(tmp_path / "first", tiny, files, tmp_path / "second", verbose=0)
    first, second = (Run(tmp_path / name).document for name in ("first", "second"))
    assert second["start"] == first["run_id"]
    assert list(second["stages"]) == ["4"]
    models_ = [Run(tmp_path / name).load() for name in ("first", "second")]
    steps = [len(list(inputs.batches(Dataset(tiny), files, batch_size=256)))]
    before = np.load(Run(tmp_path / "first").weights())["optimizer/0"]
    assert int(np.load(Run(tmp_path / "second").weights())["optimizer/0"]) == int(before) + steps[0]
    assert np.abs(np.asarray(models_[0].variables[3]) - np.asarray(models_[1].variables[3])).max() > 0
    monkeypatch.setattr("tfmtr.training.going_on.fit_stage", lambda *a, **k: pytest.fail("trained again"))
    assert training.go_on(tmp_path / "first", tiny, files, tmp_path / "second") == second["grown"]
    with pytest.raises(ValueError, match=r"hold the same run.*start"):
        training.go_on(tmp_path / "second", tiny, files, tmp_path / "second")

import numpy as np
import pytest
from helpers.untraced import untraced

from tfmtr import inputs, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.reporting.tsne import tsne
from tfmtr.reporting.vectors import some_users, user_vectors
from tfmtr.run import Run

RECIPE = training.Recipe(units=(16, 8), epochs=1, batch_size=1500, deterministic=False, listwise=False)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "run"
    with untraced():
        training.train(tiny, path, RECIPE, verbose=0)
    return path


def test_vectors_are_those_of_the_model_by_group(tiny, run):
    vectors = user_vectors(run, tiny)
    data = Dataset(tiny)
    assert set(vectors) == {"before", "after"}
    table = some_users(data, 10**6, 0)
    assert len(set(table["user"].to_pylist())) == len(table) == 40
    features = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
    model = Run(run).load()
    queries = model.user_tower.predict({n: features[n] for n in model.user_tower.input}, verbose=0)["event"]
    west = np.isin(table["territory"].to_pylist(), ["DE", "FR"])
    np.testing.assert_allclose(vectors["after"]["west"], queries[west], atol=1e-6)
    assert set(vectors["after"]) == {"east", "west", "no group"}
    assert sum(map(len, vectors["before"].values())) == 40
    assert (vectors["before"]["west"] >= 0).all()  # behind a ReLU, as `share` gets it
    assert (vectors["after"]["west"] < 0).any()
    branch = model.get_layer("event_branches")(vectors["before"]["west"], features["scenario"][west])
    ratio = vectors["after"]["west"] / np.asarray(branch)  # all that comes after the branch is one scale
    np.testing.assert_allclose(ratio, np.full_like(ratio, ratio[0, 0]), rtol=1e-3)


def test_without_branches_nothing_changes_but_the_scale(tiny, tmp_path):
    training.train(tiny, tmp_path / "run", training.dataclasses.replace(RECIPE, share="none"), verbose=0)
    vectors = user_vectors(tmp_path / "run", tiny, most=30)
    for group, before in vectors["before"].items():
        ratio = vectors["after"][group] / before
        np.testing.assert_allclose(ratio, np.full_like(ratio, ratio[0, 0]), rtol=1e-3)


def test_users_are_drawn_by_seed(tiny):
    data = Dataset(tiny)
    some = [some_users(data, 15, seed)["user"].to_pylist() for seed in (0, 0, 1)]
    assert some[0] == some[1] != some[2]
    assert len(set(some[0])) == 15


def test_groups_that_are_apart_stay_apart_in_the_plane():
    rng = np.random.default_rng(0)
    groups = {name: rng.normal(size=(rows, 10)) + shift for name, rows, shift in (("west", 50, 0), ("east", 20, 20))}
    points = tsne(groups)
    assert {name: own.shape for name, own in points.items()} == {"west": (50, 2), "east": (20, 2)}
    west, east = points.values()
    within = np.linalg.norm(west[:, None] - west, axis=-1)
    across = np.linalg.norm(west[:, None] - east, axis=-1)
    np.fill_diagonal(within, np.inf)
    assert (within.min(axis=1) < across.min(axis=1)).all()
    np.testing.assert_array_equal(tsne(groups)["west"], west)

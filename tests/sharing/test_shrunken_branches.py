import keras
import numpy as np
import pytest

from tfmtr import models
from tfmtr.growth import grow_schema
from tfmtr.schema import Feature, Scenario, Schema, Task
from tfmtr.sharing.shrunken_branches import ShrunkenCoefficients, shrunken_branches
from tfmtr.training import Recipe

GROUPS = {"AT": "east", "CL": "west", "DE": "east"}


def branches(parents=(), **options):
    keras.utils.set_random_seed(0)
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    shared = shrunken_branches(x, scenario, towers=("click",), num_scenarios=3, parents=parents, rank=2, **options)
    assert shared.is_linear
    assert shared.vectors["click"] is x
    return keras.Model([x, scenario], shared.corrections)


def test_follows_the_equations_with_groups_and_territories():
    model = branches((0, 0, 2), prior_rows=5.0)
    rng = np.random.default_rng(0)
    weights = {weight.path: weight for weight in model.weights}
    tables = {level: f"click_{level}_coefficients" for level in ("scenario", "parent")}
    for level, name in tables.items():
        weights[f"{name}/coefficients"].assign(rng.normal(size=(3, 4)))
        weights[f"{name}/log_tau"].assign(0.5)
        weights[f"{name}/rows"].assign({"scenario": [1, 2, 3], "parent": [3, 0, 3]}[level])
    x, scenario = rng.normal(size=(3, 4)).astype("float32"), np.asarray([1, 0, 2])
    w = {path: np.asarray(weight) for path, weight in weights.items()}
    tau = 5 * np.exp(0.5)
    e, e_parent = (w[f"{name}/coefficients"] for name in tables.values())
    expected = []
    for row, s in zip(x, scenario, strict=True):
        g, n, n_parent = (0, 0, 2)[s], (1, 2, 3)[s], 3
        own = n / (n + tau) * e[s] + n_parent / (n_parent + tau) * e_parent[g]
        inner = own[:2] * (row @ w["click_inner/kernel"]) + own[2:]
        expected.append(inner @ w["click_outer/kernel"])
    np.testing.assert_allclose(model([x, scenario])["click"], expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["two_tower", "ranking"])
def test_starts_as_the_shared_model_bit_for_bit(form):
    tasks = [Task("click"), Task("like")]
    x, _ = simulated((3, 3), 0.0, seed=0)
    sizes = {"units": (8, 8)} if form == "two_tower" else {}
    for of in (tasks[:1], tasks):
        given = {}
        for share in ("none", "shrunken_branches"):
            given[share] = getattr(models, form)(schema().replace(tasks=of), share=share, **sizes)
        ours = {weight.path: weight for weight in given["shrunken_branches"].weights}
        for weight in given["none"].weights:
            ours[weight.path].assign(weight)
        ours_first = given["shrunken_branches"](x, training=True)["outputs"]["click"]  # rows are counted
        np.testing.assert_array_equal(ours_first, given["none"](x, training=True)["outputs"]["click"])
        for name, values in given["none"].predict(x, verbose=0).items():
            np.testing.assert_array_equal(given["shrunken_branches"].predict(x, verbose=0)[name], values)


def test_counts_training_rows_and_only_these():
    layer = ShrunkenCoefficients(3, 2, places=(0, 1, 1))
    layer(np.asarray([1, 2, 2]), training=True)
    layer(np.asarray([0, 2]))
    np.testing.assert_array_equal(layer.rows, [0, 3, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_rows": 0.0}, r"`prior_rows` must be a positive number. Received: prior_rows=0.0"),
        ({"prior_rows": float("nan")}, r"`prior_rows` must be a positive number"),
        ({"places": (0, 3, 1)}, r"`places` must be one place in \[0, 3\) for each scenario. Received: \[0, 3, 1\]"),
        ({"places": (0, 1)}, r"`places` must be one place"),
    ],
)
def test_says_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        ShrunkenCoefficients(3, 2, **options)


def schema(groups=GROUPS):
    features = [Feature("user_vector", "user", "vector", width=4), Feature("title_vector", "title", "vector", width=4)]
    return Schema(features, [Task("click")], Scenario(["territory"], groups))


def test_a_recipe_makes_territories_scenarios_within_their_groups():
    recipe = Recipe(share="shrunken_branches", groups="territories", units=(8, 8), listwise=False)
    adapted = recipe.adapt(schema())
    assert adapted.scenario.names == ("AT", "CL", "DE")
    assert adapted.scenario.parents == GROUPS
    assert Schema.from_json(adapted.to_json()) == adapted
    model = recipe.build(adapted)
    assert model.get_layer("click_parent_coefficients").places == [0, 1, 2, 1]
    assert "parents" not in schema().to_json()
    assert "click_parent_coefficients" not in [layer.name for layer in recipe.build(schema()).layers]
    with pytest.raises(ValueError, match=r"`parents` must be \{group: parent\} of all groups \['AT'\]"):
        Scenario(["territory"], {"AT": "AT"}, parents={"DE": "east"})


def test_old_places_stay_when_territories_are_added():
    recipe = Recipe(share="shrunken_branches", groups="territories")
    old, new = (recipe.adapt(schema(groups)) for groups in (GROUPS, {**GROUPS, "BE": "west", "AA": "north"}))
    grown = grow_schema(old, new)
    assert grown.scenario.names == ("AT", "CL", "DE", "AA", "BE")
    assert grown.scenario.parents == new.scenario.parents
    assert models.side_inputs.scenario_parents(grown, has_default=True) == (0, 1, 2, 1, 4, 2)


def simulated(rows, shift, seed):
    """Labels of which title factors users like, the more of another one in each scenario, by `shift`."""
    rng = np.random.default_rng(seed)
    scenario = np.repeat(1 + np.arange(len(rows)), rows)
    users, titles = (rng.normal(size=(len(scenario), 4)).astype("float32") for _ in range(2))
    logit = (users * titles).sum(axis=1) + shift * np.where(scenario == 1, 1, -1) * titles[:, 0]
    order = rng.permutation(len(scenario))
    x = {"user_vector": users, "title_vector": titles, "scenario": scenario.astype("int32")}
    y = (rng.random(len(scenario)) < 1 / (1 + np.exp(-logit))).astype("float32")
    return {name: values[order] for name, values in x.items()}, {"click": y[order]}


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_a_large_territory_gains_from_what_differs_and_a_small_one_loses_nothing(shift):
    groups = {"AT": "AT", "CL": "CL", "DE": "DE"}  # 6,000 and 3,000 rows, and 40
    x, y = simulated((6000, 40, 3000), shift, seed=0)
    tests = [simulated(tuple(4000 if i == s else 0 for i in range(3)), shift, seed=1) for s in range(3)]
    losses, models_ = {}, {}
    for kind in ("given", "one"):
        recipe = Recipe(
            share=("shrunken_branches", {"rank": 4}), groups=kind, units=(16, 16), learning_rate=0.01, unknown_rate=0.0
        )
        adapted = recipe.adapt(schema(groups))
        models_[kind] = model = recipe.build(adapted)
        where = (lambda of: {**of, "scenario": np.minimum(of["scenario"], 1)}) if kind == "one" else dict
        model.fit(where(x), y, batch_size=256, epochs=3, verbose=0)
        losses[kind] = [float(model.evaluate(where(of), labels, batch_size=4000, verbose=0)) for of, labels in tests]
    large, small, other = np.subtract(losses["one"], losses["given"])
    layer = models_["given"].get_layer("click_scenario_coefficients")
    shrunken = np.abs(np.asarray(layer(np.arange(3)))).max(axis=1)
    assert shrunken[1] < 0.3 * shrunken[[0, 2]].min()
    assert small > -0.01
    if shift:
        assert min(large, other) > 0.02
    else:
        assert min(large, other) > -0.01
        assert shrunken.max() < 0.35

import keras
import numpy as np

from tfmtr.sharing.none import none
from tfmtr.sharing.territory_branches import territory_branches


def branches():
    keras.utils.set_random_seed(0)
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    return keras.Model([x, scenario], territory_branches(x, scenario, towers=("click",), num_scenarios=3).vectors)


def test_follows_the_equation():
    model = branches()
    weights = {w.name: np.asarray(w) for w in model.weights}
    x, scenario = np.random.default_rng(0).normal(size=(3, 4)).astype("float32"), np.asarray([1, 0, 1])
    expected = [row @ weights[f"kernel_{s}"] + weights[f"bias_{s}"] for row, s in zip(x, scenario, strict=True)]
    np.testing.assert_allclose(model.predict([x, scenario], verbose=0)["click"], expected, rtol=1e-5)


def test_the_same_user_has_another_vector_in_another_scenario():
    x = np.ones((3, 4), "float32")
    vectors = branches().predict([x, np.arange(3)], verbose=0)["click"]
    assert len(np.unique(vectors.round(5), axis=0)) == 3
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    assert none(x, scenario, towers=("click",), num_scenarios=3).vectors["click"] is x


def test_none_projects_once_for_each_of_several_tasks():
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    vectors = none(x, scenario, towers=("click", "like"), num_scenarios=3).vectors
    model = keras.Model([x, scenario], vectors)
    kernels = {w.path: np.asarray(w) for w in model.weights if w.name == "kernel"}
    assert sorted(kernels) == ["click_vector/kernel", "like_vector/kernel"]
    row = np.ones((1, 4), "float32")
    np.testing.assert_allclose(
        model.predict([row, np.zeros(1)], verbose=0)["like"], row @ kernels["like_vector/kernel"], rtol=1e-5
    )

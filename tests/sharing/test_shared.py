import functools

import keras
import numpy as np
import pytest

from tfmtr.sharing._shared import SelectScenario, per_pair
from tfmtr.sharing.mmoe import mmoe
from tfmtr.sharing.none import none
from tfmtr.sharing.stem import stem


def test_select_scenario_picks_each_row_s_own():
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype("float32")
    scenario = np.asarray([2, 0, 1, 2])
    expected = [x[row, s] for row, s in enumerate(scenario)]
    np.testing.assert_array_equal(SelectScenario()(x, scenario), expected)
    assert SelectScenario()(x[:1], scenario[:1]).shape == (1, 5)
    assert SelectScenario().compute_output_shape((None, 3, 5), (None,)) == (None, 5)


def pairs(part="vectors"):
    """MMoE for each pair of task and scenario, and the plain MMoE over the pairs with the same weights."""
    sizes = {"units": (6,), "num_experts": 3, "tower_units": (5,)}
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    share = per_pair(functools.partial(mmoe, **sizes))
    model = keras.Model([x, scenario], getattr(share(x, scenario, towers=("click", "like"), num_scenarios=3), part))
    names = tuple(f"{task}.{s}" for task in ("click", "like") for s in range(3))
    plain = keras.Model(x, getattr(mmoe(x, scenario, towers=names, num_scenarios=3, **sizes), part))
    plain.set_weights(model.get_weights())
    return model, plain


@pytest.mark.parametrize("part", ["vectors", "bases"])
def test_per_pair_is_the_vector_of_the_row_s_own_pair(part):
    model, plain = pairs(part)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    scenario = np.asarray([1, 0, 2, 2, 1])
    vectors, all_pairs = model.predict([x, scenario], verbose=0), plain.predict(x, verbose=0)
    assert sorted(vectors) == ["click", "like"]
    for task, vector in vectors.items():
        expected = [all_pairs[f"{task}.{s}"][row] for row, s in enumerate(scenario)]
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)


def test_a_pair_s_tower_ends_in_an_output_of_its_own():
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    share = functools.partial(mmoe, units=(6,), tower_units=(5,))
    assert not share(x, scenario, towers=("click",), num_scenarios=3).routed_output
    assert per_pair(share)(x, scenario, towers=("click",), num_scenarios=3).routed_output


def test_a_scenario_s_towers_and_gates_do_not_see_other_scenarios_rows():
    tf = pytest.importorskip("tensorflow")
    model, _ = pairs()
    with tf.GradientTape() as tape:
        vectors = model([np.random.default_rng(0).normal(size=(8, 4)), np.full(8, 1)])
        loss = tf.reduce_sum(vectors["click"]) + tf.reduce_sum(vectors["like"] ** 2)
    layers = {layer.name: layer for layer in model.layers}
    kernels = [layers[name].kernel.value for name in ("gates", "towers_0", "experts_0")]
    gates, towers, experts = tape.gradient(loss, kernels)
    for gradient in (gates, towers):  # (width, pairs, units), pairs in the order of `task.scenario`
        assert np.any(np.asarray(gradient), axis=(0, 2)).tolist() == [False, True, False] * 2
    assert np.any(np.asarray(experts), axis=(0, 2)).all()


def test_layers_that_are_named_by_their_tower_can_be_trained_per_pair():
    """TensorFlow's graph refuses names with characters such as @."""
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    vectors = per_pair(none)(x, scenario, towers=("click", "like"), num_scenarios=2).vectors
    model = keras.Model([x, scenario], [keras.layers.Dense(1)(vector) for vector in vectors.values()])
    model.compile("adam", loss=["mse", "mse"])
    rows = [np.ones((3, 4)), np.asarray([0, 1, 0])]
    assert np.isfinite(model.fit(rows, [np.ones(3)] * 2, verbose=0).history["loss"]).all()


def test_per_pair_refuses_systems_that_need_more_than_x():
    with pytest.raises(ValueError, match=r"`share` of `per_pair` must be .* asks for \['task_representations'\]"):
        per_pair(functools.partial(stem, units=(4,)))

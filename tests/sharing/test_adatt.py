import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.oracles import build_towers, check_towers, dense, forms, gradients, rows, softmax

from tfmtr.sharing.adatt import NativeExperts, adatt

AUTHORS = json.loads(Path(__file__).with_name("authors.json").read_text(encoding="utf-8"))
SIZES = {"units": (6, 5), "num_experts": 2, "num_shared_experts": 3, "tower_units": (3,)}


def build(**options):
    return build_towers(adatt, **SIZES | options)


@pytest.mark.parametrize(
    ("num_experts", "num_shared", "normalize"), [*((n, s, False) for n in (1, 2) for s in (0, 1, 3)), (2, 1, True)]
)
def test_follows_the_equations(num_experts, num_shared, normalize):
    options, dense = forms(normalize)
    model, w = build(num_experts=num_experts, num_shared_experts=num_shared, **options)

    def natives(experts, path, unit):
        return experts[0] if len(experts) == 1 else w[f"{path}/weight"][unit] @ np.stack(experts)

    expected = np.empty((3, 3, 3))
    for row, x in enumerate(rows()):
        own, shared = [x] * 3, x
        for level in (0, 1):
            experts = [
                [dense(own[t], w, f"own_experts_{level}", num_experts * t + i) for i in range(num_experts)]
                for t in range(3)
            ]
            common = [dense(shared, w, f"shared_experts_{level}", i) for i in range(num_shared)]
            everything = np.stack([*(e for unit in experts for e in unit), *common])
            if num_shared and level == 0:
                fused = softmax(shared @ w["shared_gate_0/kernel"]) @ everything
                shared = fused + natives(common, "shared_natives_0", 0)
            own = [
                softmax(own[t] @ w[f"own_gates_{level}/kernel"][:, t]) @ everything
                + natives(experts[t], f"own_natives_{level}", t)
                for t in range(3)
            ]
        expected[row] = [dense(own[t], w, "towers_0", t) for t in range(3)]
    check_towers(model, expected)


@pytest.mark.parametrize(
    ("case", "num_experts", "num_shared"),
    [("sp, 1 native", 1, 0), ("sp, 2 natives", 2, 0), ("all ones", 1, 1), ("shared, 2 natives", 2, 1)],
)
def test_is_that_of_its_authors(case, num_experts, num_shared):
    """Their weights lie in other orders, and their residual in the gates' weights; their gates' biases are 0."""
    theirs = AUTHORS[f"adatt {case}"]
    state = {name: np.asarray(value, "float32") for name, value in theirs["state"].items()}
    x, scenario = keras.Input((3,)), keras.Input((), dtype="int32")
    sizes = {"units": (4, 2), "num_experts": num_experts, "num_shared_experts": num_shared, "tower_units": ()}
    shared = adatt(x, scenario, towers=("a", "b"), num_scenarios=1, **sizes)
    model = keras.Model(x, shared.vectors)
    for level in (0, 1):

        def experts(first, number, level=level):
            paths = [f"experts.{level}.{i}.mlp_net.0" for i in range(first, first + number)]
            kernel = np.stack([state[f"{path}.weight"].T for path in paths], axis=1)
            return [kernel, np.stack([state[f"{path}.bias"] for path in paths])]

        gates = [state[f"gate_weights.{level}.{t}.0.weight"].T for t in range(3 if num_shared and not level else 2)]
        model.get_layer(f"own_experts_{level}").set_weights(experts(0, 2 * num_experts))
        model.get_layer(f"own_gates_{level}").set_weights([np.stack(gates[:2], axis=1)])
        if num_shared:
            model.get_layer(f"shared_experts_{level}").set_weights(experts(2 * num_experts, 1))
        if len(gates) == 3:
            model.get_layer("shared_gate_0").set_weights([gates[2]])
        if num_experts == 2:
            by_level = [state[f"self_exp_weights.{t if num_shared else level}"] for t in range(2)]
            natives = [of_task[level if num_shared else t] for t, of_task in enumerate(by_level)]
            model.get_layer(f"own_natives_{level}").set_weights([np.stack(natives)])
    if case == "shared, 2 natives":  # ours is 1 always, theirs is learnt where another unit has two
        layer = model.get_layer("shared_natives_0")
        layer.call = lambda inputs: float(state["self_exp_weights.2"][0, 0]) * inputs[:, :, 0]
    vectors = model(np.asarray(theirs["x"], "float32"))
    found = np.stack([vectors["a"], vectors["b"]], axis=1)
    np.testing.assert_allclose(found, theirs["y"], rtol=1e-4, atol=1e-6)


def test_natives_start_uniform_within_the_root_of_their_number():
    keras.utils.set_random_seed(0)
    layer = NativeExperts()
    layer.build((None, 500, 4, 3))
    start = np.asarray(layer.weight)
    assert np.abs(start).max() == pytest.approx(0.5, abs=0.01)  # 1 / sqrt(4)
    assert np.mean(start) == pytest.approx(0, abs=0.03)
    assert np.std(start) == pytest.approx(0.5 / np.sqrt(3), rel=0.03)


def test_a_gate_sees_the_other_tasks_experts_and_the_residual_only_its_own():
    model, w = build(units=(6,))
    assert not [path for path in w if path.startswith(("shared_gate", "shared_natives"))]  # nothing would read them
    of_like = gradients(model, "like")
    assert np.any(of_like["own_experts_0/kernel"], axis=(0, 2)).all()
    assert np.any(of_like["own_gates_0/kernel"], axis=(0, 2)).tolist() == [False, True, False]
    assert np.any(of_like["own_natives_0/weight"], axis=1).tolist() == [False, True, False]


def test_adatt_sp_has_no_shared_unit():
    _, w = build(num_shared_experts=0)
    assert not [path for path in w if path.startswith("shared")]
    assert w["own_gates_0/kernel"].shape == (4, 3, 6)


def test_a_closed_gate_does_not_silence_a_task_s_own_experts():
    model, w = build(num_experts=1, num_shared_experts=0, units=(6,), tower_units=())
    kernel = np.zeros_like(w["own_gates_0/kernel"])
    kernel[:, 1] = [-100.0, -100.0, 100.0]  # for a positive row: `like` takes nothing from itself, all from `share`
    model.get_layer("own_gates_0").set_weights([kernel])
    x = np.ones((1, 4), "float32")
    share, like = (dense(x[0], w, "own_experts_0", t) for t in (2, 1))
    np.testing.assert_allclose(model.predict(x, verbose=0)["like"][0], share + like, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_experts": 0}, "`num_experts` must be a positive integer. Received: num_experts=0"),
        ({"num_shared_experts": -1}, r"must be 0 \(AdaTT-sp\) or a positive integer. Received: num_shared_experts=-1"),
        ({"units": (0,)}, r"`units` must be the widths of one or more layers, all positive. Received: units=\(0,\)"),
    ],
)
def test_refuses_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

import numpy as np
import pytest
from helpers.oracles import build_towers, check_towers, forms, gradients, rows, softmax

from tfmtr.sharing.ple import ple

SIZES = {"units": (6, 5), "num_experts": 2, "num_shared_experts": 3, "tower_units": (3,)}


def build(**options):
    return build_towers(ple, **SIZES | options)


@pytest.mark.parametrize("normalize", [False, True])
def test_follows_the_equations(normalize):
    options, dense = forms(normalize)
    model, w = build(**options)
    expected = np.empty((3, 3, 3))
    for row, x in enumerate(rows()):
        own, shared = [x] * 3, x
        for level in (0, 1):
            experts = [[dense(own[t], w, f"own_experts_{level}", 2 * t + i) for i in range(2)] for t in range(3)]
            common = [dense(shared, w, f"shared_experts_{level}", i) for i in range(3)]
            gates = [softmax(own[t] @ w[f"own_gates_{level}/kernel"][:, t]) for t in range(3)]
            if level == 0:
                shared_gate = softmax(shared @ w["shared_gate_0/kernel"])
                shared = shared_gate @ np.stack([*experts[0], *experts[1], *experts[2], *common])
            own = [gates[t] @ np.stack([*experts[t], *common]) for t in range(3)]
        expected[row] = [dense(own[t], w, "towers_0", t) for t in range(3)]
    check_towers(model, expected)


def test_one_level_keeps_the_tasks_own_experts_apart():
    model, w = build(units=(6,))
    assert not [path for path in w if path.startswith("shared_gate")]  # nothing would read the shared state
    of_like = gradients(model, "like")
    assert np.any(of_like["own_experts_0/kernel"], axis=(0, 2)).tolist() == [False, False, True, True, False, False]
    assert np.any(of_like["shared_experts_0/kernel"], axis=(0, 2)).all()
    assert np.any(of_like["own_gates_0/kernel"], axis=(0, 2)).tolist() == [False, True, False]


def test_several_levels_let_other_tasks_experts_in_through_the_shared_state():
    model, _ = build(units=(6, 5, 4))
    of_like = gradients(model, "like")
    for level in (0, 1):
        assert np.any(of_like[f"own_experts_{level}/kernel"], axis=(0, 2)).all()
        assert np.any(of_like[f"shared_gate_{level}/kernel"])
    assert np.any(of_like["own_experts_2/kernel"], axis=(0, 2)).tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_experts": 0}, "`num_experts` must be a positive integer. Received: num_experts=0"),
        ({"num_shared_experts": 0}, "`num_shared_experts` must be a positive integer. Received: num_shared_experts=0"),
        ({"units": ()}, r"`units` must be the widths of one or more layers, all positive. Received: units=\(\)"),
    ],
)
def test_refuses_sizes_that_are_not_positive(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

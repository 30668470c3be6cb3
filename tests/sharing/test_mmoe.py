import numpy as np
import pytest
from helpers.oracles import build_towers, check_towers, dense, forms, gradients, rows, softmax

from tfmtr.sharing.mmoe import mmoe

SIZES = {"units": (6, 5), "num_experts": 2, "tower_units": (3,)}


def build(**options):
    return build_towers(mmoe, **SIZES | options)


@pytest.mark.parametrize("normalize", [False, True])
def test_follows_the_equations(normalize):
    options, dense = forms(normalize)
    model, w = build(**options)
    expected = np.empty((3, 3, 3))
    for row, x in enumerate(rows()):
        experts = [dense(dense(x, w, "experts_0", i), w, "experts_1", i) for i in range(2)]
        for t in range(3):
            g = softmax(x @ w["gates/kernel"][:, t])
            expected[row, t] = dense(sum(g[i] * experts[i] for i in range(2)), w, "towers_0", t)
    check_towers(model, expected)


def test_each_task_has_its_own_gate_over_shared_experts():
    model, _ = build()
    of_like = gradients(model, "like")
    for path in ("gates/kernel", "towers_0/kernel"):
        assert np.any(of_like[path], axis=(0, 2)).tolist() == [False, True, False]
    assert np.any(of_like["experts_0/kernel"], axis=(0, 2)).all()


def test_without_tower_layers_the_vectors_are_the_blends():
    model, w = build(tower_units=(), units=(6,))
    x = rows(1)
    experts = np.stack([dense(x[0], w, "experts_0", i) for i in range(2)])
    like = softmax(x[0] @ w["gates/kernel"][:, 1]) @ experts
    np.testing.assert_allclose(model.predict(x, verbose=0)["like"][0], like, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_experts": 0}, "`num_experts` must be a positive integer. Received: num_experts=0"),
        ({"units": ()}, r"`units` must be the widths of one or more layers, all positive. Received: units=\(\)"),
        ({"units": (8, 0)}, r"all positive. Received: units=\(8, 0\)"),
    ],
)
def test_refuses_sizes_that_are_not_positive(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

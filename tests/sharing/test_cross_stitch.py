import numpy as np
import pytest
from helpers.oracles import build_towers, check_towers, forms, rows

from tfmtr.sharing.cross_stitch import CrossStitch, cross_stitch

SIZES = {"units": (6, 5)}


def build(**options):
    return build_towers(cross_stitch, **SIZES | options)


@pytest.mark.parametrize("normalize", [False, True])
def test_follows_the_equation(normalize):
    options, dense = forms(normalize)
    model, w = build(**options)
    expected = np.empty((3, 3, 5))
    for row, x in enumerate(rows()):
        state = [x] * 3
        for i in (0, 1):
            h = [dense(state[t], w, f"layers_{i}", t) for t in range(3)]
            alpha = w[f"cross_stitch_{i}/alpha"]
            state = [sum(alpha[t, j] * h[j] for j in range(3)) for t in range(3)]
        expected[row] = state
    check_towers(model, expected)


@pytest.mark.parametrize(("num_towers", "same", "other"), [(1, 1.0, None), (2, 0.9, 0.1), (5, 0.9, 0.025)])
def test_starts_near_the_identity_as_a_convex_combination(num_towers, same, other):
    layer = CrossStitch()
    layer.build((None, num_towers, 4))
    alpha = np.asarray(layer.alpha)
    np.testing.assert_allclose(np.diag(alpha), same)
    np.testing.assert_allclose(alpha[~np.eye(num_towers, dtype=bool)], other or 0, rtol=1e-6)
    np.testing.assert_allclose(alpha.sum(axis=1), 1, rtol=1e-6)


def test_with_the_identity_towers_are_separate_and_with_equal_weights_one():
    model, _ = build()
    stitches = [layer for layer in model.layers if isinstance(layer, CrossStitch)]
    assert len(stitches) == 2  # after every layer
    before = model.predict(rows(), verbose=0)
    for stitch in stitches:
        stitch.set_weights([np.eye(3)])
    separate = model.predict(rows(), verbose=0)
    first = model.get_layer("layers_0")
    kernel = np.array(first.kernel)
    kernel[:, 0] *= -1  # the click tower's own
    first.kernel.assign(kernel)
    moved = model.predict(rows(), verbose=0)
    assert not np.allclose(moved["click"], separate["click"])
    np.testing.assert_array_equal(moved["like"], separate["like"])
    assert not np.allclose(before["like"], separate["like"])
    for stitch in stitches:
        stitch.set_weights([np.full((3, 3), 1 / 3)])
    together = model.predict(rows(), verbose=0)
    np.testing.assert_allclose(together["click"], together["like"], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"same_tower": 1.5}, r"`same_tower` must be in \[0, 1\]. Received: same_tower=1.5"),
        ({"units": ()}, r"`units` must be the widths of one or more layers, all positive. Received: units=\(\)"),
    ],
)
def test_refuses_arguments_outside_their_range(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

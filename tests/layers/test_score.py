import math

import numpy as np
import pytest
from keras import ops

from tfmtr.layers.score import DotScore, QueryScale


def test_logit_follows_the_equation():
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(2, 3, 16)).astype("float32")
    scale, score = QueryScale(), DotScore(bias=-2.0)
    query = scale(u)
    scale.log_scale.assign(math.log(3.0))
    expected = 3.0 * np.sum(u * v, axis=1, keepdims=True) / 4.0 - 2.0
    np.testing.assert_allclose(score(scale(u), v), expected, rtol=1e-5)
    np.testing.assert_allclose(query, u / 4.0, rtol=1e-6)  # s starts at 1


def test_the_scale_stays_positive():
    scale = QueryScale()
    scale(np.ones((1, 4), "float32"))
    scale.log_scale.assign(-50.0)
    assert float(ops.min(scale(np.ones((1, 4), "float32")))) > 0


def test_without_bias_it_is_the_plain_dot_product():
    layer = DotScore(None)
    assert float(layer(np.full((1, 4), 2.0), np.ones((1, 4)))[0, 0]) == 8.0
    assert not layer.weights


def test_refuses_vectors_of_different_widths():
    with pytest.raises(ValueError, match=r"same width.*query.shape=\(2, 4\), title.shape=\(2, 5\)"):
        DotScore()(np.ones((2, 4)), np.ones((2, 5)))

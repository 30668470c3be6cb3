import numpy as np
import pytest
from keras import ops

from tfmtr.layers.fusion_weight import FusionWeight


def test_follows_the_equation():
    rng = np.random.default_rng(0)
    a, b, e = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 2, 4)), np.asarray([0.3, -2.0])
    layer = FusionWeight(2)
    layer.build((None, 2, 4))
    layer.fusion_logit.assign(e)
    w = (1 / (1 + np.exp(-e)))[:, None]
    np.testing.assert_allclose(layer(a), w * a, rtol=1e-5)
    np.testing.assert_allclose(layer(a, b), w * a + (1 - w) * b, rtol=1e-5)


def test_starts_at_one_half_and_stays_there_when_it_is_not_trainable():
    layer = FusionWeight(2, trainable=False)
    np.testing.assert_allclose(layer(ops.ones((1, 2, 3)), ops.zeros((1, 2, 3))), np.full((1, 2, 3), 0.5))
    assert layer.trainable_weights == []
    assert not FusionWeight.from_config(layer.get_config()).trainable


def test_refuses_inputs_of_another_shape():
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(batch, 2, units\).*\(1, 3, 4\)"):
        FusionWeight(2)(ops.ones((1, 3, 4)))

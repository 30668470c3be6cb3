import numpy as np
import pytest
from keras import ops

from tfmtr.layers.fusion_weight import FusionWeight


def test_follows_equation_10():
    layer = FusionWeight(2)
    layer.build((None, 4))
    layer.fusion_logit.assign([0.3, -2.0])
    np.testing.assert_allclose(layer(ops.ones((1, 4))), 1 / (1 + np.exp([-0.3, 2.0])), rtol=1e-5)


def test_starts_at_one_half_and_stays_there_when_it_is_not_trainable():
    layer = FusionWeight(2, trainable=False)
    np.testing.assert_allclose(layer(ops.zeros((3, 1))), [0.5, 0.5])
    assert layer.trainable_weights == []
    assert not FusionWeight.from_config(layer.get_config()).trainable


def test_refuses_a_number_that_is_not_positive():
    with pytest.raises(ValueError, match=r"`num_weights` must be a positive integer. Received: num_weights=0"):
        FusionWeight(0)


def test_starts_where_it_is_told_to():
    layer = FusionWeight.from_config(FusionWeight(2, start=0.75).get_config())
    np.testing.assert_allclose(layer(ops.zeros((3, 1))), [0.75, 0.75], rtol=1e-6)
    np.testing.assert_allclose(layer.fusion_logit, np.log([3, 3]), rtol=1e-6)
    with pytest.raises(ValueError, match=r"`start` must be in \(0, 1\). Received: start=1"):
        FusionWeight(2, start=1)

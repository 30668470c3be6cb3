import keras
import numpy as np
import pytest

from tfmtr.optimizers.adam_l2 import AdamL2
from tfmtr.recipe import Recipe


def test_l2_is_added_to_the_gradient():
    """A weight without gradient goes by the whole rate, and one with a gradient as Adam's by the two's sum."""
    w, other = keras.Variable([0.5, -2.0]), keras.Variable([0.5, -2.0])
    optimizer, adam = AdamL2(0.01, l2=0.1), keras.optimizers.Adam(0.01)
    for gradient in ([0.0, 0.3], [0.2, -0.1]):
        adam.apply([keras.ops.array(gradient) + 0.1 * other.value], [other])
        optimizer.apply([keras.ops.array(gradient)], [w])
        np.testing.assert_allclose(w, other, rtol=1e-6)
    alone = keras.Variable([0.5])
    AdamL2(0.01, l2=0.1).apply([keras.ops.array([0.0])], [alone])
    assert float(alone[0]) == pytest.approx(0.49, abs=1e-6)


def test_it_is_saved_with_its_l2_and_refuses_a_negative_one():
    config = keras.optimizers.serialize(AdamL2(0.01, l2=0.1))
    assert keras.optimizers.deserialize(config).l2 == 0.1
    with pytest.raises(ValueError, match=r"`l2` must be a finite number, not less than 0. Received: l2=-1"):
        AdamL2(l2=-1)
    with pytest.raises(ValueError, match=r"`optimizer\.l2` must be left out where the recipe has it"):
        Recipe(l2=1e-5, optimizer=("adam_l2", {"l2": 1e-5}))

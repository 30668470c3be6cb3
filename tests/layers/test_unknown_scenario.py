import numpy as np
import pytest

from tfmtr.layers.unknown_scenario import UnknownScenario


def test_drops_the_given_share_in_training_only():
    scenario = np.full(20_000, 3, "int32")
    layer = UnknownScenario(0.2, seed=1)
    dropped = np.asarray(layer(scenario, training=True))
    assert set(np.unique(dropped)) == {0, 3}
    assert abs(np.mean(dropped == 0) - 0.2) < 0.01
    np.testing.assert_array_equal(layer(scenario, training=False), scenario)


def test_draws_anew_at_every_step():
    layer = UnknownScenario(0.5, seed=1)
    scenario = np.ones(100, "int32")
    assert not np.array_equal(layer(scenario, training=True), layer(scenario, training=True))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_refuses_a_rate_outside_its_range(rate):
    with pytest.raises(ValueError, match=rf"`rate` must be in \[0, 1\). Received: rate={rate}"):
        UnknownScenario(rate)

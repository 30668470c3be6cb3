"""Balancers that weigh losses: each by its equation."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.balancing_oracles import LOSSES, problem, state_of, weights

from tfmtr.balancing.dynamic_weight_average import dynamic_weight_average
from tfmtr.balancing.equal import equal
from tfmtr.balancing.fixed_weights import fixed_weights
from tfmtr.balancing.geometric import geometric
from tfmtr.balancing.random_weighting import random_weighting
from tfmtr.balancing.stch import stch
from tfmtr.balancing.uncertainty import uncertainty


def test_equal():
    total, w, _ = weights(equal(problem()))
    assert total == pytest.approx(1.0)
    np.testing.assert_allclose(w, [1, 1])


def test_fixed_weights():
    _, w, _ = weights(fixed_weights(problem(), weights={"b": 2.5}))
    np.testing.assert_allclose(w, [1, 2.5])
    with pytest.raises(ValueError, match=r"`weights` must be one of .* Received: weights='c'"):
        fixed_weights(problem(), weights={"c": 1})
    with pytest.raises(ValueError, match=r"must not be negative. Received: a=-1"):
        fixed_weights(problem(), weights={"a": -1})


def test_uncertainty():
    s = np.asarray([0.5, -1.0])
    balancer = uncertainty(problem())
    total, w, _ = weights(balancer, state={"log_variance": tf.constant(s, tf.float32)})
    np.testing.assert_allclose(w, np.exp(-s), rtol=1e-6)
    assert total == pytest.approx(np.sum(np.exp(-s) * LOSSES + s / 2), rel=1e-6)
    assert list(balancer.parameters) == ["log_variance"]
    # The best s is log(2 L): a loss then counts by 1 / (2 L), whatever its scale.
    variable = tf.Variable([0.0, 0.0])
    for _ in range(500):
        with tf.GradientTape() as tape:
            total, _ = balancer.objective(
                tf.constant(LOSSES, tf.float32), {"log_variance": tf.convert_to_tensor(variable)}
            )
        variable.assign_sub(0.2 * tape.gradient(total, variable))
    np.testing.assert_allclose(variable, np.log(2 * LOSSES), atol=1e-3)


def test_dynamic_weight_average_by_hand():
    balancer = dynamic_weight_average(problem(), temperature=0.5, period=2)
    state, history = (
        state_of(balancer),
        [[1.0, 1.0], [3.0, 1.0], [1.0, 1.0], [2.0, 0.6], [1.0, 1.0], [0.4, 0.2], [1, 1]],
    )
    found = []
    for losses in history:
        _, w, state = weights(balancer, losses, state)
        found.append(w)
    np.testing.assert_allclose(found[:4], np.ones((4, 2)))  # two periods are needed
    means = np.asarray(history[:6]).reshape(3, 2, 2).mean(axis=1)
    for steps, r in ((found[4:6], means[1] / means[0]), (found[6:], means[2] / means[1])):
        expected = 2 * np.exp(r / 0.5) / np.exp(r / 0.5).sum()
        np.testing.assert_allclose(steps, np.tile(expected, (len(steps), 1)), rtol=1e-5)
    assert found[4][1] > 1 > found[4][0]  # the second fell less


def test_random_weighting():
    balancer = random_weighting(problem(), seed=3)
    state, found = state_of(balancer), []
    for _ in range(200):
        _, w, state = weights(balancer, state=state)
        found.append(w)
    np.testing.assert_allclose(np.sum(found, axis=1), 2, rtol=1e-5)
    np.testing.assert_allclose(np.mean(found, axis=0), [1, 1], atol=0.1)
    assert np.std(found, axis=0).min() > 0.3
    _, again, _ = weights(random_weighting(problem(), seed=3))
    np.testing.assert_allclose(again, found[0])  # a function of seed and step


def test_geometric():
    total, w, _ = weights(geometric(problem()))
    assert total == pytest.approx(np.sqrt(0.21), rel=1e-6)
    np.testing.assert_allclose(w, np.sqrt(0.21) / 2 / LOSSES, rtol=1e-5)
    total, w, _ = weights(geometric(problem()), [0.5, 0.0])  # no label of the second
    assert total == pytest.approx(0.5)
    np.testing.assert_allclose(w, [1, 0])


def test_stch():
    balancer = stch(problem(), mu=0.5, warmup=2)
    state = state_of(balancer)
    for losses in ([1.0, 0.2], [3.0, 0.4]):
        total, w, state = weights(balancer, losses, state)
        assert total == pytest.approx(np.log(losses).sum(), rel=1e-5)
        np.testing.assert_allclose(w, 1 / np.asarray(losses), rtol=1e-5)
    relative = np.log(LOSSES / [2.0, 0.3]) / 0.5
    total, w, _ = weights(balancer, state=state)
    assert total == pytest.approx(2 * 0.5 * np.log(np.exp(relative).sum()), rel=1e-5)
    np.testing.assert_allclose(w, 2 * np.exp(relative) / np.exp(relative).sum() / LOSSES, rtol=1e-4)
    assert w[1] * LOSSES[1] > w[0] * LOSSES[0]  # relative to its start the second is worse
    for losses in ([0.0, 0.5], [0.0, 0.0]):
        total, w, _ = weights(balancer, losses, state)
        assert np.isfinite(total)
        assert np.isfinite(w).all()


@pytest.mark.parametrize("make", [dynamic_weight_average, stch])
def test_one_loss_is_refused(make):
    with pytest.raises(ValueError, match=rf"`balance={make.__name__}` balances two or more losses"):
        make(problem(1))


def test_bad_numbers():
    with pytest.raises(ValueError, match=r"`temperature` must be positive. Received: temperature=0"):
        dynamic_weight_average(problem(), temperature=0)
    with pytest.raises(ValueError, match="`mu` must be positive"):
        stch(problem(), mu=0)

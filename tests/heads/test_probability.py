import numpy as np
import pytest
from keras import ops

from tfmtr.heads._probability import LogProbability

tf = pytest.importorskip("tensorflow")


def of(logit):
    return LogProbability.of(tf.constant(logit, tf.float32))


def test_both_and_either_follow_the_rules_of_probability():
    logits = np.random.default_rng(0).normal(size=(3, 50)).astype("float32")
    p, q, r = 1 / (1 + np.exp(-logits))
    first, second, third = map(of, logits)
    for result, expected in ((first.then(second), p * q), (first.either(second, third), p * q + (1 - p) * r)):
        np.testing.assert_allclose(result.probability(), expected, rtol=1e-5)
        np.testing.assert_allclose(ops.exp(result.no), 1 - expected, rtol=1e-5)
        label = (np.arange(50) % 2).astype("float32")
        np.testing.assert_allclose(
            result.cross_entropy(label), -(label * np.log(expected) + (1 - label) * np.log(1 - expected)), rtol=1e-4
        )


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_extreme_logits_have_finite_losses_and_gradients_that_point_the_right_way(label):
    logits = tf.Variable([[1e4, 1e4], [1e4, -1e4], [-1e4, 1e4], [-1e4, -1e4]])
    with tf.GradientTape() as tape:
        both = LogProbability.of(logits[:, 0]).then(LogProbability.of(logits[:, 1]))
        loss = tf.reduce_sum(both.cross_entropy(label))
    gradient = tape.gradient(loss, logits)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    if label == 0.0:
        assert np.sum(gradient[0]) == pytest.approx(1.0)  # sure of both, and wrong: they must come down
    else:
        assert (gradient[3] < -0.9).numpy().all()

import numpy as np
import pytest

from tfmtr.layers.expert_gate import ExpertGate


def softmax(x):
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


def random_kernel(layer):
    layer.set_weights([np.random.default_rng(0).normal(size=layer.kernel.shape)])
    return np.asarray(layer.kernel)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_one_gate_follows_the_equation(temperature):
    layer, x, experts = ExpertGate(temperature), normal(2, 4), normal(2, 3, 5, seed=2)
    layer(x, experts)
    kernel = random_kernel(layer)  # (4, 3)
    expected = [softmax(x[row] @ kernel / temperature) @ experts[row] for row in range(2)]
    np.testing.assert_allclose(layer(x, experts), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("own_inputs", [False, True])
@pytest.mark.parametrize("own_experts", [False, True])
def test_many_gates_are_as_many_single_ones(own_inputs, own_experts):
    layer = ExpertGate(num_gates=6)
    x = normal(2, 6, 4) if own_inputs else normal(2, 4)
    experts = normal(2, 6, 3, 5, seed=2) if own_experts else normal(2, 3, 5, seed=2)
    layer(x, experts)
    kernel = random_kernel(layer)  # (4, 6, 3)
    expected = np.empty((2, 6, 5))
    for row in range(2):
        for g in range(6):
            weights = softmax((x[row, g] if own_inputs else x[row]) @ kernel[:, g])
            expected[row, g] = weights @ (experts[row, g] if own_experts else experts[row])
    np.testing.assert_allclose(layer(x, experts), expected, rtol=1e-4, atol=1e-6)


def test_a_low_temperature_chooses_and_a_high_one_averages():
    x, experts = np.ones((1, 1), "float32"), np.asarray([[[1.0], [2.0], [6.0]]], "float32")
    for temperature, expected in ((1e-3, 2.0), (1e3, 3.0)):
        layer = ExpertGate(temperature)
        layer(x, experts)
        layer.set_weights([np.asarray([[0.0, 1.0, 0.5]])])
        np.testing.assert_allclose(layer(x, experts), [[expected]], atol=1e-2)


def test_gates_start_different():
    layer = ExpertGate(num_gates=3)
    layer(np.ones((1, 4)), np.ones((1, 5, 2)))
    assert len(np.unique(np.moveaxis(np.asarray(layer.kernel), 1, 0).reshape(3, -1), axis=0)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive. Received: temperature=0.0"),
        ({"num_gates": 0}, "`num_gates` must be a positive integer or None. Received: num_gates=0"),
    ],
)
def test_refuses_options_that_are_not_positive(options, message):
    with pytest.raises(ValueError, match=message):
        ExpertGate(**options)


@pytest.mark.parametrize(
    ("num_gates", "inputs", "experts", "message"),
    [
        (None, (2, 4), (2, 5), r"shape \(batch, num_experts, units\); stack.*experts.shape=\(2, 5\)"),
        (None, (2, 4), (2, 3, 4, 5), r"shape \(batch, num_experts, units\); stack.*experts.shape=\(2, 3, 4, 5\)"),
        (3, (2, 4), (2, 4, 4, 5), r" or \(batch, 3, num_experts, units\); stack.*experts.shape=\(2, 4, 4, 5\)"),
        (None, (2, 3, 4), (2, 4, 5), r"`inputs` must have shape \(batch, gate_dim\). .*inputs.shape=\(2, 3, 4\)"),
        (3, (2, 2, 4), (2, 4, 5), r" or \(batch, 3, gate_dim\). Received: inputs.shape=\(2, 2, 4\)"),
    ],
)
def test_refuses_shapes_that_do_not_fit(num_gates, inputs, experts, message):
    with pytest.raises(ValueError, match=message):
        ExpertGate(num_gates=num_gates)(np.ones(inputs), np.ones(experts))

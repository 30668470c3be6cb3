import keras
import numpy as np
import pytest
from helpers.oracles import TOWERS, build_towers, check_towers, forms, rows

from tfmtr.sharing.snr import SubnetworkRoutes, snr

SIZES = {"units": (6, 5), "num_experts": 2, "tower_units": (3,)}


def build(**options):
    return build_towers(snr, **SIZES | options)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_concrete(log_alpha, u=None):
    """Gates of Louizos et al., equations 10 to 13, in training with a draw u."""
    s = sigmoid(log_alpha) if u is None else sigmoid((np.log(u) - np.log(1 - u) + log_alpha) / (2 / 3))
    return np.minimum(1, np.maximum(0, s * (1.1 - -0.1) + -0.1))


@pytest.mark.parametrize(("variant", "normalize"), [("trans", False), ("aver", False), ("aver", True)])
def test_follows_the_equations_in_inference(variant, normalize):
    options, dense = forms(normalize)
    model, w = build(variant=variant, **options)
    expected = np.empty((3, 3, 3))
    for row, x in enumerate(rows()):
        state = [x] * 2
        for level, width in enumerate((6, 5)):
            u = [dense(state[i], w, f"subnetworks_{level}", i) for i in range(2)]
            z = hard_concrete(w[f"routes_{level}/log_alpha"])  # (outputs, inputs)
            state = []
            for i in range(len(z)):
                v = np.zeros(width)
                for j in range(2):
                    matrix = w[f"routes_{level}/kernel"][:, i * 2 + j] if variant == "trans" else np.eye(width)
                    v += z[i, j] * (u[j] @ matrix)
                state.append(v)
        expected[row] = [dense(state[t], w, "towers_0", t) for t in range(3)]
    check_towers(model, expected)


def routes(num_inputs=20, num_outputs=30, **options):
    layer = SubnetworkRoutes(num_outputs, transform=False, seed=0, **options)
    layer.build((None, num_inputs, 4))
    return layer


def test_gates_are_random_in_training_and_fixed_in_inference():
    layer = routes()
    assert not np.array_equal(layer.gates(training=True), layer.gates(training=True))
    np.testing.assert_array_equal(layer.gates(), layer.gates())
    x = np.random.default_rng(0).normal(size=(2, 20, 4)).astype("float32")
    assert not np.allclose(layer(x, training=True), layer(x, training=True))
    np.testing.assert_array_equal(layer(x), layer(x))


def test_gates_have_the_hard_concrete_distribution():
    """Shares of closed, half-open and fully open gates against the inverse of the formula on many draws."""
    layer = routes(100, 100)
    u = np.random.default_rng(0).uniform(size=1_000_000)
    for log_alpha in (-2.0, 0.0, 1.0):
        layer.log_alpha.assign(np.full((100, 100), log_alpha))
        z, expected = np.asarray(layer.gates(training=True)), hard_concrete(log_alpha, u)
        for quantity in (lambda z: z == 0, lambda z: z == 1, lambda z: z, lambda z: z**2):
            np.testing.assert_allclose(np.mean(quantity(z)), np.mean(quantity(expected)), atol=0.02)


def test_gates_start_half_open_and_each_a_little_different():
    """Log alpha is normal about 0 with a deviation of 0.01."""
    start = np.asarray(routes(100, 100).log_alpha)
    assert np.mean(start) == pytest.approx(0, abs=5e-4)
    assert np.std(start) == pytest.approx(0.01, rel=0.05)


def test_the_penalty_is_the_expected_number_of_open_gates():
    u = np.random.default_rng(0).uniform(size=(100_000, 1, 1))
    layer = routes(3, 2, penalty=0.5)
    log_alpha = np.asarray([[-3.0, 0.0, 2.0], [1.0, -1.0, 0.5]], "float32")
    layer.log_alpha.assign(log_alpha)
    layer(np.ones((1, 3, 4), "float32"))
    (loss,) = layer.losses
    open_gates = np.mean((hard_concrete(log_alpha, u) > 0).sum(axis=(1, 2)))
    np.testing.assert_allclose(loss, 0.5 * open_gates, rtol=0.01)


def test_the_penalty_enters_a_model_s_loss_once_and_closes_connections():
    model, _ = build(units=(6,), variant="aver", penalty=1.0)
    model.compile(keras.optimizers.Adam(0.5), loss=dict.fromkeys(TOWERS, lambda y, prediction: 0.0 * prediction[:, 0]))
    labels = dict.fromkeys(TOWERS, np.zeros((16, 1)))
    log_alpha = np.asarray(model.get_layer("routes_0").log_alpha)
    losses = model.fit(rows(16), labels, epochs=15, verbose=0, batch_size=16).history["loss"]
    shift = 2 / 3 * np.log(0.1 / 1.1)
    np.testing.assert_allclose(losses[0], sigmoid(log_alpha - shift).sum(), rtol=1e-5)
    np.testing.assert_array_equal(model.get_layer("routes_0").gates(), 0.0)


def test_a_closed_connection_is_closed_for_that_pair_only():
    model, _ = build(units=(6,), tower_units=())
    layer = model.get_layer("routes_0")
    log_alpha = np.full((3, 2), 20.0)
    log_alpha[1, 0] = -20.0  # tower `like` does not see sub-network 0
    layer.log_alpha.assign(log_alpha)
    before = model.predict(rows(), verbose=0)
    bias = model.get_layer("subnetworks_0").bias
    bias.assign(np.asarray(bias) + np.asarray([[1.0], [0.0]]))
    after = model.predict(rows(), verbose=0)
    np.testing.assert_array_equal(after["like"], before["like"])
    assert not np.allclose(after["click"], before["click"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "average"}, r"`variant` must be one of \['aver', 'trans'\]. Did you mean 'aver'\? Received: "),
        ({"penalty": -1.0}, "`penalty` must be at least 0. Received: penalty=-1.0"),
        ({"num_experts": 0}, "`num_experts` must be a positive integer. Received: num_experts=0"),
    ],
)
def test_refuses_arguments_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)

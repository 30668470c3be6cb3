import keras
import numpy as np
import pytest
from keras import ops

from tfmtr.layers.routed_batch_norm import RoutedBatchNorm

SCENARIO = np.asarray([2, 0, 2, 0, 0, 2], "int32")  # 1 is absent


def data(rows=6):
    return np.random.default_rng(0).normal(2.0, 3.0, size=(rows, 4)).astype("float32")


def layer_with_weights(**options):
    layer = RoutedBatchNorm(3, **options)
    layer.build((None, 4))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    return layer, {w.name: np.asarray(w) for w in layer.weights}


def expected(row, s, mean, variance, w):
    scale = w["gamma"] * w["own_gamma"][s]
    return scale * (row - mean) / np.sqrt(variance + 1e-3) + w["beta"] + w["own_beta"][s]


def test_training_uses_the_batch_statistics_of_the_rows_own_scenario():
    (layer, w), x = layer_with_weights(), data()
    rows = [
        expected(row, s, x[s == SCENARIO].mean(0), x[s == SCENARIO].var(0), w)
        for row, s in zip(x, SCENARIO, strict=True)
    ]
    np.testing.assert_allclose(layer(x, SCENARIO, training=True), rows, rtol=1e-4, atol=1e-5)


def test_inference_uses_the_moving_statistics_of_the_rows_own_scenario():
    (layer, w), x = layer_with_weights(), data()
    rows = [
        expected(row, s, w["moving_mean"][s], w["moving_variance"][s], w) for row, s in zip(x, SCENARIO, strict=True)
    ]
    np.testing.assert_allclose(layer(x, SCENARIO), rows, rtol=1e-4, atol=1e-5)


def test_moving_statistics_follow_their_own_rows_and_an_absent_scenario_leaves_them_alone():
    (layer, w), x = layer_with_weights(momentum=0.8), data()
    layer(x, SCENARIO, training=True)
    for s in (0, 2):
        own = x[s == SCENARIO]
        np.testing.assert_allclose(layer.moving_mean[s], 0.8 * w["moving_mean"][s] + 0.2 * own.mean(0), rtol=1e-5)
        np.testing.assert_allclose(
            layer.moving_variance[s], 0.8 * w["moving_variance"][s] + 0.2 * own.var(0), rtol=1e-5
        )
    np.testing.assert_array_equal(layer.moving_mean[1], w["moving_mean"][1])
    np.testing.assert_array_equal(layer.moving_variance[1], w["moving_variance"][1])


def test_a_scenario_does_not_see_the_rows_of_others():
    (layer, _), x = layer_with_weights(), data()
    before = np.asarray(layer(x, SCENARIO, training=True))
    x[SCENARIO == 2] *= 7.0
    after = np.asarray(layer(x, SCENARIO, training=True))
    np.testing.assert_allclose(after[SCENARIO == 0], before[SCENARIO == 0], rtol=1e-5)


def test_with_one_scenario_it_is_batch_normalisation():
    x = data(32)
    own, stock = RoutedBatchNorm(1), keras.layers.BatchNormalization(momentum=0.9)
    for _ in range(3):
        outputs = [own(x, np.zeros(32, "int32"), training=True), stock(x, training=True)]
    np.testing.assert_allclose(*outputs, atol=1e-5)
    np.testing.assert_allclose(own(x, np.zeros(32, "int32")), stock(x), atol=1e-5)


def test_gradients_pass_through_the_statistics():
    tf = pytest.importorskip("tensorflow")
    layer, _ = layer_with_weights()
    x = tf.constant(data())
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(tf.square(layer(x, SCENARIO, training=True)))
    gradient = np.asarray(tape.gradient(loss, x))
    assert np.abs(gradient).max() > 1e-3
    for s in (0, 2):  # a shift of all rows of a scenario changes nothing
        np.testing.assert_allclose(gradient[s == SCENARIO].sum(0), 0, atol=1e-4)


def test_mixed_precision_keeps_the_statistics_in_float32():
    layer = RoutedBatchNorm(3, dtype="mixed_bfloat16")
    x = ops.cast(data(), "bfloat16")
    assert layer(x, SCENARIO, training=True).dtype == "bfloat16"
    own = np.asarray(ops.cast(x, "float32"))[SCENARIO == 2]
    np.testing.assert_allclose(layer.moving_mean[2], 0.1 * own.mean(0), rtol=1e-5)


def test_survives_saving(tmp_path):
    x, scenario = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model([x, scenario], RoutedBatchNorm(3, momentum=0.5)(x, scenario))
    model([data(), SCENARIO], training=True)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded([data(), SCENARIO]), model([data(), SCENARIO]), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_scenarios": 0}, "`num_scenarios` must be a positive integer. Received: num_scenarios=0"),
        ({"num_scenarios": 2, "momentum": 1.0}, r"`momentum` must be in \[0, 1\). Received: momentum=1.0"),
    ],
)
def test_refuses_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        RoutedBatchNorm(**options)


def test_refuses_inputs_of_another_rank():
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(batch, width\).*\(2, 3, 4\)"):
        RoutedBatchNorm(2)(ops.ones((2, 3, 4)), ops.array([0, 1]))

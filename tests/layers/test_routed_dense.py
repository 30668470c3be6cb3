import keras
import numpy as np
import pytest

from tfmtr.layers.routed_dense import RoutedDense

tf = pytest.importorskip("tensorflow")


def built_layer():
    keras.utils.set_random_seed(0)  # by chance all five units of a branch may be off
    layer = RoutedDense(5, 3, activation="relu", bias_initializer="random_normal")
    layer.build((None, 4))
    return layer


def test_follows_the_equation_row_by_row():
    layer = built_layer()
    x, scenario = np.random.default_rng(2).normal(size=(3, 4)).astype("float32"), [2, 0, 2]
    expected = [
        np.maximum(row @ np.asarray(layer.kernels[s]) + np.asarray(layer.biases[s]), 0)
        for row, s in zip(x, scenario, strict=True)
    ]
    np.testing.assert_allclose(layer(x, np.asarray(scenario)), expected, rtol=1e-5, atol=1e-6)


def test_a_branch_learns_from_its_own_rows_only():
    layer = built_layer()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(np.ones((4, 4), "float32"), tf.constant([0, 0, 1, 1])) - 1.0))
    gradients = tape.gradient(loss, [kernel.value for kernel in layer.kernels])
    assert [bool(np.any(np.asarray(g))) for g in gradients] == [True, True, False]


def test_no_two_kernels_start_equal():
    kernels = [np.asarray(k) for k in built_layer().kernels]
    assert not any(np.array_equal(kernels[i], kernels[j]) for i in range(3) for j in range(i))


def test_the_bias_starts_where_it_is_told_and_is_saved_so():
    layer = RoutedDense(5, 3, bias_initializer="ones")
    again = RoutedDense.from_config(layer.get_config())
    again.build((None, 4))
    assert all(np.asarray(bias).tolist() == [1.0] * 5 for bias in again.biases)

"""SparseAdam and RowWiseAdagrad: equal to Keras's where every row is touched, and touching no other row."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tfmtr.optimizers.clippy_adagrad import ClippyAdagrad
from tfmtr.optimizers.row_wise_adagrad import RowWiseAdagrad
from tfmtr.optimizers.sparse_adam import SparseAdam

tf = pytest.importorskip("tensorflow")
ALL = [SparseAdam, RowWiseAdagrad, ClippyAdagrad]


def table(values):
    layer = keras.layers.Embedding(*np.shape(values))
    layer.build()
    layer.embeddings.assign(values)
    return layer.embeddings


def rows(indices, values, size):
    values = np.asarray(values, "float32")
    return tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant([size, values.shape[1]]))


def start(size=6, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(size, width)).astype("float32")


def test_sparse_adam_is_keras_s_adam_where_every_row_is_touched():
    rng = np.random.default_rng(1)
    pairs = []
    for optimizer in (SparseAdam(0.05), keras.optimizers.Adam(0.05)):
        pairs.append((optimizer, table(start()), keras.Variable(start(2, 2))))
    for _ in range(50):
        order, more = np.concatenate([rng.permutation(6), [2, 2]]), rng.normal(size=(8, 3))
        dense = rng.normal(size=(2, 2)).astype("float32")
        for optimizer, embeddings, kernel in pairs:
            gradient = rows(order, more, 6)  # Keras's own does not sum rows that are there twice
            gradient = gradient if isinstance(optimizer, SparseAdam) else tf.convert_to_tensor(gradient)
            optimizer.apply([gradient, tf.constant(dense)], [embeddings, kernel])
    np.testing.assert_allclose(pairs[0][1], pairs[1][1], atol=1e-6)
    np.testing.assert_allclose(pairs[0][2], pairs[1][2], atol=1e-6)


def test_a_dense_gradient_of_a_table_is_keras_s_adam_too():
    found = []
    for optimizer in (SparseAdam(0.05), keras.optimizers.Adam(0.05)):
        embeddings = table(start())
        for step in range(5):
            optimizer.apply([tf.constant(start(seed=step))], [embeddings])
        found.append(np.asarray(embeddings))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_sparse_adam_s_moments_wait_by_hand():
    embeddings, optimizer, w = table(start()), SparseAdam(0.1), start().astype(float)
    m, v = np.zeros((6, 3)), np.zeros((6, 3))
    for step, (indices, values) in enumerate(
        [([0, 3], [[1.0, 2, 3], [4, 5, 6]]), ([3, 3], [[1.0, 1, 1], [1, -1, 0]]), ([0], [[-1.0, 0, 2]])], start=1
    ):
        optimizer.apply([rows(indices, values, 6)], [embeddings])
        for row in set(indices):
            g = sum(np.asarray(value, float) for i, value in zip(indices, values, strict=True) if i == row)
            m[row] = 0.9 * m[row] + 0.1 * g
            v[row] = 0.999 * v[row] + 0.001 * g**2
            rate = 0.1 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            w[row] -= rate * m[row] / (np.sqrt(v[row]) + 1e-7)
        np.testing.assert_allclose(embeddings, w, atol=1e-5)


def test_row_wise_adagrad_by_hand():
    embeddings, kernel = table(start()), keras.Variable(start(2, 2))
    options = {"initial_accumulator_value": 0.1, "epsilon": 1e-7}  # Keras's own
    optimizer, plain = RowWiseAdagrad(0.1, **options), keras.optimizers.Adagrad(0.1)
    reference, w, a = keras.Variable(start(2, 2)), start().astype(float), np.full(6, 0.1)
    for indices, values in [([0, 3], [[1.0, 2, 3], [4, 5, 6]]), ([3, 3], [[1.0, 1, 1], [1, -1, 0]])]:
        optimizer.apply([rows(indices, values, 6), tf.constant(start(2, 2, 9))], [embeddings, kernel])
        plain.apply([tf.constant(start(2, 2, 9))], [reference])
        for row in set(indices):
            g = sum(np.asarray(value, float) for i, value in zip(indices, values, strict=True) if i == row)
            a[row] += np.mean(g**2)
            w[row] -= 0.1 * g / np.sqrt(a[row] + 1e-7)
        np.testing.assert_allclose(embeddings, w, atol=1e-5)
    np.testing.assert_allclose(kernel, reference, atol=1e-6)  # dense weights as Keras has it
    dense, expected = table(start()), start() - 0.1 * 1 / np.sqrt(0.1 + 1 + 1e-7)
    RowWiseAdagrad(0.1, **options).apply([tf.ones((6, 3))], [dense])
    np.testing.assert_allclose(dense, expected, atol=1e-5)


def test_row_wise_adagrad_moves_by_the_small_gradients_of_a_mean():
    """Its step does not depend on the gradient's scale, as that of Keras's start and epsilon would."""
    for scale in (1e-5, 1.0):
        embeddings = table(start())
        RowWiseAdagrad(0.1).apply([rows([2], [[scale, scale, scale]], 6)], [embeddings])
        np.testing.assert_allclose(start()[2] - np.asarray(embeddings)[2], [0.1] * 3, rtol=0.01)


def test_the_state_of_row_wise_adagrad_is_one_number_a_row():
    embeddings = table(start())
    optimizer = RowWiseAdagrad(0.1)
    optimizer.build([embeddings])
    assert [tuple(v.shape) for v in optimizer.variables[2:]] == [(6, 1)]


@pytest.mark.parametrize("make", ALL)
def test_no_other_row_is_written(make):
    embeddings, optimizer = table(start()), make(0.1)
    optimizer.apply([rows([1, 4, 1], np.ones((3, 3)), 6)], [embeddings])
    state = [np.asarray(v) for v in optimizer.variables if len(v.shape) == 2]
    optimizer.apply([rows([2], np.ones((1, 3)), 6)], [embeddings])
    moved = np.any(np.asarray(embeddings) != start(), axis=1)
    np.testing.assert_array_equal(moved, [False, True, True, False, True, False])
    for before, after in zip(state, [v for v in optimizer.variables if len(v.shape) == 2], strict=True):
        np.testing.assert_array_equal(np.any(before != np.asarray(after), axis=1), np.arange(6) == 2)


EPSILON = {SparseAdam: {"epsilon": 1.0}}  # otherwise the first step does not depend on the gradient's scale


def clipped(gradients, kind):
    """What Keras's optimizers do to dense gradients."""
    if kind == "clipvalue":
        return [np.clip(g, -0.1, 0.1) for g in gradients]
    norms = [np.linalg.norm(g) for g in gradients]
    if kind == "clipnorm":
        return [g * min(1, 0.5 / norm) for g, norm in zip(gradients, norms, strict=True)]
    return [g * min(1, 0.7 / np.linalg.norm(norms)) for g in gradients]


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("clip", [{"clipnorm": 0.5}, {"global_clipnorm": 0.7}, {"clipvalue": 0.1}])
def test_clipping_sees_each_row_once(make, clip):
    gradient, dense = rows([1, 1, 3], [[3.0, 0, 0], [1.0, 0, 0], [0, 2, 0]], 6), tf.constant(start(2, 2))
    whole = tf.convert_to_tensor(gradient)
    small = [tf.constant(g, tf.float32) for g in clipped([whole.numpy(), dense.numpy()], *clip)]
    found = []
    for options, gradients in ((clip, [gradient, dense]), (clip, [whole, dense]), ({}, small)):
        embeddings, kernel, optimizer = (
            table(start()),
            keras.Variable(start(2, 2)),
            make(0.1, **options, **EPSILON.get(make, {})),
        )
        optimizer.apply(gradients, [embeddings, kernel])
        found.append((np.asarray(embeddings), np.asarray(kernel)))
    for sparse, dense, expected in zip(*found, strict=True):
        np.testing.assert_allclose(sparse, dense, atol=1e-6)
        np.testing.assert_allclose(dense, expected, atol=1e-6)


@pytest.mark.parametrize("make", ALL)
def test_averages_of_weights_and_configuration(make, tmp_path):
    embeddings, optimizer = table(start()), make(0.1, use_ema=True, ema_momentum=0.5)
    optimizer.apply([rows([1], np.ones((1, 3)), 6)], [embeddings])
    average = np.asarray(optimizer._model_variables_moving_average[0])
    assert np.any(average[1] != start()[1])
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is make
    assert again.get_config() == optimizer.get_config()


def model(optimizer):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(50, 4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(optimizer, "mse", jit_compile=False)
    return model


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_learns_under_fit_and_goes_on_from_a_checkpoint(make, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 50, (400, 2))
        y = rng.normal(size=50)[x].sum(axis=1)
        options = {"learning_rate": 1.0, "absolute": 0.02} if make is ClippyAdagrad else {"learning_rate": 0.05}
        one, how = model(make(**options)), {"epochs": 3, "batch_size": 40, "verbose": 0, "shuffle": False}
        first = one.fit(x, y, **how).history["loss"]
        one.save(tmp_path / "model.keras")
        then = one.fit(x, y, **how).history["loss"]
        assert then[-1] < 0.95 * first[0]
        again = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(again.fit(x, y, **how).history["loss"], then, rtol=1e-3)
    finally:
        keras.config.set_dtype_policy("float32")


MIRRORED = """
import sys, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from tfmtr.optimizers.sparse_adam import SparseAdam
from tfmtr.optimizers.row_wise_adagrad import RowWiseAdagrad

def losses(strategy, make):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.Input((2,), dtype="int32")
        x = keras.layers.Flatten()(keras.layers.Embedding(50, 4)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(1)(x))
        model.compile(make(0.05), "mse", jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 50, (80, 2))
    y = rng.normal(size=50)[x].sum(axis=1)
    return model.fit(x, y, epochs=5, batch_size=40, verbose=0, shuffle=False).history["loss"]

for make in (SparseAdam, RowWiseAdagrad):
    one = losses(tf.distribute.get_strategy(), make)
    two = losses(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), make)
    np.testing.assert_allclose(one, two, rtol=1e-3)
print("same")
"""


def test_two_replicas_learn_what_one_learns():
    found = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, check=False)
    assert found.stdout.strip().endswith("same"), found.stderr[-2000:]


def test_bad_input():
    with pytest.raises(ValueError, match="`amsgrad` is not for row-sparse moments"):
        SparseAdam(amsgrad=True)

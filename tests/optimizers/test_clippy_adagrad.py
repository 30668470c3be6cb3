import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tfmtr.optimizers.clippy_adagrad import ClippyAdagrad

tf = pytest.importorskip("tensorflow")
NAMES = {"relative": "variable_relative_threshold", "accumulated": "accumulator_relative_threshold",
         "absolute": "absolute_threshold", "clip_accumulator": "clip_accumulator_update"}  # fmt: skip
THEIRS = """
import json, sys
import numpy as np, tensorflow as tf
from tensorflow_recommenders.experimental.optimizers import clippy_adagrad
found = []
for options in json.loads(sys.argv[1]):
    rng = np.random.default_rng(0)
    w, table = (tf.Variable(rng.normal(size=size), dtype=tf.float32) for size in ((4, 3), (9, 2)))
    optimizer = clippy_adagrad.ClippyAdagrad(0.5, **options)
    for step in range(50):
        g = tf.constant(rng.normal(size=(4, 3)) * 10 ** rng.uniform(-3, 2), tf.float32)
        values = tf.constant(rng.normal(size=(3, 2)), tf.float32)
        rows = tf.IndexedSlices(values, tf.constant(rng.permutation(9)[:3]), tf.constant([9, 2]))
        optimizer.apply_gradients([(g, w), (rows, table)])
    found.append([w.numpy().tolist(), table.numpy().tolist()])
print(json.dumps(found))
"""
OPTIONS = [{}, {"relative": 0.02, "accumulated": 1e-3, "absolute": 1e-4}, {"clip_accumulator": True}]


@pytest.fixture(scope="module")
def theirs():
    """What their optimizer makes of two variables, for each of the options."""
    options = json.dumps([{NAMES[name]: value for name, value in one.items()} for one in OPTIONS])
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.run(
        [sys.executable, "-c", THEIRS, options], capture_output=True, text=True, check=True, env=environment
    ).stdout
    return json.loads(output.splitlines()[-1])


@pytest.mark.parametrize("place", range(len(OPTIONS)))
def test_fifty_steps_are_those_of_tensorflow_recommenders(theirs, place):
    options, expected = OPTIONS[place], theirs[place]
    rng = np.random.default_rng(0)
    w, layer = keras.Variable(rng.normal(size=(4, 3))), keras.layers.Embedding(9, 2)
    layer.build()
    layer.embeddings.assign(rng.normal(size=(9, 2)))
    optimizer = ClippyAdagrad(0.5, **options)
    for _ in range(50):
        g = tf.constant(rng.normal(size=(4, 3)) * 10 ** rng.uniform(-3, 2), tf.float32)
        values = tf.constant(rng.normal(size=(3, 2)), tf.float32)
        rows = tf.IndexedSlices(values, tf.constant(rng.permutation(9)[:3]), tf.constant([9, 2]))
        optimizer.apply([g, rows], [w, layer.embeddings])
    np.testing.assert_allclose(w, expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.embeddings, expected[1], rtol=1e-4, atol=1e-6)


def test_no_weight_changes_by_more_than_its_limit_and_the_direction_is_kept():
    before = np.asarray([1.0, -2.0, 0.5])
    w, g = keras.Variable(before), np.asarray([100.0, 1.0, -3.0])
    ClippyAdagrad(1.0, relative=0.1, absolute=0.01).apply([tf.constant(g, tf.float32)], [w])
    change = before - np.asarray(w)
    limit = 0.1 * np.abs(before) + 0.01
    assert np.all(np.abs(change) <= limit * (1 + 1e-5))
    assert np.max(np.abs(change) / limit) == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(change / np.linalg.norm(change), g / np.linalg.norm(g), rtol=1e-4)


def test_bad_input():
    with pytest.raises(ValueError, match=r"`relative` must not be negative. Received: relative=-1"):
        ClippyAdagrad(relative=-1)

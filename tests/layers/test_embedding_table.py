import keras
import numpy as np
import pytest

from tfmtr.layers.embedding_table import EmbeddingTable
from tfmtr.optimizers.sparse_adam import SparseAdam

tf = pytest.importorskip("tensorflow")


def test_the_same_rows_weights_and_gradient_as_keras_s_embedding(tmp_path):
    ids, found = np.asarray([[0, 3], [3, 1]]), []
    for make in (EmbeddingTable, keras.layers.Embedding):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((2,), dtype="int32")
        model = keras.Model(inputs, make(4, 3)(inputs))
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(ids) ** 2)
        gradient = tape.gradient(total, [model.trainable_variables[0].value])[0]
        assert isinstance(gradient, tf.IndexedSlices)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        found.append((model(ids), tf.convert_to_tensor(gradient), again(ids), model.output_shape))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_lookup_reads_no_more_than_its_rows():
    """TensorFlow copies a variable that is read as a whole after single rows of it were written."""
    layer = EmbeddingTable(10, 2)
    graph = tf.function(lambda ids: layer(ids)).get_concrete_function(tf.TensorSpec([None], tf.int32)).graph
    kinds = {node.type for node in graph.get_operations()}
    assert "ResourceGather" in kinds
    assert "ReadVariableOp" not in kinds


def test_mixed_precision_casts_the_rows():
    layer = EmbeddingTable(10, 2, dtype="mixed_bfloat16")
    assert layer(np.asarray([1])).dtype == "bfloat16"
    assert layer.embeddings.dtype == "float32"


def test_trains_with_a_row_sparse_optimizer():
    inputs = keras.Input((), dtype="int32")
    model = keras.Model(inputs, keras.layers.Dense(1)(EmbeddingTable(20, 4)(inputs)))
    model.compile(SparseAdam(0.1), "mse", jit_compile=False)
    x = np.arange(20) % 5
    before = np.asarray(model.layers[1].embeddings)
    losses = model.fit(x, x * 1.0, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
    np.testing.assert_array_equal(np.any(before != np.asarray(model.layers[1].embeddings), axis=1), np.arange(20) < 5)


def test_bad_input():
    with pytest.raises(ValueError, match="`input_dim` must be a positive integer"):
        EmbeddingTable(0, 4)

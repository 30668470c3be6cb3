import numpy as np
import pytest

from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.retrieval.indexes.exact import ExactIndex
from tfmtr.retrieval.indexes.streaming import StreamingIndex

tf = pytest.importorskip("tensorflow")
RNG = np.random.default_rng(0)
VECTORS = RNG.integers(-2, 3, (50, 6)).astype("float32")  # whole numbers, so that scores are exact and many are equal
QUERY = RNG.integers(-2, 3, (4, 6)).astype("float32")
CATALOGUE = Catalogue([f"t{i}" for i in range(50)], {"DE": np.ones(50, bool)})
ALLOWED = RNG.random((4, 50)) < np.asarray([[1.0], [0.5], [0.1], [0.0]])
K = np.asarray([50, 7, 10, 3], "int32")


@pytest.fixture
def file(tmp_path):
    VECTORS.tofile(tmp_path / "vectors")
    return tmp_path / "vectors"


@pytest.mark.parametrize("chunk", [7, 10, 50, 8192])  # with and without a rest, one chunk and less than one
def test_finds_what_numpy_finds(file, chunk):
    index = StreamingIndex(CATALOGUE, file, chunk=chunk)
    found = {name: value.numpy() for name, value in index(tf.constant(QUERY), tf.constant(K), ALLOWED).items()}
    for row in range(4):
        scores = np.where(ALLOWED[row], VECTORS @ QUERY[row], -np.inf)
        order = [i for i in np.argsort(-scores, kind="stable") if scores[i] > -np.inf][: K[row]]
        assert found["index"][row][: len(order)].tolist() == order
        np.testing.assert_array_equal(found["scores"][row][: len(order)], scores[order])
        assert np.all(found["scores"][row][len(order) :] == -np.inf)
    assert found["is_exact"].tolist() == [True] * 4
    candidates = found["index"][:, :9]
    np.testing.assert_array_equal(index.vectors_of(tf.constant(candidates)), VECTORS[candidates])


def test_equal_scores_come_in_the_order_of_the_exact_index(file):
    arguments = (tf.constant(QUERY), tf.constant(K), tf.constant(ALLOWED))
    exact, streaming = ExactIndex(CATALOGUE, VECTORS)(*arguments), StreamingIndex(CATALOGUE, file, chunk=8)(*arguments)
    np.testing.assert_array_equal(streaming["scores"], exact["scores"])
    is_there = streaming["scores"].numpy() > -np.inf
    np.testing.assert_array_equal(streaming["index"].numpy()[is_there], exact["index"].numpy()[is_there])


def test_scores_of_all_titles_are_never_there_at_once(file):
    index = tf.function(StreamingIndex(CATALOGUE, file, chunk=7))
    graph = index.get_concrete_function(QUERY, K, ALLOWED).graph.as_graph_def()
    matmul = [node for function in graph.library.function for node in function.node_def if node.op == "MatMul"]
    assert len(matmul) == 1
    assert "MatMul" not in {node.op for node in graph.node}  # only within the reduction, chunk by chunk
    assert "ReduceDataset" in {node.op for node in graph.node}


def test_no_rows_give_no_rows(file):
    found = StreamingIndex(CATALOGUE, file)(tf.zeros([0, 6]), tf.zeros([0], tf.int32), tf.zeros([0, 50], tf.bool))
    assert found["index"].shape == (0, 0)


def test_a_file_that_does_not_fit_the_catalogue_is_refused(tmp_path):
    VECTORS[:49].tofile(tmp_path / "vectors")
    with pytest.raises(ValueError, match=r"`file` must hold float32 of shape \(50, d\).*vectors of 1176 bytes"):
        StreamingIndex(CATALOGUE, tmp_path / "vectors")


def test_a_k_out_of_range_is_refused(file):
    with pytest.raises(tf.errors.InvalidArgumentError, match="`k` must be at most 50"):
        StreamingIndex(CATALOGUE, file)(tf.constant(QUERY), tf.constant([51, 1, 1, 1]), ALLOWED)

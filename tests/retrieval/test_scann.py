import os
import sys

import numpy as np
import pytest

from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.retrieval.indexes.scann import SMALLEST_TREE, ScannIndex

tf = pytest.importorskip("tensorflow")
TITLES, WIDTH = 3000, 16
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(100, WIDTH))


def draw(rows):
    return (CENTRES[RNG.integers(0, 100, rows)] + 0.3 * RNG.normal(size=(rows, WIDTH))).astype("float32")


VECTORS, QUERY = draw(TITLES), draw(32)
SCORES = QUERY @ VECTORS.T


@pytest.fixture(scope="module")
def index():
    return ScannIndex(Catalogue([f"t{i}" for i in range(TITLES)], {"DE": np.ones(TITLES, bool)}), VECTORS)


def search(index, k, allowed, query=QUERY):
    k = np.broadcast_to(np.asarray(k, "int32"), len(query))
    found = index(tf.constant(query), tf.constant(k), tf.constant(allowed))
    return {name: value.numpy() for name, value in found.items()}


def recall(found, allowed, k):
    best = np.argsort(-np.where(allowed, SCORES, -np.inf), axis=1)[:, :k]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(found["index"], best, strict=True)])


def test_finds_most_of_what_numpy_finds_and_does_not_call_it_exact(index):
    everything = np.ones((32, TITLES), bool)
    found = search(index, 10, everything)
    assert recall(found, everything, 10) > 0.9
    np.testing.assert_allclose(found["scores"], np.take_along_axis(SCORES, found["index"], axis=1), rtol=1e-4)
    assert np.all(np.diff(found["scores"], axis=1) <= 0)
    assert not np.any(found["is_exact"])


def test_every_row_of_a_batch_has_its_own_filter(index):
    share = np.asarray([1.0, 0.7, 0.01, 0.0] * 8)[:, None]
    allowed = np.random.default_rng(1).random((32, TITLES)) < share
    k = np.asarray([10, 5, 8, 3] * 8)
    found = search(index, k, allowed)
    for row in range(32):
        count = min(k[row], allowed[row].sum())
        assert np.sum(found["scores"][row] > -np.inf) == count  # k come back whenever k exist
        assert np.all(allowed[row][found["index"][row][:count]])
        assert found["is_exact"][row] == (share[row, 0] <= 0.01)
        if found["is_exact"][row]:
            order = np.argsort(-np.where(allowed[row], SCORES[row], -np.inf))[:count]
            assert found["index"][row][:count].tolist() == order.tolist()


def test_more_is_fetched_until_there_is_enough_though_the_best_are_filtered(index, monkeypatch):
    rank = np.argsort(np.argsort(-SCORES, axis=1), axis=1)
    fetched = []
    searcher = type(index.searcher())
    plain = searcher.search_batched_parallel
    monkeypatch.setattr(
        searcher,
        "search_batched_parallel",
        lambda self, q, m, *rest: fetched.append(int(m)) or plain(self, q, m, *rest),
    )
    allowed = rank >= 30  # without each query's thirty best
    found = search(index, 10, allowed)
    assert fetched == [20, 40]
    assert recall(found, allowed, 10) > 0.8
    assert not np.any(found["is_exact"])
    allowed = rank >= TITLES // 2  # without the better half: fetching costs more than searching the others
    found = search(index, 10, allowed)
    assert len(fetched) == 4
    assert recall(found, allowed, 10) == 1.0
    assert np.all(found["is_exact"])


def test_small_leaves_and_few_reordered_candidates_do_not_spoil_an_answer(index):
    small = ScannIndex(index.catalogue, VECTORS, leaves=100, leaves_to_search=1)  # fewer titles than are fetched
    found = search(small, 40, np.ones((32, TITLES), bool))
    assert np.all(np.isfinite(found["scores"]))
    assert all(len(set(row)) == 40 for row in found["index"].tolist())
    assert 0 < np.sum(found["is_exact"]) < 32  # where they were fewer than 40 too
    few = ScannIndex(index.catalogue, VECTORS, leaves_to_search=27, reorder=20)
    assert not np.any(search(few, 20, np.random.default_rng(1).random((32, TITLES)) < 0.8)["is_exact"])


def test_all_titles_can_be_asked_for(index):
    found = search(index, TITLES, np.ones((2, TITLES), bool), QUERY[:2])
    np.testing.assert_array_equal(found["index"], np.argsort(-SCORES[:2], axis=1))
    assert np.all(found["is_exact"])


def test_catalogues_too_small_for_a_tree_are_searched_exactly():
    size = SMALLEST_TREE - 1
    index = ScannIndex(Catalogue([f"t{i}" for i in range(size)], {"DE": np.ones(size, bool)}), VECTORS[:size])
    found = search(index, 10, np.ones((32, size), bool))
    np.testing.assert_array_equal(found["index"], np.argsort(-SCORES[:, :size], axis=1)[:, :10])
    assert np.all(found["is_exact"])
    few = ScannIndex(Catalogue(["a", "b"], {"DE": np.ones(2, bool)}), VECTORS[:2])
    assert search(few, 2, np.ones((1, 2), bool), QUERY[:1])["index"].shape == (1, 2)


def test_no_rows_give_no_rows(index):
    assert search(index, [], np.zeros((0, TITLES), bool), QUERY[:0])["index"].shape == (0, 0)


def test_agrees_with_tensorflow_recommenders_where_nothing_is_filtered():
    """With all leaves and all candidates both are exact in effect; the peer's layer cannot fetch more than it has."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    factorized_top_k = pytest.importorskip("tensorflow_recommenders").layers.factorized_top_k
    peer = factorized_top_k.ScaNN(num_leaves=20, num_leaves_to_search=20, num_reordering_candidates=TITLES)
    peer.index(tf.constant(VECTORS))
    catalogue = Catalogue([f"t{i}" for i in range(TITLES)], {"DE": np.ones(TITLES, bool)})
    ours = ScannIndex(catalogue, VECTORS, leaves=20, leaves_to_search=20, reorder=TITLES)
    scores, titles = peer(tf.constant(QUERY), k=7)
    found = search(ours, 7, np.ones((32, TITLES), bool))
    np.testing.assert_array_equal(found["index"], titles)
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-5)
    few = factorized_top_k.ScaNN(num_leaves=20, num_leaves_to_search=20, num_reordering_candidates=50)
    assert few.index(tf.constant(VECTORS))(tf.constant(QUERY), k=100)[1].shape == (32, 50)


def test_vectors_of_candidates(index):
    candidates = RNG.integers(0, TITLES, (3, 4))
    np.testing.assert_array_equal(index.vectors_of(tf.constant(candidates)), VECTORS[candidates])


def test_bad_input_is_refused(index, monkeypatch):
    with pytest.raises(tf.errors.InvalidArgumentError, match="`k` must be at most 3000"):
        search(index, TITLES + 1, np.ones((32, TITLES), bool))
    with pytest.raises(ValueError, match=r"`vectors` must have shape \(3000, d\).*Received: \(2999, 16\)"):
        ScannIndex(index.catalogue, VECTORS[1:])
    monkeypatch.setitem(sys.modules, "scann.scann_ops.py", None)
    with pytest.raises(ValueError, match=r"ScaNN is needed; install it with: pip install 'tfmtr\[scann\]'"):
        ScannIndex(index.catalogue, VECTORS)

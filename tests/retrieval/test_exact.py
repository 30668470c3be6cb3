import os

import numpy as np
import pytest

from tfmtr.retrieval.exact import ExactIndex

tf = pytest.importorskip("tensorflow")
TITLES = [f"t{i}" for i in range(40)]
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(40, 6)).astype("float32")
AVAILABLE = {"DE": np.arange(40) % 2 == 0, "FR": np.arange(40) < 3, "PL": np.arange(40) % 3 == 0}
QUERY = RNG.normal(size=(3, 6)).astype("float32")


@pytest.fixture(scope="module")
def index():
    return ExactIndex(TITLES, VECTORS, AVAILABLE)


def search(index, query=QUERY, territory=("DE", "FR", "DE"), seen=(("",),) * 3, k=(5, 5, 2)):
    answer = index(query, tf.constant(territory), tf.constant(seen), tf.constant(k, tf.int32))
    return answer["titles"].numpy().astype(str), answer["scores"].numpy(), answer["count"].numpy()


def expected(query, allowed, k):
    order = [i for i in np.argsort(-(VECTORS @ query), kind="stable") if allowed[i]][:k]
    return [TITLES[i] for i in order], [float(VECTORS[i] @ query) for i in order]


def test_returns_the_best_available_titles(index):
    titles, scores, count = search(index)
    for row, (territory, k) in enumerate([("DE", 5), ("FR", 5), ("DE", 2)]):
        best, best_scores = expected(QUERY[row], AVAILABLE[territory], k)
        assert list(titles[row, : len(best)]) == best
        np.testing.assert_allclose(scores[row, : len(best)], best_scores, rtol=1e-5)
        assert set(titles[row, len(best) :]) <= {""}
    assert list(count) == [5, 3, 2]  # FR has three titles


def test_seen_titles_are_left_out_and_k_still_come_back(index):
    best, _ = expected(QUERY[0], AVAILABLE["DE"], 20)
    titles, _, count = search(index, QUERY[:1], ["DE"], [[*best[:4], "unknown", "", best[0]]], [6])
    assert list(titles[0]) == best[4:10]
    assert list(count) == [6]


def test_an_unknown_territory_gets_what_most_territories_have(index):
    titles, _, count = search(index, QUERY[:1], ["??"], [[""]], [40])
    common = np.sum(list(AVAILABLE.values()), axis=0) >= 2
    assert set(titles[0][: count[0]]) == {TITLES[i] for i in np.flatnonzero(common)}


def test_no_rows_give_no_rows(index):
    titles, _, count = search(
        index, np.zeros((0, 6), "float32"), np.zeros(0, object).astype(str), np.zeros((0, 1), str), []
    )
    assert titles.shape == (0, 0)
    assert count.shape == (0,)


def test_agrees_with_tensorflow_recommenders_where_nothing_is_filtered():
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    factorized_top_k = pytest.importorskip("tensorflow_recommenders").layers.factorized_top_k
    peer = factorized_top_k.BruteForce().index(tf.constant(VECTORS), tf.constant(TITLES))
    scores, titles = peer(tf.constant(QUERY), k=7)
    ours = search(ExactIndex(TITLES, VECTORS, {"all": np.ones(40, bool)}), territory=["all"] * 3, k=[7] * 3)
    np.testing.assert_array_equal(ours[0], titles.numpy().astype(str))
    np.testing.assert_allclose(ours[1], scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("k", "message"),
    [(41, "`k` must be at most 40, the number of titles in the index"), (0, "`k` must be positive")],
)
def test_refuses_a_k_out_of_range(index, k, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        search(index, k=[k, 1, 1])


def test_refuses_titles_that_repeat_and_masks_of_another_size():
    with pytest.raises(ValueError, match=r"`titles` must be different ids.*40 ids \(1 different\)"):
        ExactIndex(["a"] * 40, VECTORS, AVAILABLE)
    with pytest.raises(ValueError, match=r"`availability` must have shape \(40,\).*'DE' with shape \(3,\)"):
        ExactIndex(TITLES, VECTORS, {"DE": np.ones(3, bool)})

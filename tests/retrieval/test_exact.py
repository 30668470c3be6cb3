import os

import numpy as np
import pytest

from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.retrieval.indexes.exact import ExactIndex, search_allowed
from tfmtr.retrieval.recommender import OPTIONS, Recommender

tf = pytest.importorskip("tensorflow")
TITLES = [f"t{i}" for i in range(40)]
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(40, 6)).astype("float32")
AVAILABLE = {"DE": np.arange(40) % 2 == 0, "FR": np.arange(40) < 3, "PL": np.arange(40) % 3 == 0}
QUERY = RNG.normal(size=(3, 6)).astype("float32")


def make(availability, attributes=None, **options):
    return Recommender(ExactIndex(Catalogue(TITLES, availability, attributes), VECTORS), **options)


@pytest.fixture(scope="module")
def index():
    return make(AVAILABLE)


def ask(
    index,
    query=QUERY,
    territory=("DE", "FR", "DE"),
    seen=(("",),) * 3,
    k=(5, 5, 2),
    queries=None,
    unknown=(),
    **options,
):
    options = {name: options.get(name, default) for name, (_, default) in OPTIONS.items()} | options
    dtypes = {"diversity": tf.float32}
    request = {name: tf.constant(value, dtypes.get(name, tf.string)) for name, value in options.items()}
    request |= {"request_territory": tf.constant(territory), "seen": tf.constant(seen), "k": tf.constant(k, tf.int32)}
    return {name: value.numpy() for name, value in index(query, request, queries, *map(tf.constant, unknown)).items()}


def search(index, *arguments, **options):
    answer = ask(index, *arguments, **options)
    return answer["titles"].astype(str), answer["scores"], answer["count"]


def expected(query, allowed, k):
    order = [i for i in np.argsort(-(VECTORS @ query), kind="stable") if allowed[i]][:k]
    return [TITLES[i] for i in order], [float(VECTORS[i] @ query) for i in order]


@pytest.mark.parametrize("others", [False, True], ids=["few", "many"])
def test_where_there_are_no_more_titles_the_position_is_0(others):
    allowed = np.zeros((2, 40), bool)
    allowed[0, [7, 9]] = True
    allowed[1] = others
    scores, index = search_allowed(*map(tf.constant, (QUERY[:2], VECTORS, allowed)), tf.constant(4))
    assert np.isneginf(scores[0]).tolist() == [False, False, True, True]
    assert set(np.asarray(index)[0, :2]) == {7, 9}
    assert np.asarray(index)[0, 2:].tolist() == [0, 0]


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
    ours = search(make({"all": np.ones(40, bool)}), territory=["all"] * 3, k=[7] * 3)
    np.testing.assert_array_equal(ours[0], titles.numpy().astype(str))
    np.testing.assert_allclose(ours[1], scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("k", "message"),
    [(41, "`k` must be at most 40, the number of titles in the index"), (0, "`k` must be positive")],
)
def test_refuses_a_k_out_of_range(index, k, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        search(index, k=[k, 1, 1])


GENRES = [["Comedy"] if i % 5 == 0 else ["Horror", "Comedy"] if i % 7 == 0 else ["Drama"] for i in range(40)]
RATINGS = [["12" if i % 2 else "18"] for i in range(40)]
ALL = {"all": np.ones(40, bool)}


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        (["genres=Comedy"], lambda genres, rating: "Comedy" in genres),
        (["genres=Comedy", "genres=Horror"], lambda genres, rating: {"Comedy", "Horror"} & set(genres)),
        (["genres=Comedy", "rating=12"], lambda genres, rating: "Comedy" in genres and rating == "12"),
        (["genres!=Horror", ""], lambda genres, rating: "Horror" not in genres),
        (["rating=12", "genres!=Horror"], lambda genres, rating: rating == "12" and "Horror" not in genres),
        (["genres!=Western"], lambda genres, rating: True),
        (["genres=Western"], lambda genres, rating: False),
        (["genres=Western", "genres=Drama"], lambda genres, rating: "Drama" in genres),
    ],
)
def test_conditions_are_part_of_the_search(where, fits):
    index = make(ALL, {"genres": GENRES, "rating": RATINGS})
    allowed = np.asarray([bool(fits(GENRES[i], RATINGS[i][0])) for i in range(40)])
    titles, _, count = search(index, QUERY[:2], ["all"] * 2, [[""]] * 2, [40] * 2, where=[where])  # one row for both
    for row in range(2):
        best, _ = expected(QUERY[row], allowed, 40)
        assert list(titles[row][: count[row]]) == best
        assert count[row] == allowed.sum()


def test_an_attribute_that_titles_do_not_have_is_refused():
    index = make(ALL, {"genres": GENRES})
    for where in ("color=red", "genres", "=Comedy"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="`where` must be attribute=value"):
            search(index, where=[[where]])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"of the attributes \[\]"):
        search(make(ALL), where=[["genres=Comedy"]])


def test_allow_lists(index):
    allow = [["t2", "t4", "t5", "no"], ["", "", "", ""], ["no", "", "", ""]]
    titles, _, count = search(index, k=[5, 5, 5], allow=allow)
    assert set(titles[0][: count[0]]) == {"t2", "t4"}  # t5 is not available
    assert list(count) == [2, 3, 0]
    assert list(titles[1][:3]) == expected(QUERY[1], AVAILABLE["FR"], 3)[0]


def mmr(query, allowed, k, candidates, diversity):
    order = [i for i in np.argsort(-(VECTORS @ query), kind="stable") if allowed[i]][:candidates]
    s = VECTORS[order] @ query
    s = (s - s.min()) / (s.max() - s.min())
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    chosen, likest = [], np.zeros(len(order))
    while len(chosen) < k:
        value = (1 - diversity) * s - diversity * likest
        value[chosen] = -np.inf
        chosen.append(int(np.argmax(value)))
        likest = np.max(unit[order] @ unit[[order[i] for i in chosen]].T, axis=1)
    return [TITLES[order[j]] for j in chosen]


def test_a_diversified_list_is_that_of_maximal_marginal_relevance(index):
    answer = ask(index, k=[5, 3, 4], diversity=[0.7, 0.0, 0.0])
    titles = answer["titles"].astype(str)
    assert list(titles[0]) == mmr(QUERY[0], AVAILABLE["DE"], 5, 20, 0.7)
    assert list(titles[2][:4]) == expected(QUERY[2], AVAILABLE["DE"], 4)[0]  # others are as they were
    assert answer["is_exact"].tolist() == [False, True, True]
    by_title = dict(zip(TITLES, VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True), strict=True))

    def likeness(titles):
        v = np.asarray([by_title[title] for title in titles])
        return np.sort((v @ v.T)[np.triu_indices(len(v), 1)])[-3:].mean()

    assert likeness(titles[0]) < likeness(expected(QUERY[0], AVAILABLE["DE"], 5)[0])
    few = ask(index, QUERY[:1], ["FR"], [[""]], [5], diversity=[1.0])  # three titles: none twice, none made up
    assert sorted(few["titles"].astype(str)[0]) == ["", "", "t0", "t1", "t2"]


@pytest.mark.parametrize("diversity", [-0.1, 1.5, np.nan])
def test_a_diversity_that_is_no_share_is_refused(index, diversity):
    with pytest.raises(tf.errors.InvalidArgumentError, match="`diversity` must be from 0 to 1"):
        ask(index, diversity=[diversity])


def test_a_product_of_probabilities_ranks_the_candidates_again():
    """As a cascade's: the sum of the logits finds candidates, their product of probabilities decides."""
    rng = np.random.default_rng(1)
    queries = {tower: rng.normal(size=(2, 6)).astype("float32") for tower in ("click", "buy")}
    biases = {"click": -1.0, "buy": 0.5}

    def outputs(logits):
        click, buy = tf.sigmoid(logits["click"]), tf.sigmoid(logits["buy"])
        return {"click": click, "buy": click * buy}

    index = make(ALL, outputs=outputs, biases=biases, names=["click", "buy"])
    query = queries["click"] + queries["buy"]
    options = {"query": query, "territory": ["all"] * 2, "seen": [[""]] * 2, "queries": queries}
    answer = ask(index, k=[10, 10], rank_by=["buy", ""], **options)
    p = 1 / (1 + np.exp(-(queries["click"][0] @ VECTORS.T - 1))) / (1 + np.exp(-(queries["buy"][0] @ VECTORS.T + 0.5)))
    best = np.argsort(-p)[:10]
    assert answer["titles"].astype(str)[0].tolist() == [TITLES[i] for i in best]
    np.testing.assert_allclose(answer["scores"][0], p[best], rtol=1e-4)
    assert answer["titles"].astype(str)[1].tolist() == expected(query[1], np.ones(40, bool), 10)[0]
    assert answer["is_exact"].tolist() == [True, True]  # 4 times 10 candidates are all titles
    assert ask(index, k=[9, 9], rank_by=["buy", ""], **options)["is_exact"].tolist() == [False, True]
    with pytest.raises(tf.errors.InvalidArgumentError, match="`rank_by` must be empty or one of"):
        ask(index, k=[3, 3], rank_by=["like", ""], **options)


@pytest.mark.parametrize("allowed", [1, 7, 40])  # of 64: 7 are few
def test_few_allowed_titles_are_found_as_many_are(allowed):
    vectors = np.random.default_rng(2).integers(-2, 3, (64, 6)).astype("float32")  # many scores are equal
    queries = np.random.default_rng(3).integers(-2, 3, (5, 6)).astype("float32")
    mask = np.zeros((5, 64), bool)
    mask[:, np.random.default_rng(4).permutation(64)[:allowed]] = True
    mask[1] = False
    mask[2, ::2] = False
    index = ExactIndex(Catalogue([f"t{i}" for i in range(64)], {"all": np.ones(64, bool)}), vectors)
    found = index(tf.constant(queries), tf.constant([20] * 5), tf.constant(mask))
    scores, places = found["scores"].numpy(), found["index"].numpy()
    for row in range(5):
        own = np.where(mask[row], vectors @ queries[row], -np.inf)
        order = [i for i in np.argsort(-own, kind="stable") if mask[row, i]][:20]
        assert places[row][: len(order)].tolist() == order
        assert np.all(scores[row][len(order) :] == -np.inf)
    nothing = index(tf.constant(queries), tf.constant([20] * 5), tf.zeros([5, 64], tf.bool))
    assert np.all(nothing["scores"].numpy() == -np.inf)


def test_few_allowed_titles_are_the_only_ones_scored(monkeypatch):
    index = ExactIndex(Catalogue(TITLES, ALL), VECTORS)
    scored = []
    plain = tf.matmul
    monkeypatch.setattr(tf, "matmul", lambda a, b, **o: scored.append(len(b)) or plain(a, b, **o))
    for allowed in (4, 5):
        index(tf.constant(QUERY), tf.constant([2] * 3), tf.constant(np.tile(np.arange(40) < allowed, (3, 1))))
    assert scored == [4, 40]


def test_refuses_titles_that_repeat_and_arrays_of_another_size():
    with pytest.raises(ValueError, match=r"`titles` must be different ids.*40 ids \(1 different\)"):
        Catalogue(["a"] * 40, AVAILABLE)
    with pytest.raises(ValueError, match=r"`availability` must have shape \(40,\).*'DE' with shape \(3,\)"):
        Catalogue(TITLES, {"DE": np.ones(3, bool)})
    with pytest.raises(
        ValueError, match=r"`attributes` must have one list of texts for each of 40 titles.*'genres' with 1"
    ):
        Catalogue(TITLES, AVAILABLE, {"genres": [["Comedy"]]})
    with pytest.raises(
        ValueError, match=r"`vectors` must have shape \(40, d\), one for each title. Received: \(39, 6\)"
    ):
        ExactIndex(Catalogue(TITLES, AVAILABLE), VECTORS[:39])


def test_a_cold_user_gets_what_is_popular_in_the_territory():
    counts = {name: RNG.permutation(400).reshape(40, 10)[:, 0] for name in AVAILABLE}
    index = Recommender(ExactIndex(Catalogue(TITLES, AVAILABLE, popularity=counts), VECTORS))
    territory, is_cold = ["DE", "DE", "XX"], [True, False, True]
    answer = ask(index, territory=territory, seen=[["t0"]] * 3, k=[4, 4, 2], unknown=(is_cold,))
    of_all = sum(counts.values())
    anywhere = np.mean(list(AVAILABLE.values()), axis=0) >= 0.5
    for row, allowed, count, k in ((0, AVAILABLE["DE"], counts["DE"], 4), (2, anywhere, of_all, 2)):
        best = [i for i in np.argsort(-np.float16(np.log1p(count)), kind="stable") if allowed[i] and i != 0][:k]
        assert list(answer["titles"][row, :k].astype(str)) == [TITLES[i] for i in best]
        np.testing.assert_allclose(answer["scores"][row, :k], np.log1p(count[best]), rtol=1e-3)
    assert list(answer["titles"][1].astype(str)) == expected(QUERY[1], AVAILABLE["DE"] & (np.arange(40) > 0), 4)[0]
    assert answer["is_exact"].all()


def test_a_cold_user_s_list_is_not_ranked_by_a_probability():
    index = make(
        AVAILABLE, outputs=lambda logits: {"buy": tf.sigmoid(-logits["buy"])}, biases={"buy": 0.0}, names=["buy"]
    )
    options = {"queries": {"buy": QUERY}, "unknown": ([True, False, False],), "rank_by": ["buy"]}
    scores = ask(index, **options)["scores"]
    assert (scores[0] == 0).all()  # nobody had any: log 1
    assert (scores[2, :2] > 0).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="`rank_by` must be empty or one of"):
        ask(index, **options | {"rank_by": ["like"], "unknown": ([True, True, True],)})


def test_what_was_not_known_is_named(index):
    unknown = ([True, False, False], [True, True, False])
    found = ask(index, territory=["XX", "DE", "DE"], unknown=unknown)["fallback"]
    assert list(found.astype(str)) == ["cold_user,default_branch,unknown_territory", "default_branch", ""]
    assert list(ask(index)["fallback"].astype(str)) == ["", "", ""]

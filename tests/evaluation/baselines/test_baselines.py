import numpy as np
import pytest

from tfmtr.evaluation.baselines import ease as ease_file
from tfmtr.evaluation.baselines import neighbours as neighbours_file
from tfmtr.evaluation.baselines.als import als, title_factors
from tfmtr.evaluation.baselines.blend import blend
from tfmtr.evaluation.baselines.ease import ease, gram_of, invert, why_too_large
from tfmtr.evaluation.baselines.history import History
from tfmtr.evaluation.baselines.neighbours import (
    keep_largest,
    neighbours,
    products_of,
    similarities,
    title_weights,
    user_weights,
)
from tfmtr.evaluation.baselines.popularity import popularity

LIVES = {"half_life": 5.0, "popular_half_life": 9.0}


@pytest.fixture
def history():
    """Forty users of two territories and twelve titles; events of the last ten users, and others, are not fitted."""
    rng = np.random.default_rng(0)
    users, titles = np.nonzero(rng.random((40, 12)) < 0.3)
    fitted = (users < 30) & (rng.random(len(users)) < 0.8)
    return History(users, titles, rng.uniform(0.1, 30, len(users)), np.arange(40) % 2, num_titles=12, fitted=fitted)


def fitted_rows(history):
    """The users and titles of the fitted events, dense."""
    matrix = np.zeros((len(history.homes), history.num_titles))
    matrix[history.users[history.fitted], history.titles[history.fitted]] = 1.0
    return matrix


def test_a_matrix_of_all_events_and_one_of_the_fitted_ones(history):
    assert history.matrix.toarray().sum() == len(history.users) > history.fitted.sum()
    np.testing.assert_array_equal(history.fitted_matrix.toarray(), fitted_rows(history))
    twice = History([0, 0], [1, 1], [1.0, 2.0], [0], num_titles=2, fitted=[True, False])
    assert twice.matrix.toarray().tolist() == twice.fitted_matrix.toarray().tolist() == [[0.0, 1.0]]


def test_popularity_counts_events_of_the_territory_and_of_the_last_days(history):
    scores = popularity(history, days=10)([0, 1])
    for home in (0, 1):
        known = history.fitted & (history.homes[history.users] == home) & (history.age <= 10)
        np.testing.assert_allclose(scores[home], np.bincount(history.titles[known], minlength=12), atol=1e-7)
    everywhere = popularity(history, by_territory=False)([0, 1])
    np.testing.assert_array_equal(everywhere[0], everywhere[1])


def test_an_event_counts_half_after_its_half_life():
    history = History([0, 1, 2], [0, 1, 1], [7.0, 21.0, 21.0], [0, 0, 0], num_titles=2)
    np.testing.assert_allclose(popularity(history, half_life=7)([0])[0], [0.5, 0.25], atol=1e-8)
    assert np.argmax(popularity(history)([0])) == 1


def test_a_tie_in_a_territory_falls_to_what_is_popular_everywhere():
    history = History([0, 0, 1, 2], [0, 1, 1, 2], [1.0] * 4, [0, 1, 1], num_titles=3)
    scores = popularity(history)([0, 1])
    assert scores[0][1] > scores[0][0] > scores[0][2]  # 1 and 0 have one event here; 1 has two everywhere
    assert scores[1][1] > scores[1][2] > scores[1][0]


def test_popularity_is_counted_densely_for_the_asked_users_territories_only(history, monkeypatch):
    """A million titles of two hundred territories would need 1.6 GB."""
    sizes = []
    monkeypatch.setattr(
        "tfmtr.evaluation.baselines.popularity.settle", lambda counts, _: sizes.append(counts.shape) or counts
    )
    assert popularity(history)([0, 2, 4, 6]).shape == (4, 12)
    assert sizes == [(1, 12)]


def test_cosine_neighbours_by_hand(history):
    x = fitted_rows(history)
    lengths = np.linalg.norm(x, axis=0)
    similar = x.T @ x / (np.outer(lengths, lengths) + 2.0)
    np.fill_diagonal(similar, 0)
    expected = history.matrix.toarray()[[3, 35]] @ similar
    np.testing.assert_allclose(neighbours(history, weighting="cosine", shrink=2.0)([3, 35]), expected, atol=1e-12)


def test_bm25_is_the_one_of_implicit():
    """What `implicit.nearest_neighbours.bm25_weight(X.T, K1=1.2, B=0.75).T` of implicit 0.7.3 returned."""
    history = History([0, 0, 1, 2, 2, 2], [0, 1, 0, 0, 1, 2], [1.0] * 6, [0, 0, 0], num_titles=4)
    expected = [[0.204161, 0.25316, 0.0, 0.0], [0.491911, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    matrix = history.matrix.toarray()
    found = user_weights(history.matrix)[:, None] * matrix * title_weights(matrix.sum(axis=0), 1.2, 0.75)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(
        similarities(history, number=9).toarray(), found.T @ found * (1 - np.eye(4)), atol=1e-12
    )  # fmt: skip


def test_each_title_keeps_its_most_similar_ones(history):
    matrix = history.matrix.T @ history.matrix
    kept = keep_largest(matrix, 3).toarray()
    dense = matrix.toarray()
    assert ((kept > 0).sum(axis=1) <= 3).all()
    for row, own in zip(kept, dense, strict=True):
        assert sorted(row[row > 0])[::-1] == sorted(own[own > 0])[::-1][:3]


@pytest.mark.parametrize("weighting", ["cosine", "bm25"])
def test_neighbours_are_the_same_block_by_block_and_of_shared_products(history, monkeypatch, weighting):
    expected = similarities(history, weighting=weighting, number=3).toarray()
    assert (np.count_nonzero(expected, axis=1) <= 3).all()
    monkeypatch.setattr(neighbours_file, "BLOCK", 5)
    products = products_of(history, weighting)
    before = products.copy()
    found = similarities(history, weighting=weighting, number=3, products=products)
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-12)
    np.testing.assert_array_equal(products.toarray(), before.toarray())
    scores = neighbours(history, weighting=weighting, number=3)([3, 35])
    np.testing.assert_allclose(scores, history.matrix.toarray()[[3, 35]] @ expected.T, atol=1e-12)


def test_ease_is_the_ridge_of_each_title_on_the_others(history):
    """Steck, equations 1 to 3: the least squares with a zero diagonal, solved title by title."""
    x, l2 = fitted_rows(history), 3.0
    weights = np.zeros((12, 12))
    for title in range(12):
        others = np.delete(np.arange(12), title)
        a = x[:, others]
        weights[others, title] = np.linalg.solve(a.T @ a + l2 * np.eye(11), a.T @ x[:, title])
    expected = history.matrix.toarray()[[0, 39]] @ weights
    np.testing.assert_allclose(ease(history, l2=l2)([0, 39]), expected, atol=1e-10)


def test_many_titles_are_inverted_in_half_the_precision_with_the_same_lists(history, monkeypatch):
    exact = ease(history, l2=1.0)([0, 39])
    monkeypatch.setattr(ease_file, "MANY_TITLES", 5)
    found = ease(history, l2=1.0)([0, 39])
    assert 0 < np.abs(found - exact).max() < 1e-5
    np.testing.assert_array_equal(found.argsort(), exact.argsort())


@pytest.mark.parametrize("block", [512, 5])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_inverting_in_place_is_as_exact_as_numpy(monkeypatch, block, dtype):
    monkeypatch.setattr(ease_file, "BLOCK", block)
    values = np.random.default_rng(1).normal(size=(40, 13))
    matrix = (values.T @ values).astype(dtype)
    expected = np.linalg.inv(values.T @ values)
    assert invert(matrix)
    tolerance = {"rtol": 1e-10, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-3, "atol": 1e-6}
    np.testing.assert_allclose(matrix, expected, **tolerance)
    assert not invert(np.array([[1.0, 2.0], [2.0, 1.0]], dtype))


def test_ease_leaves_out_titles_without_fitted_events_and_keeps_a_shared_gram_matrix(history):
    fitted = history.fitted & ~np.isin(history.titles, [2, 7])
    without = History(history.users, history.titles, history.age, history.homes, num_titles=12, fitted=fitted)
    gram = gram_of(without)
    assert gram.shape == (10, 10)
    scores = ease(without, l2=3.0, gram=gram)(np.arange(40))
    assert not scores[:, [2, 7]].any()
    np.testing.assert_array_equal(gram, gram_of(without))
    np.testing.assert_allclose(scores, ease(without, l2=3.0)(np.arange(40)), atol=1e-12)
    assert why_too_large(without, limit=16 * 10**2) is None
    assert why_too_large(without, limit=16 * 10**2 - 1) == (
        "ease is left out: 10 titles with events need 1,600 bytes, and there are 1,599"
    )


def by_turns(confidence, of_others, l2):
    """Hu, Koren and Volinsky, equation 4, densely; `confidence` is 1 where nothing was."""
    return np.array(
        [
            np.linalg.solve(of_others.T @ np.diag(row) @ of_others + l2 * np.eye(of_others.shape[1]),
                            of_others.T @ np.diag(row) @ (row > 1))
            for row in confidence
        ]
    )  # fmt: skip


def test_als_solves_the_normal_equations_by_turns(history):
    alpha, l2 = 4.0, 0.5
    titles = title_factors(history.fitted_matrix, 3, alpha, l2, 200, 0)
    confidence = 1 + alpha * fitted_rows(history)
    users = by_turns(confidence, titles, l2)
    np.testing.assert_allclose(by_turns(confidence.T, users, l2), titles, atol=2e-4)
    own = by_turns(1 + alpha * history.matrix.toarray(), titles, l2)
    scores = als(history, factors=3, alpha=alpha, l2=l2, iterations=200)
    np.testing.assert_allclose(scores([35, 3, 39]), own[[35, 3, 39]] @ titles.T, atol=1e-8)


def test_als_is_the_same_for_the_same_seed_and_gives_titles_without_fitted_events_nothing(history):
    first, again = (als(history, factors=3, seed=1)(np.arange(40)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - als(history, factors=3, seed=2, iterations=1)(np.arange(40))).max() > 1e-3
    fitted = history.fitted & (history.titles != 4)
    without = History(history.users, history.titles, history.age, history.homes, num_titles=12, fitted=fitted)
    assert not als(without, factors=3)(np.arange(40))[:, 4].any()


def test_als_names_the_extra_where_its_package_is_missing(history, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "implicit.cpu.als", None)
    with pytest.raises(ImportError, match=r"als needs pip install 'tfmtr\[baselines\]'"):
        als(history)


def test_blend_adds_decayed_neighbours_of_the_past_and_decayed_popularity(history):
    """The formula, event by event; user 40 has no past."""
    history = History(
        history.users, history.titles, history.age, [*history.homes, 1], num_titles=12, fitted=history.fitted
    )  # fmt: skip
    similar = similarities(history, weighting="cosine", number=4, shrink=2.0).toarray()
    scores = blend(history, **LIVES, weight=0.7, number=4, shrink=2.0)([3, 38, 40])
    for user, found in zip([3, 38, 40], scores, strict=True):
        alike, popular = np.zeros(12), np.zeros(12)
        for other, title, age, fitted in zip(history.users, history.titles, history.age, history.fitted, strict=True):
            if other == user:
                alike += 0.5 ** (age / 5.0) * similar[:, title]
            if fitted and history.homes[other] == history.homes[user]:
                popular[title] += 0.5 ** (age / 9.0)
        expected = alike / max(alike.max(), 1e-12) + 0.7 * popular / popular.max()
        np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize(
    "baseline", [popularity, neighbours, ease, als, lambda history: blend(history, **LIVES)],
    ids=["popularity", "neighbours", "ease", "als", "blend"],
)  # fmt: skip
def test_users_who_are_not_fitted_change_nothing(history, baseline):
    """Their own past folds them in; the others' scores are the same without them."""
    history = History(
        history.users, history.titles, history.age, history.homes, num_titles=12, fitted=history.users < 30
    )  # fmt: skip
    kept = history.fitted
    without = History(history.users[kept], history.titles[kept], history.age[kept], history.homes, num_titles=12)
    users = np.arange(30)
    np.testing.assert_allclose(baseline(history)(users), baseline(without)(users), atol=1e-10)
    if baseline is not popularity:  # whose list is the same for all of a territory
        assert np.abs(baseline(history)([35])).sum() > 0


def test_bad_input(history):
    with pytest.raises(ValueError, match="`l2` must be positive"):
        ease(history, l2=0)
    with pytest.raises(ValueError, match="`l2` must be larger, as there is no inverse"):
        ease(History([0, 0, 1], [0, 1, 2], [1.0] * 3, [0, 0], num_titles=3), l2=1e-300)
    with pytest.raises(ValueError, match="`factors` must be at least 1"):
        als(history, factors=0)
    with pytest.raises(ValueError, match="`alpha` must be positive"):
        als(history, alpha=0)
    with pytest.raises(ValueError, match="`half_life` must be positive, such as 14 days, and `weight` not negative"):
        blend(history, half_life=0, popular_half_life=1)
    with pytest.raises(ValueError, match="`days` must be positive"):
        popularity(history, days=0)
    with pytest.raises(ValueError, match="`half_life` must be positive"):
        popularity(history, half_life=-1)
    with pytest.raises(ValueError, match="`weighting` must be one of"):
        neighbours(history, weighting="bm26")
    with pytest.raises(ValueError, match="`number` must be at least 1"):
        neighbours(history, number=0)
    with pytest.raises(ValueError, match="no event of the moment or after it is known"):
        History([0], [0], [0.0], [0], num_titles=1)
    with pytest.raises(ValueError, match=r"`titles` must be in \[0, 1\)"):
        History([0], [1], [1.0], [0], num_titles=1)
    with pytest.raises(ValueError, match="must have one value for each event"):
        History([0, 0], [0], [1.0], [0], num_titles=1)
    with pytest.raises(ValueError, match=r"must have one value for each event.*'fitted': \(1,\)"):
        History([0, 0], [0, 0], [1.0, 1.0], [0], num_titles=1, fitted=[True])

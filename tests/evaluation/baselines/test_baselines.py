import numpy as np
import pytest

from tfmtr.evaluation.baselines.ease import ease
from tfmtr.evaluation.baselines.history import History
from tfmtr.evaluation.baselines.neighbours import bm25, keep_largest, neighbours
from tfmtr.evaluation.baselines.popularity import popularity


@pytest.fixture
def history():
    """Forty users of two territories and twelve titles; the last ten users are not fitted."""
    rng = np.random.default_rng(0)
    users, titles = np.nonzero(rng.random((40, 12)) < 0.3)
    fitted = np.arange(40) < 30
    return History(users, titles, rng.uniform(0.1, 30, len(users)), np.arange(40) % 2, num_titles=12, fitted=fitted)


def test_popularity_counts_events_of_the_territory_and_of_the_last_days(history):
    scores = popularity(history, days=10)([0, 1])
    for home in (0, 1):
        known = history.fitted[history.users] & (history.homes[history.users] == home) & (history.age <= 10)
        np.testing.assert_allclose(np.floor(scores[home]), np.bincount(history.titles[known], minlength=12))
    everywhere = popularity(history, by_territory=False)([0, 1])
    np.testing.assert_array_equal(everywhere[0], everywhere[1])


def test_an_event_counts_half_after_its_half_life():
    history = History([0, 1, 2], [0, 1, 1], [7.0, 21.0, 21.0], [0, 0, 0], num_titles=2)
    scores = popularity(history, half_life=7)([0])[0]
    assert 0.5 <= scores[0] < 0.5 + 0.125  # what settles ties is below half of the least difference
    assert 0.25 <= scores[1] < 0.25 + 0.125
    assert np.argmax(popularity(history)([0])) == 1


def test_a_tie_in_a_territory_falls_to_what_is_popular_everywhere():
    history = History([0, 0, 1, 2], [0, 1, 1, 2], [1.0] * 4, [0, 1, 1], num_titles=3)
    scores = popularity(history)([0, 1])
    assert scores[0][1] > scores[0][0] > scores[0][2]  # 1 and 0 have one event here; 1 has two everywhere
    assert scores[1][1] > scores[1][2] > scores[1][0]


def test_cosine_neighbours_by_hand(history):
    x = history.matrix.toarray()[history.fitted]
    lengths = np.linalg.norm(x, axis=0)
    similar = x.T @ x / (np.outer(lengths, lengths) + 2.0)
    np.fill_diagonal(similar, 0)
    expected = history.matrix.toarray()[[3, 35]] @ similar
    np.testing.assert_allclose(neighbours(history, weighting="cosine", shrink=2.0)([3, 35]), expected, atol=1e-12)


def test_bm25_is_the_one_of_implicit():
    """What `implicit.nearest_neighbours.bm25_weight(X.T, K1=1.2, B=0.75).T` of implicit 0.7.3 returned."""
    history = History([0, 0, 1, 2, 2, 2], [0, 1, 0, 0, 1, 2], [1.0] * 6, [0, 0, 0], num_titles=4)
    expected = [[0.204161, 0.25316, 0.0, 0.0], [0.491911, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(bm25(history.matrix).toarray(), expected, atol=1e-6)


def test_each_title_keeps_its_most_similar_ones(history):
    matrix = history.matrix.T @ history.matrix
    kept = keep_largest(matrix, 3).toarray()
    dense = matrix.toarray()
    assert ((kept > 0).sum(axis=1) <= 3).all()
    for row, own in zip(kept, dense, strict=True):
        assert sorted(row[row > 0])[::-1] == sorted(own[own > 0])[::-1][:3]


def test_ease_is_the_ridge_of_each_title_on_the_others(history):
    """Steck, equations 1 to 3: the least squares with a zero diagonal, solved title by title."""
    x, l2 = history.matrix.toarray()[history.fitted], 3.0
    weights = np.zeros((12, 12))
    for title in range(12):
        others = np.delete(np.arange(12), title)
        a = x[:, others]
        weights[others, title] = np.linalg.solve(a.T @ a + l2 * np.eye(11), a.T @ x[:, title])
    expected = history.matrix.toarray()[[0, 39]] @ weights
    np.testing.assert_allclose(ease(history, l2=l2)([0, 39]), expected, atol=1e-10)


@pytest.mark.parametrize("baseline", [popularity, neighbours, ease])
def test_users_who_are_not_fitted_change_nothing(history, baseline):
    """Their own past folds them in; the others' scores are the same without them."""
    kept = history.fitted[history.users]
    without = History(history.users[kept], history.titles[kept], history.age[kept], history.homes, num_titles=12)
    users = np.flatnonzero(history.fitted)
    np.testing.assert_allclose(baseline(history)(users), baseline(without)(users), atol=1e-10)
    if baseline is not popularity:
        assert np.abs(baseline(history)([35])).sum() > 0


def test_bad_input(history):
    with pytest.raises(ValueError, match="`l2` must be positive"):
        ease(history, l2=0)
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

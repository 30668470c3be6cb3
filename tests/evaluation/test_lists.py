import numpy as np
import pytest

from tfmtr.evaluation.lists import Lists, rank_pairs


def test_positives_are_kept_once_and_have_their_best_rank():
    lists = Lists([[4, 2, 4], [1, -1, -1]], ["DE", "PL"], [1, 0, 0, 0, 0], [1, 4, 7, 2, 4], num_titles=8)
    assert lists.positive_users.tolist() == [0, 0, 0, 1]
    assert lists.positive_titles.tolist() == [2, 4, 7, 1]
    assert lists.positive_ranks.tolist() == [2, 1, np.inf, 1]
    assert [column.tolist() for column in lists.recommended] == [[0, 0, 0, 1], [4, 2, 4, 1], [1, 2, 3, 1]]


def test_slices_index_users_recommendations_and_positives():
    lists = Lists([[1, 2], [3, -1], [0, 1]], ["PL", None, "DE"], [0, 1, 2], [1, 0, 3], num_titles=4)
    parts = lists.by_slice()
    assert list(parts) == ["DE", "PL", "overall"]
    titles = lists.recommended[1]
    assert [titles[recommended].tolist() for _, recommended, _ in parts.values()] == [[0, 1], [1, 2], [1, 2, 3, 0, 1]]
    found = [lists.positive_titles[positives].tolist() for _, _, positives in parts.values()]
    assert found == [[3], [1], [1, 0, 3]]


def test_no_user_and_no_positive_are_allowed():
    lists = Lists(np.zeros((0, 3), int), [], [], [], num_titles=4)
    assert list(lists.by_slice()) == ["overall"]
    assert lists.positive_ranks.tolist() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranked_titles": [1, 2]}, r"`ranked_titles` must be an integer array of shape \(users, k\).*shape=\(2,\)"),
        ({"ranked_titles": [[1.0], [2.0]]}, "`ranked_titles` must be an integer array.*dtype=float64"),
        ({"ranked_titles": [[1, 8], [2, -1]]}, r"`ranked_titles` must be in \[-1, 8\). Received: 8 \(1 such values\)"),
        ({"slices": ["DE"]}, "`slices` must have one value for each row.*Received: 1 values for 2 users"),
        ({"positive_users": [0]}, r"`positive_users`, `positive_titles` must each have one value a row"),
        ({"positive_users": [0, 2]}, r"`positive_users` must be in \[0, 2\). Received: 2"),
        ({"positive_titles": [0, -1]}, r"`positive_titles` must be in \[0, 8\). Received: -1"),
    ],
)
def test_lists_that_do_not_fit_are_refused(change, message):
    arguments = {
        "ranked_titles": [[1, 2], [2, -1]], "slices": ["DE", "PL"], "positive_users": [0, 1], "positive_titles": [3, 2],
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Lists(**{**arguments, **change}, num_titles=8)


def test_each_users_best_titles_are_ranked():
    rng = np.random.default_rng(0)
    users, titles = (column.ravel() for column in np.meshgrid(np.arange(7), np.arange(9)))
    kept = rng.random(63) < 0.7
    shuffled = rng.permutation(np.flatnonzero(kept))
    users, titles = users[shuffled], titles[shuffled]
    labels, scores = (rng.random(len(users)) < 0.4).astype(float), rng.random(len(users))
    labels[:5] = np.nan
    lists = rank_pairs([f"u{u}" for u in users], titles, labels, scores, users % 2, num_titles=9, k=4)
    observed = ~np.isnan(labels)
    for row, user in enumerate(dict.fromkeys(users)):
        own = np.flatnonzero((users == user) & observed)
        best = own[np.argsort(-scores[own])][:4]
        assert lists.ranked_titles[row].tolist() == [*titles[best], *[-1] * (4 - len(best))]
        positives = lists.positive_titles[lists.positive_users == row]
        assert positives.tolist() == sorted(titles[own[labels[own] == 1]])
        assert lists.slices[row] == str(user % 2)


def test_equal_scores_favor_no_order_of_the_rows():
    users, titles = np.repeat(np.arange(400), 10), np.tile(np.arange(10), 400)
    labels = (titles < 2).astype(float)  # positives come first, as files may have them
    lists = rank_pairs(users, titles, labels, np.full(4000, 0.5), np.full(4000, "DE"), num_titles=10, k=5)
    assert np.isfinite(lists.positive_ranks).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "`k` must be positive, for example 10. Received: k=0"),
        ({"titles": [0, 5]}, r"`titles` must be in \[0, 5\). Received: 5"),
        ({"titles": [0]}, "`users`, `titles` must each have one value a row"),
        (
            {"slices": ["DE", "PL"]},
            "`slices` must be the same in all rows of a user.*Received: 1 users with two values",
        ),
        ({"scores": [0.5, 2]}, "`scores` must be probabilities"),
    ],
)
def test_pairs_that_make_no_lists_are_refused(change, message):
    arguments = {"users": [1, 1], "titles": [0, 1], "labels": [0, 1], "scores": [0.1, 0.2], "slices": ["DE", "DE"]}
    with pytest.raises(ValueError, match=message):
        rank_pairs(**{**arguments, "num_titles": 5, **change})

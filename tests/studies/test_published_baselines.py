import numpy as np
import pandas as pd
import pytest

from studies.published_baselines import study as published_baselines

PAGE = published_baselines.HERE / "README.md"


@pytest.fixture
def data(tmp_path):
    """Two hundred users who rate, mostly, movies of their own half of forty; one movie and one user have too few."""
    rng = np.random.default_rng(0)
    likes = np.arange(200)[:, None] % 2 == np.arange(40) % 2
    users, movies = np.nonzero(rng.random((200, 40)) < np.where(likes, 0.9, 0.2))
    table = pd.DataFrame({"UserID": users, "MovieID": movies, "Rating": rng.integers(3, 6, len(users))})
    few = pd.DataFrame({"UserID": [*range(9), *[900] * 9], "MovieID": [99] * 9 + [*range(9)], "Rating": 5})
    (tmp_path / "movielens-1m").mkdir()
    pd.concat([table, few]).to_parquet(tmp_path / "movielens-1m" / "ratings.parquet")
    return tmp_path


def test_users_and_movies_with_few_events_go_until_none_does(data):
    ratings = pd.read_parquet(data / "movielens-1m" / "ratings.parquet")
    users, titles = published_baselines.events_of(ratings, 3)
    assert (users.max(), titles.max()) == (199, 39)
    assert np.bincount(users).min() >= 10
    fewer, _ = published_baselines.events_of(ratings, 4)
    assert 0 < len(fewer) < (ratings.Rating >= 4).sum()
    assert np.bincount(fewer).min() >= 10


def test_events_held_out_are_neither_fitted_nor_offered_unless_they_are_the_test(data, monkeypatch):
    ratings, fitted, lists = pd.read_parquet(data / "movielens-1m" / "ratings.parquet"), [], []

    def fit(name, options, history):
        fitted.append(history)
        return lambda users: np.zeros((len(users), history.num_titles))

    monkeypatch.setattr(published_baselines, "fit", fit)
    monkeypatch.setattr(published_baselines, "evaluate_lists", lambda found: lists.append(found) or {"overall": 1})
    for source, held in (("RecBole", lambda n: n // 10), ("Anelli et al.", lambda n: 0)):
        published_baselines.figures_of(ratings, source, "ease", {}, 0)
        users, titles = published_baselines.events_of(ratings, published_baselines.SOURCES[source][0])
        events = np.bincount(users)
        test = np.bincount(lists[-1].positive_users)
        expected = held(events) if source == "RecBole" else events - np.floor(0.8 * events)
        np.testing.assert_array_equal(test, expected)
        np.testing.assert_array_equal(np.bincount(fitted[-1].users), events - test - held(events))
        offered, had = set(), set(zip(users, titles, strict=True))
        positives = set(zip(lists[-1].positive_users, lists[-1].positive_titles, strict=True))
        for user, row in enumerate(lists[-1].ranked_titles):
            offered |= {(user, title) for title in row[: 40 - events[user] + test[user]]}
        assert offered & had <= positives


def test_the_page_holds_figures_beside_the_published_ones(data, capsys):
    rows = [
        ("Anelli et al.", "ease", {"l2": 10.0}, {"ndcg": 0.5, "recall": 0.5}),
        ("Anelli et al.", "als", {"factors": 2}, {"ndcg": 0.306}),
    ]
    line = published_baselines.main(data, data, rows=rows, splits=2)
    assert line.endswith("of 2 NDCG@10 within 2 % of the published ones")
    page = (data / "README.md").read_text()
    assert line in page
    cells = [row.split(" | ") for row in page.splitlines() if row.startswith("| Anelli")]
    assert [row[1] for row in cells] == ["ease", "ease", "als"]
    for row in cells:
        assert float(row[5].split()[0]) > 0.45
        assert abs(float(row[5].split()[0]) / float(row[4]) - 1 - float(row[6][:-3]) / 100) < 1e-3
    assert cells[2][5] in capsys.readouterr().out


def test_the_checked_in_page_has_every_row_and_all_are_close():
    page = PAGE.read_text()
    assert "4 of 4 NDCG@10 within 2 % of the published ones" in page
    for source, name, _, published in published_baselines.ROWS:
        for metric, figure in published.items():
            assert any(f"| {source} | {name} | " in line and f"| {metric}@10 | {figure} | " in line
                       for line in page.splitlines())  # fmt: skip

import json

import numpy as np
import pytest

from tfmtr.evaluation.baselines import table, tried_options
from tfmtr.evaluation.baselines.history import History
from tfmtr.evaluation.baselines.popularity import popularity
from tfmtr.evaluation.baselines.table import BASELINES
from tfmtr.evaluation.baselines.ties import settle
from tfmtr.evaluation.baselines.tried_options import fit, tries, tune, why_left_out

PERSONAL = [name for name in BASELINES if BASELINES[name].is_personal]


def options_of(name):
    return tries(name, 7.0)[-1]


def make(num_users=30, num_titles=10, seed=0, fitted=None):
    rng = np.random.default_rng(seed)
    users, titles = np.nonzero(rng.random((num_users, num_titles)) < 0.3)
    homes = np.arange(num_users) % 3
    return History(users, titles, rng.uniform(0.1, 60, len(users)), homes, num_titles=num_titles, fitted=fitted)


def order(scores):
    return np.argsort(-scores, axis=1, kind="stable").tolist()


@pytest.mark.parametrize("name", list(BASELINES))
def test_at_most_twelve_tries_each_of_which_can_be_fitted(name):
    history = make()
    for days in (0.5, 7.0):
        assert 1 < len(tries(name, days)) <= 12
        for options in tries(name, days):
            scores = fit(name, options, history)([0, 5])
            assert scores.shape == (2, 10)
            assert np.isfinite(scores).all()
    distinct = {json.dumps(options, sort_keys=True) for options in tries(name, 7.0)}
    assert len(distinct) == len(tries(name, 7.0))


def test_without_times_what_needs_them_is_left_out():
    for name in BASELINES:
        left = name in ("recent", "decayed", "blend")
        assert (tries(name, None) == []) == left
        assert why_left_out(name, window_days=None) == (f"{name} is left out: it needs times" if left else None)


@pytest.mark.parametrize("name", PERSONAL)
def test_a_user_without_a_past_has_the_order_of_popularity(name):
    history = make()
    history = History(history.users, history.titles, history.age, [*history.homes, 1], num_titles=10)
    options = options_of(name)
    expected = popularity(history, half_life=options.get("popular_half_life"))  # of the blend
    assert order(fit(name, options, history)([30])) == order(expected([30]))


@pytest.mark.parametrize("name", [name for name in PERSONAL if name != "als"])  # whose factors have no zeros
def test_titles_that_nothing_leads_to_are_in_the_order_of_popularity(name):
    """User 0 had title 0, which goes with title 1; others have come apart from these, title 5 never."""
    users, titles = [0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8], [0, 0, 1, 2, 3, 3, 4, 4, 4, 4, 3]
    history = History(users, titles, np.ones(11), np.zeros(9), num_titles=6)
    found = [title for title in order(fit(name, tries(name, 7.0)[0], history)([0]))[0] if title != 0]
    assert found == [1, 4, 3, 2, 5]


@pytest.mark.parametrize("name", list(BASELINES))
def test_catalogues_and_logs_with_next_to_nothing(name):
    options = options_of(name)
    nothing = History([], [], [], [0, 0, 1], num_titles=4)
    assert order(fit(name, options, nothing)([0, 2])) == [[0, 1, 2, 3]] * 2
    not_fitted = History([0, 0], [1, 2], [1.0, 2.0], [0, 0], num_titles=3, fitted=[False, False])
    assert order(fit(name, options, not_fitted)([0, 1])) == [[0, 1, 2]] * 2
    one = History([0, 1], [0, 0], [1.0, 2.0], [0, 0, 0], num_titles=1)
    assert np.isfinite(fit(name, options, one)([0, 2])).all()
    nobody = History([], [], [], [], num_titles=3)
    assert fit(name, options, nobody)([]).shape == (0, 3)
    assert fit(name, options, make())([]).shape == (0, 10)


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_territory_without_events_has_the_order_of_all(name):
    """User 4 is alone there, without a past."""
    history = History([0, 1, 2, 0, 1, 3], [2, 2, 2, 1, 1, 0], np.ones(6), [0, 0, 0, 0, 9], num_titles=4)
    assert order(fit(name, options_of(name), history)([4])) == [[2, 1, 0, 3]]


def test_what_settles_ties_changes_nothing_else():
    scores = np.random.default_rng(0).integers(-5, 5, (6, 40)).astype(float)
    scores[0] = 0
    found = settle(scores.copy(), np.linspace(1, 0, 40))
    for own, settled in zip(scores, found, strict=True):
        assert np.argsort(-settled).tolist() == np.lexsort((np.arange(40), -own)).tolist()
    assert np.argsort(-settle(np.full((1, 3), -1e12), np.array([0.1, 0.9, 0.5]))).tolist() == [[1, 2, 0]]


def test_tuning_takes_the_best_try_over_all_windows_and_keeps_all_figures():
    histories = [make(seed=1), make(seed=2)]
    figures = {(place, l2): (l2 == 20.0) + 10.0 * (place == 1 and l2 == 50.0) - 30.0 * (place == 0 and l2 == 50.0)
               for place in (0, 1) for l2 in (options["l2"] for options in tries("ease", 7))}  # fmt: skip
    calls = iter([(place, options["l2"]) for place in (0, 1) for options in tries("ease", 7)])

    def judge(place, score):
        called = next(calls)
        assert called[0] == place
        expected = fit("ease", {"l2": called[1]}, histories[place])
        np.testing.assert_allclose(score(np.arange(30)), expected(np.arange(30)), atol=1e-12)
        return figures[called]

    found = tune(["ease"], histories, judge, window_days=7)["ease"]
    assert found["options"] == {"l2": 20.0}
    assert found["reason"] is None
    assert [row["options"] for row in found["tries"]] == tries("ease", 7)
    assert [row["figure"] for row in found["tries"]] == [
        (figures[0, options["l2"]] + figures[1, options["l2"]]) / 2 for options in tries("ease", 7)
    ]
    assert json.loads(json.dumps(found)) == found


def test_where_a_fit_is_costly_the_newest_window_judges_alone(monkeypatch):
    histories, judged = [make(seed=1), make(seed=2), make(seed=3)], []

    def judge(place, score):
        judged.append(place)
        return 1.0

    tune(["ease"], histories, judge, window_days=7)
    assert set(judged) == {0, 1, 2}
    monkeypatch.setattr(table, "MANY_TITLES", 5)
    judged.clear()
    found = tune(["ease"], histories, lambda place, score: judge(place, score) * (place + 1), window_days=7)["ease"]
    assert judged == [*[2] * len(found["tries"]), 0, 1]  # the chosen options alone in the others
    assert {one["figure"] for one in found["tries"]} == {3.0}
    assert found["figure"] == 2.0  # comparable with that of a baseline that is tried in all
    judged.clear()
    tune(["cosine"], histories, judge, window_days=7)
    assert set(judged) == {0, 1, 2}
    monkeypatch.setattr(table, "MANY_EVENTS", 5)
    judged.clear()
    tune(["cosine"], histories, judge, window_days=7)
    assert set(judged[:-2]) == {2}


def test_tries_are_fitted_on_the_events_of_some_users_where_there_are_many(monkeypatch):
    history = make(num_users=400)
    few = history.thinned(len(history.users) // 4)
    assert history.thinned(len(history.users)) is history
    assert 0.15 < few.fitted.mean() < 0.35
    of_users = {user: set(few.fitted[few.users == user]) for user in np.unique(few.users)}
    assert all(len(found) == 1 for found in of_users.values())  # all of a user's events or none
    np.testing.assert_array_equal(few.matrix.toarray(), history.matrix.toarray())  # own pasts stay known
    seen = []
    monkeypatch.setattr(tried_options, "MANY_EVENTS", len(history.users) // 4)
    monkeypatch.setattr(tried_options, "fit", lambda name, options, fitted, **shared: seen.append(fitted.fitted.mean()))
    tune(["popularity"], [history], lambda place, score: 0.0, window_days=7)
    assert seen
    assert set(seen) == {few.fitted.mean()}


def test_windows_without_users_to_judge_by_count_for_nothing():
    histories = [make(seed=1), make(seed=2)]

    def judge(place, score):
        return float("nan") if place == 0 else score([0]).max()

    found = tune(["popularity"], histories, judge, window_days=7)["popularity"]
    assert found["options"] == {"by_territory": False}
    assert found["tries"][0]["figure"] == popularity(histories[1], by_territory=False)([0]).max()
    for judged in ([], histories):
        found = tune(["ease"], judged, lambda place, score: float("nan"), window_days=7)["ease"]
        assert found["options"] == {"l2": 500.0}
        assert {row["figure"] for row in found["tries"]} == {None}


def test_tries_of_a_history_share_what_takes_long(monkeypatch):
    made = []
    for name in ("cosine", "bm25", "ease", "blend"):
        shared = {
            key: lambda history, make=make, name=name: made.append(name) or make(history)
            for key, make in BASELINES[name].shared.items()
        }
        assert shared
        monkeypatch.setitem(BASELINES, name, table.dataclasses.replace(BASELINES[name], shared=shared))
    for again in ("ease.gram_of", "neighbours.products_of"):  # what a try would call that is not given them
        monkeypatch.setattr(f"tfmtr.evaluation.baselines.{again}", None)
    tune(["cosine", "bm25", "ease", "blend"], [make(seed=1), make(seed=2)], lambda place, score: 0.0, window_days=7)
    assert made == ["cosine"] * 2 + ["bm25"] * 2 + ["ease"] * 2 + ["blend"] * 2


def test_what_is_missing_is_left_out_in_a_line_unless_it_was_asked_for(monkeypatch):
    monkeypatch.setattr(tried_options, "is_missing", lambda name: name == "als")
    found = tune(["als", "popularity"], [make()], lambda place, score: 0.0, window_days=7)
    reason = "als needs pip install 'tfmtr[baselines]'"
    assert found["als"] == {"options": None, "figure": None, "tries": [], "reason": reason}
    assert found["popularity"]["reason"] is None
    with pytest.raises(ImportError, match=r"^als needs pip install 'tfmtr\[baselines\]'$"):
        tune(["als"], [make()], lambda place, score: 0.0, window_days=7, required=["als"])


def test_a_package_is_looked_for_by_its_name(monkeypatch):
    assert not any(tried_options.is_missing(name) for name in BASELINES)
    monkeypatch.setattr(tried_options.importlib.util, "find_spec", lambda name: None)
    assert [name for name in BASELINES if tried_options.is_missing(name)] == ["als"]


def test_ease_is_left_out_where_a_window_has_too_many_titles(monkeypatch):
    large = table.dataclasses.replace(
        BASELINES["ease"], why_not=lambda history: "too large" if history.num_titles > 10 else None
    )
    monkeypatch.setitem(BASELINES, "ease", large)
    found = tune(["ease"], [make(), make(num_titles=11)], lambda place, score: 0.0, window_days=7)
    assert found["ease"] == {"options": None, "figure": None, "tries": [], "reason": "too large"}


def test_an_unknown_name_lists_what_there_is():
    for call in (
        lambda: fit("eese", {}, make()),
        lambda: tries("eese", 7),
        lambda: why_left_out("eese", window_days=7),
        lambda: tune(["eese"], [], None, window_days=7),
    ):
        with pytest.raises(ValueError, match=r"`baselines` must be one of \['als', .*Did you mean 'ease'\?"):
            call()

import json

import numpy as np
import pytest

from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.popularity_bias import (
    evaluate_exposure,
    exposure_curve,
    hit_rate_by_popularity,
    popularity_lift,
    quantile_bins,
)

POPULARITY = np.array([100, 60, 30, 10, 0])


def lists_of(*kinds, num_titles=5):
    """Lists of 40 users of each kind `(slice, ranked titles, positives)`."""
    k = max(len(ranked) for _, ranked, _ in kinds)
    ranked, slices, users, titles = [], [], [], []
    for i, (name, own, positives) in enumerate(kinds):
        ranked += 40 * [[*own, *[-1] * (k - len(own))]]
        slices += 40 * [name]
        users += np.repeat(np.arange(40 * i, 40 * (i + 1)), len(positives)).tolist()
        titles += 40 * list(positives)
    return Lists(np.array(ranked), slices, users, titles, num_titles=num_titles)


TWO = lists_of(("DE", [0, 1], [0]), ("PL", [0, 3], [3]), ("PL", [], [4]))


def test_exposure_metrics_follow_their_formulas_on_two_lists():
    cells = evaluate_exposure(TWO, POPULARITY)
    assert list(cells) == ["DE", "PL", "overall"]
    p = np.array([0, 0, 0, 1 / 2, 1 / 2])
    expected = {
        "coverage": 2 / 5,
        "gini": sum((2 * j - 5 - 1) * p[j - 1] for j in range(1, 6)) / 4,
        "entropy": np.log(2),
        "average_popularity": (100 + 60) / 2,
        "titles": 5,
        "users": 40,
        "reason": None,
    }
    assert cells["DE"] == pytest.approx(expected)
    assert cells["PL"] == pytest.approx(expected | {"average_popularity": 55})  # empty lists count for nothing
    p = np.array([0, 0, 1 / 4, 1 / 4, 1 / 2])
    pooled = {
        "coverage": 3 / 5,
        "gini": sum((2 * j - 5 - 1) * p[j - 1] for j in range(1, 6)) / 4,
        "entropy": -sum(share * np.log(share) for share in p[2:]),
        "average_popularity": (80 + 55) / 2,
        "users": 80,
    }
    assert cells["overall"] == pytest.approx(expected | pooled)
    json.dumps(cells, allow_nan=False)


def test_average_popularity_is_a_mean_over_users_not_over_recommendations():
    cell = evaluate_exposure(lists_of(("DE", [0], []), ("DE", [3, 4, 2], [])), POPULARITY)["DE"]
    assert cell["average_popularity"] == pytest.approx((100 + 40 / 3) / 2)


def test_one_title_for_all_is_the_greatest_concentration_and_equal_shares_the_least():
    one = evaluate_exposure(lists_of(("DE", [2], [])), POPULARITY)["DE"]
    assert (one["coverage"], one["gini"], one["entropy"]) == (0.2, 1, 0)
    all_titles = evaluate_exposure(lists_of(("DE", [4, 1, 2, 0, 3], [])), POPULARITY)["DE"]
    assert (all_titles["coverage"], all_titles["gini"]) == (1, pytest.approx(0))
    assert all_titles["entropy"] == pytest.approx(np.log(5))


def test_a_territory_is_measured_against_its_own_catalogue():
    available = {"DE": np.array([1, 1, 0, 0, 0], bool), "PL": np.array([1, 0, 1, 1, 0], bool)}
    cells = evaluate_exposure(TWO, POPULARITY, available=available)
    assert [cells[name]["titles"] for name in cells] == [2, 3, 4]
    assert [cells[name]["coverage"] for name in cells] == pytest.approx([1, 2 / 3, 3 / 4])
    assert cells["DE"]["gini"] == pytest.approx(0)


def test_exposure_needs_20_users_with_a_list():
    ranked = np.where(np.arange(40)[:, None] < 19, 0, -1)
    cell = evaluate_exposure(Lists(ranked, ["DE"] * 40, [], [], num_titles=5), POPULARITY)["DE"]
    assert (cell["gini"], cell["users"], cell["reason"]) == (None, 19, "19 users, 20 needed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"popularity": POPULARITY[:4]},
            r"`popularity` must have a number from zero up for each of the 5 titles.*\(4,\)",
        ),
        ({"popularity": -POPULARITY}, "`popularity` must have a number from zero up"),
        ({"available": {"DE": np.ones(5, bool)}}, r"`available` must have the catalogue of every slice.*\['PL'\]"),
        ({"available": dict.fromkeys(("DE", "PL"), np.ones(5))}, "`available` must have True or False"),
        (
            {"available": dict.fromkeys(("DE", "PL"), np.arange(5) < 3)},
            "`available` must have every title that is recommended.*Received: title 3 in a list of 'PL'",
        ),
    ],
)
def test_exposure_refuses_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_exposure(TWO, **{"popularity": POPULARITY, **arguments})


def test_popularity_lift_is_the_relative_change_of_the_group_average():
    lists = lists_of(("DE", [0, 1], []), ("DE", [2], []), ("DE", [0], []))
    profile_users = np.concatenate([np.repeat(np.arange(40), 2), np.arange(40, 80)])
    profile_titles = np.concatenate([np.tile([1, 3], 40), np.full(40, 3)])
    cell = popularity_lift(lists, POPULARITY, profile_users, profile_titles)["DE"]
    recommended, profile = (80 + 30) / 2, (35 + 10) / 2  # the last 40 have no profile
    expected = {"popularity_lift": (recommended - profile) / profile, "recommended": recommended, "profile": profile}
    assert cell == pytest.approx({**expected, "users": 80, "reason": None})


def test_lists_that_mirror_the_profiles_have_no_lift_and_popular_ones_a_positive_one():
    profiles = np.repeat(np.arange(40), 2), np.tile([1, 3], 40)
    lift = [
        popularity_lift(lists_of(("DE", own, [])), POPULARITY, *profiles)["DE"]["popularity_lift"]
        for own in ([3, 1], [0, 1], [4])
    ]
    assert lift[0] == 0
    assert lift[1] > 0
    assert lift[2] == -1


def test_popularity_lift_without_a_base_is_not_available():
    lists = lists_of(("DE", [0], []))
    unpopular = popularity_lift(lists, POPULARITY, np.arange(40), np.full(40, 4))["DE"]
    assert (unpopular["popularity_lift"], unpopular["reason"]) == (None, "profiles without popularity")
    few = popularity_lift(lists, POPULARITY, np.arange(19), np.zeros(19, int))["DE"]
    assert (few["recommended"], few["reason"]) == (None, "19 users, 20 needed")


@pytest.mark.parametrize(
    ("users", "titles", "message"),
    [
        ([0, 1], [0], "`profile_users`, `profile_titles` must each have one value a row"),
        ([400], [0], r"`profile_users` must be in \[0, 120\). Received: 400"),
        ([0], [5], r"`profile_titles` must be in \[0, 5\). Received: 5"),
    ],
)
def test_popularity_lift_refuses_bad_profiles(users, titles, message):
    with pytest.raises(ValueError, match=message):
        popularity_lift(TWO, POPULARITY, users, titles)


def test_quantile_bins_have_equal_numbers_of_titles_and_keep_ties_together():
    values = np.random.default_rng(0).permutation(200)
    assert np.bincount(quantile_bins(values)).tolist() == [20] * 10
    assert quantile_bins(values)[[values.argmin(), values.argmax()]].tolist() == [0, 9]
    assert quantile_bins([5, 0, 0, 0, 9, 0]).tolist() == [6, 0, 0, 0, 8, 0]
    with pytest.raises(ValueError, match=r"`num_bins` must be positive, for example 10. Received: num_bins=0"):
        quantile_bins(values, num_bins=0)


def test_hit_rate_by_popularity_counts_each_positive_in_its_titles_bin():
    lists = lists_of(("DE", [0, 2], [0, 4]), ("DE", [0, 3], [0, 1, 3]), ("PL", [1], [0]))
    cells = hit_rate_by_popularity(lists, POPULARITY, num_bins=2)  # titles 3, 4, 2 are bin 0; 1, 0 are bin 1
    assert cells["DE"] == [
        {"hit_rate": 0.5, "positives": 80, "users": 80, "reason": None},
        {"hit_rate": pytest.approx(2 / 3), "positives": 120, "users": 80, "reason": None},
    ]
    assert cells["PL"][0] == {"hit_rate": None, "positives": 0, "users": 0, "reason": "no positives"}
    assert cells["PL"][1]["hit_rate"] == 0
    assert cells["overall"][1]["hit_rate"] == pytest.approx(80 / 160)


def test_hit_rate_rises_with_popularity_where_popular_titles_are_recommended_to_all():
    rng = np.random.default_rng(0)
    popularity = np.arange(20)
    liked = np.nonzero(rng.random((500, 20)) < 0.3)  # titles are liked equally often
    lists = Lists(np.tile(np.arange(19, 13, -1), (500, 1)), ["DE"] * 500, *liked, num_titles=20)
    rates = [cell["hit_rate"] for cell in hit_rate_by_popularity(lists, popularity)["DE"]]
    assert rates == [0] * 7 + [1] * 3


def test_exposure_curve_holds_shares_of_recommendations_against_shares_of_popularity():
    cells = exposure_curve(TWO, POPULARITY, num_bins=3)  # bins of titles: (4, 3), (2, 1), (0)
    shared = {"titles": [2, 2, 1], "popularity": [0.05, 0.45, 0.5], "reason": None}
    assert cells["DE"] == {**shared, "exposure": [0, 0.5, 0.5], "users": 40}
    assert cells["PL"] == {**shared, "exposure": [0.5, 0, 0.5], "users": 40}
    assert cells["overall"] == {**shared, "exposure": [0.25, 0.25, 0.5], "users": 80}
    few = exposure_curve(Lists([[0]] * 19, ["DE"] * 19, [], [], num_titles=5), POPULARITY)["DE"]
    assert (few["exposure"], few["reason"]) == (None, "19 users, 20 needed")


def test_exposure_in_proportion_to_popularity_lies_on_the_diagonal():
    popularity, rng = np.arange(1, 51), np.random.default_rng(0)
    ranked = rng.choice(50, (20_000, 1), p=popularity / popularity.sum())
    cell = exposure_curve(Lists(ranked, ["DE"] * 20_000, [], [], num_titles=50), popularity)["DE"]
    assert cell["exposure"] == pytest.approx(cell["popularity"], abs=0.01)


def test_popularity_of_zero_is_refused():
    with pytest.raises(ValueError, match="`popularity` must not be zero for all titles; count the positives"):
        exposure_curve(TWO, np.zeros(5))
    with pytest.raises(ValueError, match="`popularity` must have a number from zero up"):
        hit_rate_by_popularity(TWO, [1, 2, 3, 4, np.nan])

import json

import numpy as np
import pytest

from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.local_titles import equal_opportunity, local_share

LOCAL = np.array([False, False, True, True])


def lists_of(ranked, users, titles, slices=None):
    """Lists of 40 copies of each user."""
    copies = np.arange(40)[:, None] * len(ranked)
    return Lists(
        np.tile(ranked, (40, 1)),
        (slices or ["DE"] * len(ranked)) * 40,
        (copies + np.asarray(users)).ravel(),
        np.tile(titles, 40),
        num_titles=4,
    )


def test_local_share_of_recommendations_is_held_against_that_of_positives():
    lists = lists_of([[0, 1], [2, 0]], [0, 0, 1], [2, 3, 1], ["DE", "PL"])
    cells = local_share(lists, LOCAL)
    assert cells["DE"] == {"recommended": 0, "truth": 1, "gap": -1, "positives": 80, "users": 40, "reason": None}
    assert cells["PL"] == {"recommended": 0.5, "truth": 0, "gap": 0.5, "positives": 40, "users": 40, "reason": None}
    pooled = {"recommended": 0.25, "truth": 2 / 3, "gap": 0.25 - 2 / 3, "positives": 120, "users": 80, "reason": None}
    assert cells["overall"] == pytest.approx(pooled)
    json.dumps(cells, allow_nan=False)


def test_local_share_that_cannot_be_known_is_not_available():
    few = local_share(Lists([[0]] * 40, ["DE"] * 40, np.arange(29), np.zeros(29, int), num_titles=4), LOCAL)["DE"]
    assert (few["gap"], few["positives"], few["reason"]) == (None, 29, "29 positives, 30 needed")
    empty = Lists(np.full((40, 1), -1), ["DE"] * 40, np.arange(40), np.zeros(40, int), num_titles=4)
    assert local_share(empty, LOCAL)["DE"]["reason"] == "no recommendations"


def test_equal_opportunity_compares_true_positive_rates_bin_by_bin():
    quality = np.array([0, 1, 0, 1])
    # Positives of bin 0: title 0 twice, a hit once; title 2 once, a hit. Of bin 1: title 1 a hit; title 3 three misses.
    lists = lists_of([[0, 2], [1, -1], [1, -1]], [0, 1, 0, 1, 0, 1, 2], [0, 0, 2, 1, 3, 3, 3])
    cell = equal_opportunity(lists, LOCAL, quality)["DE"]
    local = 1 / 4 * 1 + 3 / 4 * 0
    of_global = 1 / 4 * (1 / 2) + 3 / 4 * 1
    assert (cell["local"], cell["global"], cell["gap"]) == pytest.approx((local, of_global, local - of_global))
    assert (cell["local_positives"], cell["global_positives"]) == (160, 120)
    assert (cell["local_users"], cell["global_users"], cell["reason"]) == (120, 80, None)


def test_a_difference_that_is_of_quality_is_no_gap():
    rng = np.random.default_rng(0)
    quality = np.array([0, 1, 0, 1])
    liked = rng.random((4000, 4)) < [0.1, 0.3, 0.3, 0.1]  # good titles are liked equally rarely if they are local
    shown = np.where(rng.random(4000)[:, None] < 0.8, [[1, 3]], [[0, 2]])  # lists know the quality alone
    lists = Lists(shown, ["DE"] * 4000, *np.nonzero(liked), num_titles=4)
    assert equal_opportunity(lists, LOCAL, quality)["DE"]["gap"] == pytest.approx(0, abs=0.05)
    assert equal_opportunity(lists, LOCAL, np.zeros(4, int))["DE"]["gap"] < -0.2
    favored = Lists(np.tile([0, 1], (4000, 1)), ["DE"] * 4000, *np.nonzero(liked), num_titles=4)
    assert equal_opportunity(favored, LOCAL, quality)["DE"]["gap"] == -1


def test_bins_of_one_class_and_titles_without_a_bin_are_left_out():
    lists = lists_of([[0, 2]], [0, 0, 0, 0], [0, 1, 2, 3])
    cell = equal_opportunity(lists, LOCAL, np.array([0, 1, 0, -1]))["DE"]
    assert (cell["local_positives"], cell["global_positives"], cell["gap"]) == (40, 40, 0)
    nothing = equal_opportunity(lists, LOCAL, np.array([0, 0, 1, 1]))["DE"]
    assert (nothing["gap"], nothing["reason"]) == (None, "local titles: no positives")
    few = Lists([[0]] * 60, ["DE"] * 60, np.arange(60), np.where(np.arange(60) < 29, 0, 2), num_titles=4)
    cell = equal_opportunity(few, LOCAL, np.zeros(4, int))["DE"]
    assert (cell["gap"], cell["reason"]) == (None, "global titles: 29 positives, 30 needed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local": LOCAL[:3]}, r"`local` must have True or False for each of the 4 titles. Received: shape=\(3,\)"),
        ({"local": [0, 1, 1, 0]}, "`local` must have True or False.*dtype=int64"),
        ({"quality": [0, 1, 2, -2]}, "`quality` must have a bin from 0 up, or -1"),
        ({"quality": [0, 1, 2, 0.5]}, "`quality` must have a bin from 0 up, or -1.*dtype=float64"),
    ],
)
def test_title_classes_that_do_not_fit_are_refused(change, message):
    arguments = {"local": LOCAL, "quality": [0, 0, 0, 0], **change}
    lists = lists_of([[0, 2]], [0], [0])
    with pytest.raises(ValueError, match=message):
        equal_opportunity(lists, **arguments)
    if "local" in change:
        with pytest.raises(ValueError, match=message):
            local_share(lists, arguments["local"])

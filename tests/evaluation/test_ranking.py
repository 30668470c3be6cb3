import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.metrics import evaluate_task
from tfmtr.evaluation.ranking import evaluate_lists, gauc, recall_at_k


def pairs(rows=3000, users=120, seed=0):
    """Labels, scores with ties, territories and users; some users have one class only, some have two territories."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, users, rows)
    labels = (rng.random(rows) < 0.2).astype(float)
    labels[users < 10], labels[users == 11] = 0, 1
    labels[:50] = np.nan
    scores = np.round(np.clip(rng.random(rows) * 0.8 + 0.2 * labels, 0, 1), 2)
    return labels, scores, np.where((users + rng.integers(0, 50, rows) // 49) % 3, "DE", "PL"), users


def test_gauc_weighs_each_users_auc_with_their_rows():
    labels, scores, slices, users = pairs()
    cells = gauc(labels, scores, slices, [f"u{user}" for user in users])
    assert list(cells) == ["DE", "PL", "overall"]
    for name, cell in cells.items():
        in_slice = ~np.isnan(labels) & ((slices == name) | (name == "overall"))
        aucs, weights, positives, left_out = [], [], 0, 0
        for user in np.unique(users):
            rows = in_slice & (users == user)
            if 0 < labels[rows].sum() < rows.sum():
                aucs.append(roc_auc_score(labels[rows], scores[rows]))
                weights.append(rows.sum())
                positives += labels[rows].sum()
            elif rows.any():
                left_out += 1
        expected = {"gauc": np.average(aucs, weights=weights), "rows": sum(weights), "positives": positives}
        assert cell == pytest.approx({**expected, "users": len(aucs), "left_out": left_out, "reason": None})
    json.dumps(cells, allow_nan=False)


def test_gauc_gains_nothing_from_knowing_which_users_like_more():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(200), 20)
    rate = rng.uniform(0.1, 0.9, 200)[users]
    labels = rng.random(4000) < rate
    cells = [f(labels, rate, np.full(4000, "DE"), users)["DE"] for f in (evaluate_task, gauc)]
    assert cells[0]["roc_auc"] > 0.7
    assert cells[1]["gauc"] == 0.5


def test_gauc_without_users_of_both_classes_is_not_available():
    cells = gauc([1, 0] * 30, [0.5] * 60, ["DE"] * 60, np.arange(60))
    counts = {"rows": 0, "positives": 0, "users": 0, "left_out": 60}
    assert cells["DE"] == {"gauc": None, **counts, "reason": "no user with both classes"}
    few = gauc([1, 0] * 19, [0.5] * 38, ["DE"] * 38, np.arange(38) // 2)
    assert few["overall"]["reason"] == "19 positives, 30 needed"
    assert gauc([], [], [], [])["overall"]["reason"] == "no user with both classes"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 2]}, "`labels` must be 0, 1 or NaN"),
        ({"scores": [0, np.nan]}, "`scores` must be probabilities"),
        ({"slices": ["DE", "overall"]}, "`slices` must not have the value 'overall'"),
        ({"users": [1, None]}, "`users` must name the user of every row"),
    ],
)
def test_gauc_refuses_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        gauc(**{"labels": [0, 1], "scores": [0, 1], "slices": ["DE", "DE"], "users": [1, 1], **change})


def random_lists(users=90, k=5, num_titles=12, seed=0):
    """Lists, some of them short, of users of whom some have no positive and some have more than k."""
    rng = np.random.default_rng(seed)
    ranked = np.argsort(rng.random((users, num_titles)), axis=1)[:, :k]
    ranked[rng.random(users) < 0.2, 3:] = -1
    liked = rng.random((users, num_titles)) < rng.choice([0.0, 0.2, 0.8], users)[:, None]
    return Lists(ranked, np.where(np.arange(users) % 3, "DE", "PL"), *np.nonzero(liked), num_titles=num_titles), liked


def test_list_metrics_follow_their_definitions_user_by_user():
    lists, liked = random_lists()
    metrics = ("recall", "capped_recall", "ndcg", "mrr", "hit_rate")
    values = {name: {metric: [] for metric in metrics} for name in ("DE", "PL", "overall")}
    for ranked, positives, territory in zip(lists.ranked_titles, liked, lists.slices, strict=True):
        if not positives.any():
            continue
        ranks = [rank for rank, title in enumerate(ranked, start=1) if title >= 0 and positives[title]]
        ideal = sum(1 / np.log2(1 + rank) for rank in range(1, min(positives.sum(), 5) + 1))
        for name in (territory, "overall"):
            values[name]["recall"].append(len(ranks) / positives.sum())
            values[name]["capped_recall"].append(len(ranks) / min(positives.sum(), 5))
            values[name]["ndcg"].append(sum(1 / np.log2(1 + rank) for rank in ranks) / ideal)
            values[name]["mrr"].append(1 / ranks[0] if ranks else 0)
            values[name]["hit_rate"].append(bool(ranks))
    cells = evaluate_lists(lists)
    assert list(cells) == ["DE", "PL", "overall"]
    for name, cell in cells.items():
        of_slice = liked[(lists.slices == name) | (name == "overall")]
        counts = {"positives": of_slice.sum(), "users": of_slice.any(axis=1).sum(), "reason": None}
        expected = {metric: np.mean(v) for metric, v in values[name].items()} | counts
        assert {metric: cell[metric] for metric in expected} == pytest.approx(expected)
    json.dumps(cells, allow_nan=False)
    assert recall_at_k(lists) == pytest.approx(cells["overall"]["recall"])


def test_a_perfect_list_has_only_ones_and_a_worse_order_costs_ndcg_and_mrr_alone():
    users = np.arange(40)
    positives = np.repeat(users, 2), np.tile([0, 1], 40)
    best, worse = (
        evaluate_lists(Lists(np.tile(ranked, (40, 1)), ["DE"] * 40, *positives, num_titles=4))["DE"]
        for ranked in ([0, 1, 2], [2, 0, 1])
    )
    assert [best[metric] for metric in ("recall", "ndcg", "mrr", "hit_rate")] == [1, 1, 1, 1]
    assert (worse["recall"], worse["hit_rate"], worse["mrr"]) == (1, 1, 0.5)
    assert worse["ndcg"] < best["ndcg"]


@pytest.mark.parametrize(
    ("users", "each", "reason"), [(30, 1, None), (29, 1, "29 positives, 30 needed"), (19, 2, "19 users, 20 needed")]
)
def test_lists_with_too_little_evidence_are_not_available(users, each, reason):
    held_out = np.repeat(np.arange(users), each), np.tile(np.arange(each), users)
    lists = Lists(np.zeros((50, 1), int), ["DE"] * 50, *held_out, num_titles=9)
    cell = evaluate_lists(lists)["DE"]
    assert (cell["users"], cell["positives"], cell["reason"]) == (users, users * each, reason)
    assert (cell["ndcg"] is None) == (reason is not None)


def test_recall_divides_by_the_held_out_positives_and_leaves_out_users_without():
    ranked = np.array([[4, 2, 9], [1, -1, -1], [5, 6, 7], [0, 3, 8]])
    held_out = [0, 0, 0, 0, 1, 3, 3, 3], [2, 9, 11, 12, 1, 3, 3, 5]
    slices = [None] * 4
    assert recall_at_k(Lists(ranked, slices, *held_out, num_titles=13)) == pytest.approx((2 / 4 + 1 + 1 / 2) / 3)
    assert recall_at_k(Lists(ranked[:, :1], slices, *held_out, num_titles=13)) == pytest.approx((0 + 1 + 0) / 3)


def test_a_title_ranked_twice_counts_once_and_no_held_out_positive_gives_none():
    assert recall_at_k(Lists([[4, 4]], ["DE"], [0, 0], [4, 5], num_titles=6)) == 0.5
    assert recall_at_k(Lists([[4, 5]], ["DE"], [], [], num_titles=6)) is None

import json

import numpy as np
import pytest
from scipy import stats

from tfmtr.evaluation.compare import relative_gain
from tfmtr.evaluation.metrics import evaluate_task
from tfmtr.evaluation.titles import score_shift


def test_shift_is_the_share_of_pairs_in_order_minus_one_half():
    rng = np.random.default_rng(0)
    users, titles = np.tile(np.arange(25), 2), np.repeat([7, 30], 25)
    scores, baseline = (np.round(rng.random(50) ** power, 1) for power in (1, 2))
    cells = score_shift(scores, baseline, titles, users)
    assert list(cells) == ["30", "7"]
    for title, rows in (("7", titles == 7), ("30", titles == 30)):
        pairs = [(a > b) + (a == b) / 2 for a in scores[rows] for b in baseline[rows]]
        expected = {"shift": np.mean(pairs) - 0.5, "rows": 25, "users": 25, "reason": None}
        assert cells[title] == pytest.approx(expected)
        u = stats.mannwhitneyu(scores[rows], baseline[rows]).statistic
        assert cells[title]["shift"] == pytest.approx(u / 25**2 - 0.5)
    json.dumps(cells, allow_nan=False)


@pytest.mark.filterwarnings("error")
def test_shift_has_the_sign_of_the_move_and_is_zero_without_one():
    users, rng = np.arange(200), np.random.default_rng(0)
    baseline = rng.uniform(0.2, 0.6, 200)

    def shift(scores, baseline=baseline):
        return score_shift(scores, baseline, np.full(200, "local"), users)["local"]["shift"]

    assert shift(baseline + 0.1) > 0.1
    assert shift(baseline - 0.1) == pytest.approx(-shift(baseline + 0.1), abs=0.02)
    assert shift(baseline[::-1]) == 0
    assert shift(np.full(200, 0.5), np.full(200, 0.5)) == 0
    assert shift((baseline + 0.1) ** 3, baseline**3) == shift(baseline + 0.1)


def test_a_title_with_few_users_is_not_available_and_a_row_without_a_title_is_left_out():
    titles = ["a"] * 30 + [None] * 30
    cells = score_shift(np.full(60, 0.5), np.full(60, 0.5), titles, np.arange(60) % 19)
    assert cells == {"a": {"shift": None, "rows": 30, "users": 19, "reason": "19 users, 20 needed"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [0.1, 1.5]}, "`scores` must be probabilities"),
        ({"baseline_scores": [0.1, np.nan]}, "`baseline_scores` must be probabilities"),
        ({"titles": ["a"]}, "`titles`, `users` must each have one value a row"),
        ({"users": [1, None]}, "`users` must name the user of every row"),
    ],
)
def test_shift_refuses_bad_input(change, message):
    arguments = {"scores": [0, 1], "baseline_scores": [0, 1], "titles": ["a", "a"], "users": [1, 2], **change}
    with pytest.raises(ValueError, match=message):
        score_shift(**arguments)


def test_gain_per_title_is_that_of_two_evaluations_by_title():
    rng = np.random.default_rng(0)
    titles, users = np.repeat(["local", "global"], 300), np.tile(np.arange(300), 2)
    labels = (rng.random(600) < 0.3).astype(float)
    weak, strong = rng.random(600), np.clip(rng.random(600) * 0.5 + 0.5 * labels, 0, 1)
    scores = np.where(titles == "local", strong, weak)
    ours, theirs = ({1: evaluate_task(labels, s, titles, users)} for s in (scores, weak))
    gains = relative_gain(ours, theirs)["average"]
    assert gains["global"] == 0
    assert gains["local"] == pytest.approx(100 * (ours[1]["local"]["pr_auc"] / theirs[1]["local"]["pr_auc"] - 1))
    assert gains["local"] > 50

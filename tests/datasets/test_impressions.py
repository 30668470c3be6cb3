import numpy as np
import pytest

from tfmtr.datasets.impressions import TASKS, impressions


@pytest.fixture(scope="module")
def data():
    return impressions(200_000, seed=1)


def test_labels_and_potential_purchases_follow_the_true_probabilities(data):
    """In bins of the true probability, the share of ones is the mean probability."""
    for name, label in (
        ("click", data.y["click"]),
        ("purchase|click", data.would_purchase),
        ("purchase", data.y["purchase"]),
    ):
        p = data.probability[name]
        bins = np.digitize(p, np.quantile(p, np.linspace(0, 1, 11)[1:-1]))
        for i in range(10):
            rows = bins == i
            error = np.sqrt(p[rows].mean() / rows.sum())
            assert abs(label[rows].mean() - p[rows].mean()) < 5 * error, (name, i)


def test_nothing_happens_without_a_click(data):
    for name in TASKS[1:]:
        assert not data.y[name][data.y["click"] == 0].any()
    np.testing.assert_array_equal(data.y["purchase"], data.y["click"] * data.would_purchase)


def test_clicked_rows_convert_more_than_all_would_and_more_so_with_confounding(data):
    def excess(data):
        clicked = data.y["click"] == 1
        return data.would_purchase[clicked].mean() / data.would_purchase.mean()

    weak = excess(impressions(200_000, seed=1, confounding=0.0))
    assert 1.0 < weak < excess(data) - 0.1


def test_users_and_titles_belong_to_the_world_and_rows_to_the_seed():
    same, other = impressions(500, world=3, seed=0), impressions(500, world=3, seed=1)
    np.testing.assert_array_equal(same.probability["click"], impressions(500, world=3).probability["click"])
    assert not np.array_equal(same.x["user"], other.x["user"])
    assert not np.array_equal(impressions(500, world=4).probability["click"], same.probability["click"])


def test_what_is_hidden_is_in_no_feature():
    whole, none = impressions(100_000, hidden=0.0), impressions(100_000, hidden=1.0)
    correlations = [np.corrcoef(d.x["intent"], d.y["click"])[0, 1] for d in (whole, none)]
    assert correlations[0] > 0.2
    assert abs(correlations[1]) < 0.02
    with pytest.raises(ValueError, match=r"`hidden` must be in \[0, 1\]. Received: hidden=2"):
        impressions(10, hidden=2)


def test_the_schema_says_what_follows_what(data):
    assert [(task.name, task.after) for task in data.schema.tasks] == [
        ("click", None), ("view", "click"), ("cart", "click"), ("purchase", "click"),
    ]  # fmt: skip
    assert data.schema.tasks[0].mean == pytest.approx(data.y["click"].mean())


def test_titles_of_high_appeal_are_further_up_and_clicked_more_than_they_would_be():
    data = impressions(100_000, position=2.0)
    place = data.x["position"] - 1
    assert data.schema.by_role("training")[0].name == "position"
    assert sorted(set(place)) == list(range(10))
    rates = [(data.y["click"][place == p].mean(), data.probability["click"][place == p].mean()) for p in (0, 9)]
    (top, fair_top), (bottom, fair_bottom) = rates
    assert top > 2 * fair_top
    assert bottom < 0.5 * fair_bottom
    assert fair_top > fair_bottom
    same = impressions(100_000)
    np.testing.assert_array_equal(data.probability["click"], same.probability["click"])


def test_a_purchase_is_in_the_log_if_it_came_before_the_log_was_read():
    data, all_seen = impressions(300_000, delay=2.0), impressions(300_000)
    elapsed, seen, bought = data.x["elapsed"], data.y["purchase"], all_seen.y["purchase"]
    np.testing.assert_array_equal(data.would_purchase, all_seen.would_purchase)
    assert not (seen > bought).any()
    assert 0 <= elapsed.min() < elapsed.max() <= 7
    cut = 1 - np.exp(-7 / 2.0)
    t = np.linspace(0, 7, 1001)
    expected = np.mean((1 - np.exp(-t / 2.0)) / cut)  # read at a uniform time
    assert seen.sum() / bought.sum() == pytest.approx(expected, abs=0.02)
    # Of the purchases that are not seen, none came before the log was read.
    early = elapsed[(bought == 1) & (seen == 0)].mean()
    assert early < elapsed[bought == 0].mean() - 0.5
    with pytest.raises(ValueError, match=r"`delay` must not be negative. Received: delay=-1"):
        impressions(10, delay=-1)

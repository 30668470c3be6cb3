import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tfmtr.evaluation.evidence import compare_lists


def frame(values, windows=1, seeds=None):
    """Values of shape (users, windows) or (seeds, users, windows) as a data frame."""
    values = np.asarray(values, float)
    if seeds is None:
        values = values[None]
    number, users, windows = values.shape
    index = pd.MultiIndex.from_product([range(number), range(users), range(windows)], names=["seed", "user", "window"])
    found = pd.DataFrame({"value": values.ravel()}, index=index).reset_index()
    return found if seeds else found.drop(columns="seed")


def test_interval_and_detectable_ratio_are_those_of_the_delta_method():
    rng = np.random.default_rng(0)
    ours, theirs = rng.gamma(2.0, 0.5, (3000, 1)), rng.gamma(2.0, 0.45, (3000, 1))
    found = compare_lists(frame(ours), frame(theirs), num_samples=4000)
    ratio = ours.mean() / theirs.mean()
    error = np.std(ours / ours.mean() - theirs / theirs.mean()) / np.sqrt(3000)  # of the ratio's logarithm
    assert found["ratio"] == pytest.approx(ratio)
    assert found["low"] == pytest.approx(ratio * np.exp(-1.96 * error), rel=0.005)
    assert found["high"] == pytest.approx(ratio * np.exp(1.96 * error), rel=0.005)
    assert found["detectable"] == pytest.approx(np.exp((1.96 + 0.8416) * error), rel=0.005)
    z = abs(np.log(ratio)) / error
    assert found["p_value"] == pytest.approx(max(2 * stats.norm.sf(z), 2 / 4001), abs=0.01)


def test_a_user_s_windows_are_drawn_together():
    """The same figures in four windows are no more evidence than in one."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((300, 1)), rng.random((300, 1))
    one = compare_lists(frame(ours), frame(theirs))
    four = compare_lists(frame(np.repeat(ours, 4, axis=1)), frame(np.repeat(theirs, 4, axis=1)))
    assert four["user_windows"] == 4 * one["user_windows"]
    assert four["users"] == one["users"] == 300
    for name in ("ratio", "low", "high", "detectable"):
        assert four[name] == pytest.approx(one[name])


def test_seeds_are_drawn_and_add_no_users():
    rng = np.random.default_rng(2)
    users, theirs = rng.random((400, 1)), frame(rng.random((400, 1)))
    same = compare_lists(frame([users] * 5, seeds=True), theirs)
    single = compare_lists(frame(users), theirs)
    assert same["high"] - same["low"] == pytest.approx(single["high"] - single["low"], rel=0.1)
    # Seeds that differ by a factor make the interval wider; five of them less so than two.
    apart = [users * factor for factor in (0.6, 1.4)]
    two = compare_lists(frame(apart, seeds=True), theirs)
    ten = compare_lists(frame(apart * 5, seeds=True), theirs)
    assert two["high"] - two["low"] > 2 * (single["high"] - single["low"])
    assert ten["high"] - ten["low"] < 0.7 * (two["high"] - two["low"])
    assert two["ratio"] == pytest.approx(single["ratio"])


def test_a_difference_of_the_detectable_size_is_found_in_four_of_five_logs():
    rng, found = np.random.default_rng(3), []
    noise = rng.gamma(2.0, 0.5, (200, 2, 400, 1))
    detectable = compare_lists(frame(noise[0, 0]), frame(noise[0, 1]))["detectable"]
    for ours, theirs in noise:
        found.append(compare_lists(frame(ours * detectable), frame(theirs), num_samples=200)["low"] > 1)
    assert 0.7 < np.mean(found) < 0.9


def test_one_lucky_user_is_no_evidence():
    """A third of the samples have none of that user: the ratio is 0 there."""
    users = pd.DataFrame({"user": range(40), "window": 1})
    found = compare_lists(users.assign(value=[1.0] + [0.0] * 39), users.assign(value=0.02))
    assert found["ratio"] == pytest.approx(1.25)
    assert found["low"] == 0.0
    assert found["p_value"] > 0.5
    other = compare_lists(users.assign(value=0.02), users.assign(value=[1.0] + [0.0] * 39))
    assert other["high"] is None  # theirs may be 0
    assert other["p_value"] == pytest.approx(found["p_value"], abs=0.05)


def test_what_cannot_be_compared():
    users = pd.DataFrame({"user": range(30), "window": 1, "value": 1.0})
    with pytest.raises(ValueError, match=r"must have the same pairs .* Received: 30 and 29, of which 29 are in both"):
        compare_lists(users, users[1:])
    twice = pd.concat([users.assign(seed=0), users[1:].assign(seed=1)])
    with pytest.raises(ValueError, match=r"in every seed. Received: 1 of 60 are missing"):
        compare_lists(twice, users)
    with pytest.raises(ValueError, match=r"must come once in a seed\. Received: 1 of 31 come again"):
        compare_lists(pd.concat([users, users[:1]]), users)
    for value in (-0.5, np.inf):
        with pytest.raises(
            ValueError, match=r"`value` must be a finite number from 0 up\. Received: (-0.5|inf) \(30 such"
        ):
            compare_lists(users, users.assign(value=value))
    with pytest.raises(ValueError, match="`num_samples` must be positive"):
        compare_lists(users, users, num_samples=0)
    assert compare_lists(users[:19], users[:19])["reason"] == "19 users, 20 needed"
    zero = compare_lists(users, users.assign(value=0.0))
    assert (zero["reason"], zero["ratio"], zero["ours"]) == ("a mean of 0", None, 1.0)

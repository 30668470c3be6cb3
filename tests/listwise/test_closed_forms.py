"""Each closed form against its equation, on a few rows."""

import dataclasses

import numpy as np
import pytest
from scipy import sparse

from tfmtr.evaluation.baselines.ease import ease
from tfmtr.evaluation.baselines.history import History
from tfmtr.listwise.collaborative import factorise, frequent_titles, next_titles, together
from tfmtr.listwise.parts import Case, Factors, Parts, learn_factors, learning_cases
from tfmtr.listwise.past_titles import fold
from tfmtr.listwise.prior import log_shares
from tfmtr.listwise.rows import ListRows

# Users 0 and 1 live in territory 0, user 2 in 1; the last event may not be fitted on.
HISTORY = History(
    [0, 0, 1, 2, 2], [0, 1, 1, 2, 0], [1.0, 8.0, 8.0, 1.0, 1.0], [0, 0, 1], num_titles=4,
    fitted=[True, True, True, True, False],
)  # fmt: skip


def test_log_shares_follow_the_equation():
    everywhere, there = log_shares(HISTORY, 7.0)
    counts = np.array([[0.5 ** (1 / 7), 2 * 0.5 ** (8 / 7), 0.0, 0.0], [0.0, 0.0, 0.5 ** (1 / 7), 0.0]])
    shares = (counts.sum(axis=0) + 0.1) / (counts.sum() + 0.4)
    np.testing.assert_allclose(everywhere, np.log(shares), rtol=1e-6)
    local = (counts + 20 * shares) / (counts.sum(axis=1, keepdims=True) + 20)
    np.testing.assert_allclose(there, np.log(local) - np.log(shares), rtol=1e-4, atol=1e-6)
    assert there[1, 2] > 0 > there[0, 2]  # popular in territory 1 only
    slow, _ = log_shares(HISTORY, None)
    assert slow[1] > slow[0]  # two users, however long ago
    assert log_shares(HISTORY, 1.0)[0][0] > log_shares(HISTORY, 1.0)[0][1]  # one user yesterday


def test_a_fold_follows_the_equation():
    ages = np.array([[0.0, 7.0, np.nan], [np.nan] * 3, [14.0, np.nan, np.nan]])
    np.testing.assert_allclose(fold(ages, 7.0)[0], [1 / np.sqrt(1.5), 0.5 / np.sqrt(1.5), 0.0], rtol=1e-6)
    np.testing.assert_allclose(fold(ages, 7.0)[1:], [[0, 0, 0], [0.25, 0, 0]], rtol=1e-6)  # never below 1 in the root
    np.testing.assert_allclose(fold(ages, None)[0], [np.sqrt(0.5), np.sqrt(0.5), 0.0], rtol=1e-6)


def test_together_is_ease():
    titles = frequent_titles(HISTORY)
    assert titles.tolist() == [0, 1, 2]
    weights = together(HISTORY, titles, l2=2.0)
    scores = HISTORY.matrix[:, titles] @ weights
    np.testing.assert_allclose(scores, ease(HISTORY, l2=2.0)([0, 1, 2])[:, titles], atol=1e-6)
    assert frequent_titles(HISTORY, 1).tolist() == [1]
    with pytest.raises(ValueError, match="`l2` must be larger"):
        together(HISTORY, titles, l2=-1.0)


def test_next_titles_are_a_weighted_ridge_regression():
    rng = np.random.default_rng(0)
    pasts = sparse.csr_matrix(rng.random((6, 4)).astype("float32"))
    wanted = sparse.csr_matrix((rng.random((6, 4)) < 0.5).astype("float32"))
    weights, titles = np.array([1.0, 0.5, 0.25, 1.0, 2.0, 1.0]), np.array([0, 2, 3])
    h = pasts.toarray()[:, titles]
    y = wanted.toarray()[:, titles] / np.sqrt(np.maximum(wanted.toarray().sum(axis=1, keepdims=True), 1))
    right = np.linalg.solve(h.T @ (weights[:, None] * h) + 3.0 * np.eye(3), h.T @ (weights[:, None] * y))
    np.testing.assert_allclose(next_titles(pasts, wanted, weights, titles, l2=3.0), right, rtol=1e-4, atol=1e-6)


def test_next_titles_know_the_direction():
    pasts = sparse.csr_matrix(np.tile([1.0, 0.0], (50, 1)))
    wanted = sparse.csr_matrix(np.tile([0.0, 1.0], (50, 1)))
    weights = next_titles(pasts, wanted, np.ones(50), np.arange(2))
    assert weights[0, 1] > 0.8
    assert weights[1, 0] == 0


def test_factors_of_a_width_are_the_best_approximation():
    matrix = np.random.default_rng(1).normal(size=(6, 5)).astype("float32")
    inputs, outputs = factorise(matrix, 2)
    left, sizes, right = np.linalg.svd(matrix)
    np.testing.assert_allclose(inputs @ outputs.T, (left[:, :2] * sizes[:2]) @ right[:2], atol=1e-4)
    inputs, outputs = factorise(matrix, 9)
    assert (inputs.shape, outputs.shape) == ((6, 9), (5, 9))
    np.testing.assert_allclose(inputs @ outputs.T, matrix, atol=1e-5)


def rows_of(wanted, homes, pasts=None, window=0):
    wanted = sparse.csr_matrix(np.asarray(wanted, "float32"))
    nothing = sparse.csr_matrix(wanted.shape, dtype="float32")
    pasts = nothing if pasts is None else sparse.csr_matrix(np.asarray(pasts, "float32"))
    return ListRows(window, np.asarray(homes), pasts, pasts.astype(bool), wanted)


def parts_of(shares, there, weights=None):
    """Parts of shares `(speeds, titles)` and of territories' shares `(speeds, territories, titles)`."""
    everywhere, there = np.log(np.asarray(shares, "float32")), np.log(np.asarray(there, "float32"))
    weights = np.zeros((1, 0, 0), "float32") if weights is None else np.asarray(weights, "float32")
    return Parts(everywhere, there - everywhere[:, None], np.arange(weights.shape[-1]), weights)


def some_parts(rng, titles=30, weights=True):
    everywhere, there = rng.dirichlet(np.full(titles, 0.3), 2) + 0.01, rng.dirichlet(np.ones(titles), (2, 3)) + 0.01
    return parts_of(everywhere, there, rng.normal(size=(2, titles, titles)) if weights else None)


def test_a_prior_is_the_log_of_a_mixture_and_trends_beside_it():
    """By hand, of two titles: half of the share of all and half of the territory's, and a tenth of the share's log."""
    parts = parts_of([[0.25, 0.75]], [[[0.5, 0.5], [0.25, 0.75]]])
    factors = Factors(np.array([[0.5], [0.5]]), 2.0, np.array([[0.1], [0.2]]), np.zeros(1))
    prior, there = parts.prior(factors)
    np.testing.assert_allclose(prior, 2 * np.log([0.25, 0.75]) + 0.1 * np.log([0.25, 0.75]), rtol=1e-5)
    first = 2 * np.log([0.375, 0.625]) + 0.1 * np.log([0.25, 0.75]) + 0.2 * (np.log([0.5, 0.5]) - np.log([0.25, 0.75]))
    np.testing.assert_allclose(prior + there[0], first, rtol=1e-5)
    np.testing.assert_allclose(there[1], [0.0, 0.0], atol=1e-6)


def test_the_loss_is_that_of_the_docstring_and_its_slope_is_that_of_differences():
    rng = np.random.default_rng(0)
    parts, homes = some_parts(rng), np.array([2, 0, 2, 0])  # of territory 1 there is no row
    pasts, wanted = np.zeros((4, 30)), np.zeros((4, 30))
    pasts[:, :5], wanted[range(4), [6, 7, 8, 9]], wanted[0, 10] = rng.random((4, 5)), 1, 1
    rows = rows_of(wanted, homes, pasts)
    first = np.where(np.arange(30) < 28, 0, 1)  # two titles come later
    factors = Factors(np.full((2, 2), 0.25), 0.8, rng.normal(size=(2, 2)) * 0.1, np.array([0.3, -0.2]))
    case = Case.of(parts, rows, first)
    figure, slopes = case.loss(factors)
    prior, there = parts.prior(factors)
    expected = 0.0
    for home, past, taken in zip(homes, pasts, wanted, strict=True):
        logits = prior + there[home] + past @ (0.3 * parts.weights[0] - 0.2 * parts.weights[1])
        logits[(past > 0) | (first > 0)] = -np.inf
        odds = np.exp(logits - logits.max())
        expected -= np.sum(np.log(odds[taken > 0] / odds.sum())) / np.sqrt(taken.sum())
    assert figure == pytest.approx(expected, rel=1e-5)
    for field, slope in zip(dataclasses.fields(factors), slopes, strict=True):
        value = np.asarray(getattr(factors, field.name), float)
        for place in np.ndindex(value.shape):
            sides = []
            for step in (1e-2, -1e-2):
                other = value.copy()
                other[place] += step
                sides.append(case.loss(dataclasses.replace(factors, **{field.name: other}))[0])
            assert np.asarray(slope)[place] == pytest.approx((sides[0] - sides[1]) / 2e-2, rel=2e-2, abs=2e-3), field


def test_factors_find_the_part_that_tells_what_is_taken():
    """Users take what was popular in their territory lately; what is popular everywhere, and was before, says less."""
    rng = np.random.default_rng(0)
    parts = some_parts(rng, weights=False)
    homes = rng.integers(0, 3, 3_000)
    odds = np.exp(parts.everywhere[1] + parts.there[1])
    odds /= odds.sum(axis=1, keepdims=True)
    taken = [rng.choice(30, p=odds[home]) for home in homes]
    cases = learning_cases([parts], [rows_of(np.eye(30)[taken], homes)], np.zeros(30, int))
    found = learn_factors(cases, 2, 1)
    assert found.shares.sum() == pytest.approx(1.0)
    assert found.shares[1, 1] > 0.8
    assert found.power + found.trends[1, 1] == pytest.approx(1.0, abs=0.1)
    fixed = learn_factors(cases, 2, 1, speed=0)
    np.testing.assert_array_equal(fixed.shares, [[0, 0], [1, 0]])
    assert not fixed.trends.any()
    assert sum(case.loss(found)[0] for case in cases) < sum(case.loss(fixed)[0] for case in cases)


def test_a_rising_title_comes_before_one_that_falls():
    """Of two titles with the same events lately the one with fewer before is taken more: a trend that is learnt."""
    rng = np.random.default_rng(0)
    old, new = rng.dirichlet(np.ones(30)) + 0.01, rng.dirichlet(np.ones(30)) + 0.01
    parts = parts_of([new, old], np.stack([new, old])[:, None])
    odds = new**1.8 * old**-0.8
    taken = rng.choice(30, 3_000, p=odds / odds.sum())
    found = learn_factors(
        learning_cases([parts], [rows_of(np.eye(30)[taken], np.zeros(3_000, int))], np.zeros(30, int)), 2, 1
    )
    assert found.trends[0, 1] < -0.3


def test_popularity_alone_leaves_the_past_out():
    rng = np.random.default_rng(0)
    parts = some_parts(rng)
    pasts = np.eye(30)[rng.integers(0, 30, 400)]
    scores = np.where(pasts > 0, -np.inf, 2.0 * pasts @ parts.weights[0])
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    taken = [rng.choice(30, p=row / row.sum()) for row in odds]
    cases = learning_cases([parts], [rows_of(np.eye(30)[taken], np.zeros(400, int), pasts)], np.zeros(30, int))
    found = learn_factors(cases, 2, 2)
    assert found.weights[0] == pytest.approx(2.0, abs=0.4)
    assert abs(found.weights[1]) < 0.3
    assert not learn_factors(cases, 2, 2, popularity=True).weights.any()


def test_many_rows_are_drawn_and_no_row_is_no_case(monkeypatch):
    monkeypatch.setattr("tfmtr.listwise.parts.MOST_SCORES", 30 * 60)
    parts, none = some_parts(np.random.default_rng(0)), rows_of(np.zeros((0, 30)), np.zeros(0, int))
    many = rows_of(np.eye(30)[np.arange(200) % 30], np.zeros(200, int))
    cases = learning_cases([parts, parts], [many, none], np.zeros(30, int))
    assert [len(case.homes) for case in cases] == [50]
    again = learning_cases([parts, parts], [many, none], np.zeros(30, int), seed=1)
    assert again[0].title.tolist() != cases[0].title.tolist()
    nothing = learn_factors([], 2, 2)
    np.testing.assert_allclose(nothing.shares, 0.25)

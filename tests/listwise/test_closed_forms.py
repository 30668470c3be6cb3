"""Each closed form against its equation, on a few rows."""

import dataclasses

import numpy as np
import pytest
from scipy import sparse

from tfmtr.evaluation.baselines.ease import ease
from tfmtr.evaluation.baselines.history import History
from tfmtr.listwise.collaborative import factorise, frequent_titles, next_titles, together
from tfmtr.listwise.factors import find_heads, learn, learn_factors
from tfmtr.listwise.parts import Factors, Parts, activity_of
from tfmtr.listwise.past_titles import fold
from tfmtr.listwise.prior import LocalShares, log_shares
from tfmtr.listwise.rows import ListRows
from tfmtr.listwise.texts import next_vectors, unit

# Users 0 and 1 live in territory 0, user 2 in 1; the last event may not be fitted on.
HISTORY = History(
    [0, 0, 1, 2, 2], [0, 1, 1, 2, 0], [1.0, 8.0, 8.0, 1.0, 1.0], [0, 0, 1], num_titles=4,
    fitted=[True, True, True, True, False],
)  # fmt: skip


def test_log_shares_follow_the_equation():
    (everywhere, slow), there = log_shares(HISTORY, [7.0, None])
    counts = np.array([[0.5 ** (1 / 7), 2 * 0.5 ** (8 / 7), 0.0, 0.0], [0.0, 0.0, 0.5 ** (1 / 7), 0.0]])
    shares = (counts.sum(axis=0) + 0.1) / (counts.sum() + 0.4)
    np.testing.assert_allclose(everywhere, np.log(shares), rtol=1e-6)
    local = (counts + 20 * shares) / (counts.sum(axis=1, keepdims=True) + 20)
    for territory in range(2):
        expected = np.log(local[territory]) - np.log(shares)
        np.testing.assert_allclose(there[territory][0], expected, rtol=1e-4, atol=1e-6)
    assert there[1][0, 2] > 0 > there[0][0, 2]  # popular in territory 1 only
    assert slow[1] > slow[0]  # two users, however long ago
    (fast,), _ = log_shares(HISTORY, [1.0])
    assert fast[0] > fast[1]  # one user yesterday
    titles = np.array([[3, 2], [0, 0], [2, 1]])
    expected = np.stack([there[home][:, own] for home, own in zip([1, 0, 1], titles, strict=True)], axis=1)
    np.testing.assert_array_equal(there.of(np.array([1, 0, 1]), titles), expected)


def test_what_territories_have_is_kept_of_pairs_with_events_alone():
    """A thousand titles in fifty territories, and two events in one of them: no array has a place for each pair."""
    homes = np.arange(50)
    history = History([7, 7], [3, 900], [1.0, 1.0], homes, num_titles=1_000)
    _, there = log_shares(history, [1.0, None])
    assert len(there) == 50
    assert there.counted.shape == (2, 2)
    assert sum(array.size for array in (there.rest, there.begin, there.titles, there.counted)) < 200
    assert np.flatnonzero(there[7][0] > there[7][0].min()).tolist() == [3, 900]
    assert not there[8].any()  # no events: the shares of all


def test_a_fold_follows_the_equation():
    rows, ages = np.array([2, 0, 0]), np.array([14.0, 0.0, 7.0])
    expected = [0.25, 1 / np.sqrt(1.5), 0.5 / np.sqrt(1.5)]  # never below 1 in the root
    np.testing.assert_allclose(fold(rows, ages, 7.0, 3), expected, rtol=1e-6)
    np.testing.assert_allclose(fold(rows, ages, None, 3), [1.0, np.sqrt(0.5), np.sqrt(0.5)], rtol=1e-6)


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


def parts_of(shares, there, weights=None, vectors=None):
    """Parts of shares `(speeds, titles)` and of territories' shares `(speeds, territories, titles)`."""
    everywhere, there = np.log(np.asarray(shares, "float32")), np.log(np.asarray(there, "float32"))
    weights = np.zeros((2, 0, 0), "float32") if weights is None else np.asarray(weights, "float32")
    vectors = np.zeros((everywhere.shape[1], 2), "float32") if vectors is None else unit(vectors)
    follow = np.array([[0.0, 1.0], [-1.0, 0.0]], "float32")
    there = local_shares(there - everywhere[:, None])
    return Parts(everywhere, there, np.arange(weights.shape[-1]), weights, vectors, follow)


def local_shares(there):
    """`LocalShares` in which every pair has events."""
    speeds, territories, titles = there.shape
    begin = titles * np.arange(territories + 1)
    every = np.tile(np.arange(titles), territories)
    return LocalShares(np.zeros((speeds, territories)), begin, every, there.reshape(speeds, -1), titles)


def some_parts(rng, titles=30, weights=True):
    everywhere, there = rng.dirichlet(np.full(titles, 0.3), 2) + 0.01, rng.dirichlet(np.ones(titles), (2, 3)) + 0.01
    return parts_of(
        everywhere, there, rng.normal(size=(2, titles, titles)) if weights else None,
        rng.normal(size=(titles, 2)) if weights else None,
    )  # fmt: skip


def test_a_prior_is_the_log_of_a_mixture_and_trends_beside_it():
    """By hand, of two titles: half of the share of all and half of the territory's, and a tenth of the share's log."""
    parts = parts_of([[0.25, 0.75]], [[[0.5, 0.5], [0.25, 0.75]]])
    factors = Factors(np.array([[0.5], [0.5]]), 2.0, np.array([[0.1], [0.2]]), np.zeros(1), np.zeros(4))
    prior, there = parts.prior(factors)
    np.testing.assert_allclose(prior, 2 * np.log([0.25, 0.75]) + 0.1 * np.log([0.25, 0.75]), rtol=1e-5)
    first = 2 * np.log([0.375, 0.625]) + 0.1 * np.log([0.25, 0.75]) + 0.2 * (np.log([0.5, 0.5]) - np.log([0.25, 0.75]))
    np.testing.assert_allclose(prior + there[0], first, rtol=1e-5)
    np.testing.assert_allclose(there[1], [0.0, 0.0], atol=1e-6)


def test_unit_vectors_are_of_titles_that_have_one():
    found = unit(np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    assert not unit(np.zeros((2, 3))).any()


def test_next_vectors_follow_the_equation_and_know_the_direction():
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(6, 2)))
    pasts, wanted = rng.random((8, 6)), (rng.random((8, 6)) < 0.4).astype(float)
    wanted[:, 0] = 1
    weights = rng.random(8)
    found = next_vectors(sparse.csr_matrix(pasts), sparse.csr_matrix(wanted), weights, vectors, l2=0.5)
    target = wanted / np.sqrt(wanted.sum(axis=1, keepdims=True))
    beyond = target - target.sum(axis=1, keepdims=True) * target.sum(axis=0) / target.sum()
    known, middle = pasts @ vectors, np.diag(weights)
    left = np.linalg.inv(known.T @ middle @ known + 0.5 * np.eye(2)) @ known.T @ middle @ beyond @ vectors
    np.testing.assert_allclose(found, left @ np.linalg.inv(vectors.T @ vectors + 0.5 * np.eye(2)), rtol=1e-4)
    # Titles 0 to 2 are of one text and 3 to 5 of another; what comes after the first is the second.
    two = unit(np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3))
    pasts = sparse.csr_matrix(np.eye(6)[[0, 1, 2, 3, 4, 5] * 3].astype("float32"))
    wanted = sparse.csr_matrix(np.eye(6)[[3, 4, 5, 0, 1, 2] * 3].astype("float32"))
    after = two @ next_vectors(pasts, wanted, np.ones(18), two) @ two.T
    assert after[0, 4] > 0 > after[0, 1]


def test_scores_of_pasts_and_their_product_of_two_matrices():
    rng = np.random.default_rng(0)
    parts = some_parts(rng, titles=6)
    pasts = sparse.csr_matrix(rng.random((3, 6)).astype("float32"))
    scores = parts.scores(pasts)
    x = pasts @ parts.vectors
    for found, expected in zip(
        scores,
        [pasts @ parts.weights[0], pasts @ parts.weights[1], x @ parts.vectors.T, x @ parts.follow @ parts.vectors.T],
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    factors = Factors(np.zeros((2, 2)), 1.0, np.zeros((2, 2)), np.zeros(2), np.array([0.5, -1.0, 2.0, 3.0]))
    inputs, outputs = parts.factorised(factors, 8)  # of six titles: exact, and two columns are of nothing
    np.testing.assert_allclose(pasts @ inputs @ outputs.T, np.tensordot(factors.weights, scores, axes=1), atol=1e-4)
    assert inputs.shape == outputs.shape == (6, 8)
    narrow, wide = parts.factorised(factors, 3)  # the best of a width, as twice the width is all there is
    left, sizes, right = np.linalg.svd(inputs @ outputs.T)
    np.testing.assert_allclose(narrow @ wide.T, left[:, :3] * sizes[:3] @ right[:3], atol=1e-3)


def heads_of(parts, rows, first=None, *, best=30, drawn=0, factors=None):
    first = np.zeros(rows.wanted.shape[1], int) if first is None else first
    return find_heads(parts, rows, first, factors or Factors.even(len(parts.everywhere)), best, drawn)


def loss_of(heads, factors):
    """The docstring's loss, row by row, without penalties."""
    total, count = 0.0, 0.0
    for row in range(len(heads)):
        logs = heads.logs[:, :, row].astype(float)
        shares = np.exp([logs[0], logs[0] + logs[1]])
        logits = factors.power * np.log(np.einsum("ks,ksi->i", factors.shares, shares))
        logits += np.einsum("ks,ksi->i", factors.trends, logs) + factors.weights @ heads.scores[:, row]
        logits += heads.activity[row] * (factors.activity @ logs[0])
        logits[~heads.is_open[row]] = -np.inf
        odds = np.exp(logits - logits.max())
        total -= heads.weights[row] * np.sum(np.log(odds[heads.is_taken[row]] / odds.sum()))
        count += heads.weights[row] * heads.is_taken[row].sum()
    return total / count


def test_heads_are_the_best_titles_that_there_were_and_that_users_did_not_have():
    rng = np.random.default_rng(0)
    parts = some_parts(rng)
    pasts, wanted = np.zeros((4, 30)), np.zeros((4, 30))
    pasts[:, :5], wanted[range(4), [6, 7, 8, 29]], wanted[0, 10] = rng.random((4, 5)), 1, 1
    homes, first = np.array([2, 0, 2, 0]), np.where(np.arange(30) < 28, 0, 1)  # two titles come later
    factors = Factors(np.full((2, 2), 0.25), 0.8, rng.normal(size=(2, 2)), rng.normal(size=2), rng.normal(size=4))
    heads = heads_of(parts, rows_of(wanted, homes, pasts), first, best=23, factors=factors)
    assert len(heads) == 3  # what the fourth took was not there yet
    np.testing.assert_allclose(heads.weights, [2**-0.5, 1, 1])
    assert heads.is_open.all()
    assert heads.is_taken.sum(axis=1).tolist() == [2, 1, 1]
    prior, there = parts.prior(factors)
    scores = prior + there[homes] + np.tensordot(factors.weights, parts.scores(sparse.csr_matrix(pasts)), axes=1)
    scores += (np.log(6) - 2) * parts.lean(factors)  # all pasts are of five titles
    for row in range(3):
        open_ = sorted(scores[row, 5:28])
        of_heads = (
            np.einsum("ks,ksi->i", factors.trends, heads.logs[:, :, row]) + factors.weights @ heads.scores[:, row]
        )
        of_heads += heads.activity[row] * (factors.activity @ heads.logs[0, :, row])
        shares = np.exp([heads.logs[0, :, row], heads.logs[:, :, row].sum(axis=0)])
        of_heads += factors.power * np.log(np.einsum("ks,ksi->i", factors.shares, shares))
        np.testing.assert_allclose(sorted(of_heads), open_, rtol=1e-4, atol=1e-4)
    few = heads_of(parts, rows_of(wanted, homes, pasts), first, best=4, drawn=6, factors=factors)
    assert few.is_open.shape[1] == 10
    assert few.is_open[:, :4].all()
    assert not few.is_taken[:, 4:].any()


def test_the_best_titles_of_a_long_past_are_others_than_those_of_none():
    """With a negative activity who had much has the least popular title first, and who had nothing the most popular."""
    parts, wanted = some_parts(np.random.default_rng(0), weights=False), np.ones((2, 30))
    pasts = np.vstack([np.zeros(30), np.where(np.arange(30) < 15, 1.0, 0.0)])
    wanted[pasts > 0] = 0
    factors = dataclasses.replace(Factors.even(2), activity=np.array([0.0, -5.0]), power=0.0)
    heads = heads_of(parts, rows_of(wanted, [0, 0], pasts), best=1, factors=factors)
    assert heads.logs[0, 1, 0, 0] == parts.everywhere[1].max()
    assert heads.logs[0, 1, 1, 0] == parts.everywhere[1, 15:].min()


def test_titles_that_were_taken_are_not_among_those_that_are_drawn():
    """The second of two titles that the user took is not among the best: it is no title that was not taken, either."""
    parts = some_parts(np.random.default_rng(0), weights=False)
    best, last = np.argmax(parts.everywhere[1]), np.argmin(parts.everywhere[1])
    wanted = np.zeros((1, 30))
    wanted[0, [best, last]] = 1
    factors = dataclasses.replace(Factors.even(2), power=0.0, trends=np.array([[0.0, 1.0], [0.0, 0.0]]))
    heads = heads_of(parts, rows_of(wanted, [0]), best=1, drawn=500, factors=factors)
    drawn = heads.logs[0, 1, 0, 1:]
    assert parts.everywhere[1, last] in drawn
    assert not heads.is_open[0, 1:][np.isin(drawn, parts.everywhere[1, [best, last]])].any()
    assert heads.is_open[0, 1:].sum() > 300


def test_windows_of_few_titles_have_heads_as_wide_as_others():
    """In the first window there are two titles, in the second none, in the third all: what is missing is not open."""
    parts, wanted = some_parts(np.random.default_rng(0)), np.eye(30)[[0, 1, 2]]
    first = np.where(np.arange(30) < 2, 0, 2)
    rows = [rows_of(wanted, np.zeros(3, int), window=window) for window in (0, -1, 2)]
    heads = [heads_of(parts, row, first, best=30, drawn=3) for row in rows]
    assert [len(head) for head in heads] == [2, 0, 3]
    assert {head.is_open.shape[1] for head in heads} == {33}
    assert heads[0].is_open.sum(axis=1).tolist() == [2, 2]
    factors, _ = learn([parts] * 3, rows, first)
    assert np.isfinite(factors.shares).all()


def test_learnt_factors_are_where_the_loss_is_smallest():
    """Any step away makes the loss of the docstring with its penalties larger."""
    rng = np.random.default_rng(0)
    parts, homes = some_parts(rng), rng.integers(0, 3, 400)
    pasts = rng.random((400, 30)) * (rng.random((400, 30)) < rng.choice([0.02, 0.2], (400, 1)))
    heads = heads_of(parts, rows_of(np.eye(30)[rng.integers(0, 30, 400)], homes, pasts))
    found = learn_factors(heads)

    def penalised(factors):
        logs, scores = heads.logs.reshape(4, -1).std(axis=1), heads.scores.reshape(4, -1).std(axis=1)
        leans = (heads.logs[0] * heads.activity[:, None]).reshape(2, -1).std(axis=1)
        own, near = np.log(factors.shares) - np.log(factors.shares).mean(), 0.5 / heads.weights.sum()
        return (
            loss_of(heads, factors)
            + (near + 5e-3) * np.sum((factors.trends.ravel() * logs) ** 2)
            + (near + 1e-4) * np.sum((factors.weights * scores) ** 2)
            + (near + 1e-4) * np.sum((factors.activity * leans) ** 2)
            + near * (np.log(factors.power) ** 2 + np.sum(own**2))
        )

    least = penalised(found)
    for field in ("power", "trends", "activity", "weights"):
        value = np.asarray(getattr(found, field), float)
        for place in np.ndindex(value.shape):
            for step in (0.05, -0.05):
                other = value.copy()
                other[place] += step
                assert penalised(dataclasses.replace(found, **{field: other})) > least, (field, place, step)


def test_factors_find_the_part_that_tells_what_is_taken():
    """Users take what was popular in their territory lately; what is popular everywhere, and was before, says less."""
    rng = np.random.default_rng(0)
    parts = some_parts(rng, weights=False)
    homes = rng.integers(0, 3, 3_000)
    odds = np.exp(parts.everywhere[1] + np.stack([parts.there[territory][1] for territory in range(3)]))
    odds /= odds.sum(axis=1, keepdims=True)
    taken = [rng.choice(30, p=odds[home]) for home in homes]
    heads = heads_of(parts, rows_of(np.eye(30)[taken], homes))
    found = learn_factors(heads)
    assert found.shares.sum() == pytest.approx(1.0)
    assert found.shares[1, 1] > 0.8
    assert found.power + found.trends[1, 1] == pytest.approx(1.0, abs=0.1)
    fixed = learn_factors(heads, speed=0)
    np.testing.assert_array_equal(fixed.shares, [[0, 0], [1, 0]])
    assert not fixed.trends.any()
    assert loss_of(heads, found) < loss_of(heads, fixed)


def test_a_rising_title_comes_before_one_that_falls():
    """Of two titles with the same events lately the one with fewer before is taken more: a trend that is learnt."""
    rng = np.random.default_rng(0)
    old, new = rng.dirichlet(np.ones(30)) + 0.01, rng.dirichlet(np.ones(30)) + 0.01
    parts = parts_of([new, old], np.stack([new, old])[:, None])
    odds = new**1.8 * old**-0.8
    taken = rng.choice(30, 3_000, p=odds / odds.sum())
    found = learn_factors(heads_of(parts, rows_of(np.eye(30)[taken], np.zeros(3_000, int))))
    assert found.trends[0, 1] - 2 * found.activity[1] < -0.3  # nobody has a past, which is an activity of -2


def test_who_had_much_takes_what_is_less_popular():
    rng = np.random.default_rng(0)
    parts = some_parts(rng, weights=False)
    lengths = rng.choice([0, 20], 3_000)
    pasts = np.where(np.arange(30) < lengths[:, None], 1.0, 0.0)
    odds = np.where(lengths[:, None] > 0, 1.0, np.exp(2 * parts.everywhere[1]))
    odds = np.where(pasts > 0, 0.0, odds)
    taken = [rng.choice(30, p=row / row.sum()) for row in odds]
    rows = rows_of(np.eye(30)[taken], np.zeros(3_000, int), pasts)
    np.testing.assert_allclose(activity_of(rows.pasts), np.where(lengths, np.log(21), 0) - 2, rtol=1e-5)
    found = learn_factors(heads_of(parts, rows))
    slopes = {
        n: found.power * found.shares[:, 1].sum() + found.trends[0].sum() + n * found.activity.sum() for n in (-2, 1.04)
    }
    assert slopes[-2] > 1.0 > 0.6 > slopes[1.04]
    assert not learn_factors(heads_of(parts, rows), popularity=True).activity.any()


@pytest.mark.parametrize("part", range(4))
def test_what_pasts_say_is_found_and_left_out_by_popularity_alone(part):
    rng = np.random.default_rng(0)
    parts = some_parts(rng)
    pasts = np.eye(30)[rng.integers(0, 30, 1_000)]
    scores = np.where(pasts > 0, -np.inf, 2.0 * parts.scores(sparse.csr_matrix(pasts))[part])
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    taken = [rng.choice(30, p=row / row.sum()) for row in odds]
    heads = heads_of(parts, rows_of(np.eye(30)[taken], np.zeros(1_000, int), pasts))
    found = learn_factors(heads)
    assert found.weights[part] == pytest.approx(2.0, abs=0.4)
    assert np.abs(np.delete(found.weights, part)).max() < 0.3
    assert not learn_factors(heads, popularity=True).weights.any()


def test_the_order_at_the_top_is_learnt_and_the_others_stay_below():
    """Below the first five titles nothing is taken; from these alone it would not be known that they come first."""
    rng = np.random.default_rng(0)
    shares = np.concatenate([[0.1, 0.12, 0.14, 0.16, 0.18], np.full(25, 0.012)])
    parts, wanted = parts_of([shares], shares[None, None]), np.eye(30)[rng.integers(0, 5, 2_000)]
    rows = rows_of(wanted, np.zeros(2_000, int))
    factors = {drawn: learn_factors(heads_of(parts, rows, best=5, drawn=drawn)) for drawn in (0, 10)}
    powers = {drawn: found.power + found.trends[0, 0] - 2 * found.activity[0] for drawn, found in factors.items()}
    assert powers[0] < 0.2 < 0.5 < powers[10]


def test_rounds_many_rows_and_none(monkeypatch):
    parts, none = some_parts(np.random.default_rng(0)), rows_of(np.zeros((0, 30)), np.zeros(0, int))
    many = rows_of(np.eye(30)[np.arange(200) % 30], np.zeros(200, int))
    first = np.zeros(30, int)
    whole, heads = learn([parts, parts], [many, none], first)
    assert len(heads) == 200
    monkeypatch.setattr("tfmtr.listwise.factors.CHUNK", 30 * 7)
    in_parts, _ = learn([parts, parts], [many, none], first)
    for field in dataclasses.fields(Factors):
        np.testing.assert_allclose(getattr(whole, field.name), getattr(in_parts, field.name), rtol=0.1, atol=0.02)
    monkeypatch.setattr("tfmtr.listwise.factors.MOST_SCORES", 30 * 60)
    assert len(learn([parts, parts], [many, none], first)[1]) == 50
    nothing, heads = learn([parts], [none], first)
    assert len(heads) == 0
    np.testing.assert_allclose(nothing.shares, 0.25)
    assert nothing.power == 1.0
    assert not any(np.any(values) for values in (nothing.trends, nothing.activity, nothing.weights))


def test_few_rows_leave_the_factors_near_the_mixture_of_all_shares():
    rng = np.random.default_rng(0)
    parts = some_parts(rng)
    three = learn_factors(heads_of(parts, rows_of(np.eye(30)[[3, 4, 5]], np.zeros(3, int), np.eye(30)[[6, 7, 8]])))
    assert three.power == pytest.approx(1.0, abs=0.5)
    assert three.shares.max() < 0.5

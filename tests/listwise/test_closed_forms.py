"""Each closed form against its equation, on a few rows."""

import numpy as np
import pytest
from scipy import sparse

from tfmtr.evaluation.baselines.ease import ease
from tfmtr.evaluation.baselines.history import History
from tfmtr.listwise.collaborative import factorise, frequent_titles, next_titles, together
from tfmtr.listwise.parts import Parts, learn_factors
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


def test_factors_find_the_part_that_tells_what_is_taken():
    """Users of each territory take what is popular there; what is popular everywhere tells nothing."""
    rng = np.random.default_rng(0)
    there = rng.normal(size=(1, 2, 30)).astype("float32")
    parts = Parts(rng.normal(size=(1, 30)).astype("float32"), there, np.arange(0), np.zeros((1, 0, 0), "float32"))
    homes = rng.integers(0, 2, 400)
    odds = np.exp(1.5 * there[0])
    odds /= odds.sum(axis=1, keepdims=True)
    taken = [rng.choice(30, p=odds[home]) for home in homes]
    rows = rows_of(np.eye(30)[taken], homes)
    everywhere, local, past = learn_factors([parts], [rows], np.zeros(30, int))
    assert abs(everywhere) < 0.2
    assert 1.2 < local < 1.8
    assert past == 0


def test_factors_are_where_the_loss_is_lowest():
    """Against a search by hand of the only part; titles that were had or were not there yet are left out."""
    shares = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], "float32"))
    parts = Parts(shares, np.zeros((1, 1, 4), "float32"), np.arange(0), np.zeros((1, 0, 0), "float32"))
    wanted = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
    rows = rows_of(wanted, [0, 0, 0], pasts=[[1, 0, 0, 0]] * 3)
    first = np.array([0, 0, 0, 5])
    found = learn_factors([parts], [rows], first)[0]
    scale = shares.std()

    def loss(factor):  # the first title was had, the last one comes later
        logits = factor * shares[0, 1:3]
        own = np.log(np.exp(logits) / np.exp(logits).sum())
        return -(2 * own[0] + own[1]) / 3 + 1e-4 * (factor * scale) ** 2

    grid = np.linspace(-5, 5, 20_001)
    assert found == pytest.approx(grid[np.argmin([loss(factor) for factor in grid])], abs=5e-3)

"""The parts of a list's order as of a window, in closed form, and how much each of them counts."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import optimize, sparse

from tfmtr.evaluation.past import Past
from tfmtr.listwise.collaborative import frequent_titles, next_titles, together
from tfmtr.listwise.prior import SPEEDS, log_shares
from tfmtr.listwise.rows import ListRows

ROW_HALF_LIFE = 3.0  # windows after which a row counts half for what users take next
MOST_SCORES = 3_000_000  # of rows and titles that weights are learnt from
PENALTY = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What is known before a window.

    Attributes:
        everywhere: Log shares of the titles, float32 of shape `(speeds, titles)`.
        there: What a territory's differ from them by, float32 of shape `(speeds, territories, titles)`.
        titles: Numbers of the titles that have collaborative weights.
        weights: `together` and `next_titles`, float32 of shape `(2, these titles, these titles)`.
    """

    everywhere: np.ndarray
    there: np.ndarray
    titles: np.ndarray
    weights: np.ndarray

    @property
    def number(self) -> int:
        """How many parts there are."""
        return 2 * len(self.everywhere) + len(self.weights)

    def prior(self, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The prior of the titles, `(titles,)`, and what territories differ from it by, `(territories, titles)`."""
        speeds = len(self.everywhere)
        return factors[:speeds] @ self.everywhere, np.tensordot(factors[speeds : 2 * speeds], self.there, axes=1)

    def matrix(self, factors: np.ndarray) -> np.ndarray:
        """The collaborative weights, added up: float32 of shape `(these titles, these titles)`."""
        return np.tensordot(factors[-len(self.weights) :].astype("float32"), self.weights, axes=1)


def find_parts(past: Past, window: int, days: float | None, earlier: Sequence[ListRows]) -> Parts:
    """The parts as of a window.

    Args:
        past: A `Past`.
        window: Number of the window; of what is later nothing is used.
        days: Length of a window in days, `None` where the data have no times.
        earlier: The `ListRows` of windows before it.
    """
    history = past.history(window)
    speeds = [None] if days is None else [None if speed is None else speed * days for speed in SPEEDS]
    shares = [log_shares(history, half_life) for half_life in speeds]
    titles = frequent_titles(history)
    rows = [row for row in earlier if row.window < window and len(row)]
    if rows:
        ages = np.concatenate([np.full(len(row), window - row.window) for row in rows])
        pasts, wanted = (sparse.vstack([getattr(row, name) for row in rows]).tocsr() for name in ("pasts", "wanted"))
        after = next_titles(pasts, wanted, 0.5 ** (ages / ROW_HALF_LIFE), titles)  # pyright: ignore[reportArgumentType]
    else:
        after = np.zeros((len(titles), len(titles)), "float32")
    everywhere, there = (np.stack(values) for values in zip(*shares, strict=True))
    return Parts(everywhere, there, titles, np.stack([together(history, titles), after]))


def learn_factors(parts: Sequence[Parts], rows: Sequence[ListRows], first: np.ndarray, seed: int = 0) -> np.ndarray:
    """How much each part counts: what makes the titles that were taken the most likely among all.

        z_ri = sum_s (a_s everywhere_si + b_s there_sti) + sum_k c_k (h_r W_k)_i
        L    = - sum_r 1/sqrt(|Y_r|) sum_{i in Y_r} log softmax(z_r)_i + penalty

    over the titles that there were and that the user did not have. The loss is convex; it is minimised by L-BFGS.

    Args:
        parts: The `Parts` of some windows.
        rows: The `ListRows` of the same windows.
        first: What `first_windows` returns.
        seed: Of the rows that are drawn where there are many.

    Returns:
        The factors `a`, `b`, `c`, float64 of shape `(parts.number,)`.
    """
    number = len(first)
    most = max(100, MOST_SCORES // max(number, 1))
    rng, cases = np.random.default_rng(seed), []
    for part, row in zip(parts, rows, strict=True):
        share = max(1, most // max(len(rows), 1))
        if len(row) > share:
            row = row.take(np.sort(rng.choice(len(row), share, replace=False)))
        if not len(row):
            continue
        scores = np.zeros((len(part.weights), len(row), number), "float32")
        for place, weights in enumerate(part.weights):
            scores[place][:, part.titles] = row.pasts[:, part.titles] @ weights
        closed = row.had.toarray() | (first > row.window)
        wanted = row.wanted.toarray()
        closed &= wanted == 0
        counts = wanted.sum(axis=1, keepdims=True)
        cases.append((part, row, scores, np.where(closed, -np.inf, 0.0).astype("float32"), wanted / np.sqrt(counts)))
    size = parts[0].number
    if not cases:
        return np.eye(size)[0]
    speeds = len(parts[0].everywhere)
    spread = np.ones(size)
    for place in range(speeds):
        spread[place] = np.mean([case[0].everywhere[place].std() for case in cases])
        spread[speeds + place] = np.mean([case[0].there[place].std() for case in cases])
    for place in range(size - 2 * speeds):
        spread[2 * speeds + place] = np.mean([case[2][place].std() for case in cases])
    spread = np.maximum(spread, 1e-6)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        factors = (values / spread).astype("float32")
        total, gradient, weight = 0.0, np.zeros(size), 0.0
        for part, row, scores, closed, target in cases:
            everywhere, there = part.prior(factors)
            logits = everywhere + there[row.homes] + closed + np.tensordot(factors[2 * speeds :], scores, axes=1)
            logits -= logits.max(axis=1, keepdims=True)
            odds = np.exp(logits)
            sums = odds.sum(axis=1, keepdims=True)
            total -= float(np.sum(target * np.where(target > 0, logits - np.log(sums), 0.0)))
            weights = target.sum(axis=1, keepdims=True)
            weight += float(weights.sum())
            slope = odds * (weights / sums) - target  # (rows, titles)
            of_titles = slope.sum(axis=0)
            of_homes = np.zeros(part.there.shape[1:], "float32")
            np.add.at(of_homes, row.homes, slope)
            gradient[:speeds] += part.everywhere @ of_titles
            gradient[speeds : 2 * speeds] += np.tensordot(part.there, of_homes, axes=2)
            gradient[2 * speeds :] += np.tensordot(scores, slope, axes=2)
        return (
            total / weight + PENALTY * float(values @ values),
            gradient / spread / weight + 2 * PENALTY * values,
        )

    start = np.zeros(size)
    start[min(1, speeds - 1)] = 0.5 * spread[min(1, speeds - 1)]
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 40})
    return found.x / spread

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
MOST_SCORES = 6_000_000  # of rows and titles that factors are learnt from
PENALTY = 1e-4  # of the collaborative weights' factors
TREND_PENALTY = 5e-3
STEPS = 60


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """How much each part counts.

    Attributes:
        shares: Weights of a mixture of shares, shape `(2, speeds)`, of all territories and of the user's own, which add
            up to 1.
        power: How much the log of the mixture counts.
        trends: How much the log shares themselves count beside it, shape `(2, speeds)`: with a positive one of a fast
            share and a negative one of a slow share, what rises comes first.
        weights: How much each of the collaborative weights counts, shape `(weights,)`.
    """

    shares: np.ndarray
    power: float
    trends: np.ndarray
    weights: np.ndarray


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

    def prior(self, factors: Factors) -> tuple[np.ndarray, np.ndarray]:
        """The prior of the titles, `(titles,)`, and what territories differ from it by, `(territories, titles)`.

        prior_ti = power log sum_s (m_0s p_si + m_1s p_sti) + sum_s (a_s log p_si + b_s (log p_sti - log p_si))

        with the shares `m` and the trends `a`, `b`; where the territory is not known its share is that of all.
        """
        shares = np.exp(self.everywhere)
        of_all = factors.shares.sum(axis=0) @ shares
        of_each = factors.shares[0] @ shares + np.einsum(
            "s,sti->ti", factors.shares[1], shares[:, None] * np.exp(self.there)
        )
        everywhere = factors.power * np.log(of_all) + factors.trends[0] @ self.everywhere
        there = factors.power * (np.log(of_each) - np.log(of_all)) + np.tensordot(factors.trends[1], self.there, axes=1)
        return everywhere.astype("float32"), there.astype("float32")

    def matrix(self, factors: Factors) -> np.ndarray:
        """The collaborative weights, added up: float32 of shape `(these titles, these titles)`."""
        return np.tensordot(factors.weights.astype("float32"), self.weights, axes=1)


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


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Lists of one window that factors are learnt from, in the order of territories, of the titles that there were.

    Attributes:
        shares: Of all territories and of each, float32 of shape `(2, speeds, territories, titles)`.
        logs: The log of the first, and what the second differ from it by, of the same shape.
        homes: Numbers of territories, shape `(rows,)`.
        scores: Of each of the collaborative weights, float32 of shape `(weights, rows, titles)`.
        closed: Booleans of shape `(rows, titles)`: what the user had.
        row: Row of each title that was taken, and
        title: its place, and
        weight: 1 over the root of how many the user took.
    """

    shares: np.ndarray
    logs: np.ndarray
    homes: np.ndarray
    scores: np.ndarray
    closed: np.ndarray
    row: np.ndarray
    title: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, parts: Parts, rows: ListRows, first: np.ndarray) -> "Case":
        """The case of a window's parts and rows; `first` is what `first_windows` returns."""
        rows = rows.take(np.argsort(rows.homes, kind="stable"))
        there = np.flatnonzero(first <= rows.window)
        place = np.full(len(first), -1)
        place[there] = np.arange(len(there))
        place = place[parts.titles]
        scores = np.zeros((len(parts.weights), len(rows), len(there)), "float32")
        for number, weights in enumerate(parts.weights):
            scores[number][:, place[place >= 0]] = rows.pasts[:, parts.titles] @ weights[:, place >= 0]
        row, title = rows.wanted[:, there].nonzero()
        closed = rows.had[:, there].toarray().astype(bool)
        closed[row, title] = False
        everywhere = parts.everywhere[:, None, there]
        logs = np.stack([np.broadcast_to(everywhere, parts.there[:, :, there].shape), parts.there[:, :, there]])
        shares = np.exp(np.stack([logs[0], logs[0] + logs[1]]))
        weight = np.bincount(row, minlength=len(rows))[row] ** -0.5
        return cls(shares, logs, rows.homes, scores, closed, row, title, weight)

    def loss(self, factors: Factors) -> tuple[float, tuple[np.ndarray, float, np.ndarray, np.ndarray]]:
        """The loss of `learn_factors`, added up, and its slope by shares, power, trends and weights."""
        mixture = np.einsum("ks,ksti->ti", factors.shares, self.shares)
        prior = factors.power * np.log(mixture) + np.einsum("ks,ksti->ti", factors.trends, self.logs)
        logits = prior.astype("float32")[self.homes]
        for factor, scores in zip(factors.weights, self.scores, strict=True):
            logits += np.float32(factor) * scores
        logits[self.closed] = -np.inf
        logits -= logits.max(axis=1, keepdims=True)
        taken = logits[self.row, self.title]
        odds = np.exp(logits, out=logits)
        sums = odds.sum(axis=1, dtype=np.float64)
        loss = float(self.weight @ (np.log(sums)[self.row] - taken))
        odds *= (np.bincount(self.row, self.weight, len(odds)) / sums)[:, None]
        np.subtract.at(odds, (self.row, self.title), self.weight)
        slope = np.zeros(mixture.shape)
        begins = np.flatnonzero(np.diff(self.homes, prepend=-1))
        slope[self.homes[begins]] = np.add.reduceat(odds, begins, axis=0)
        return loss, (
            np.einsum("ti,ksti->ks", factors.power * slope / mixture, self.shares),
            float(np.sum(slope * np.log(mixture))),
            np.einsum("ti,ksti->ks", slope, self.logs),
            np.asarray([float(np.vdot(scores, odds)) for scores in self.scores]),
        )


def learning_cases(parts: Sequence[Parts], rows: Sequence[ListRows], first: np.ndarray, seed: int = 0) -> list[Case]:
    """The cases of some windows; of many rows some are drawn.

    Args:
        parts: The `Parts` of the windows.
        rows: The `ListRows` of the same windows.
        first: What `first_windows` returns.
        seed: Of the rows that are drawn.
    """
    most = max(50, MOST_SCORES // max(len(first), 1) // max(len(rows), 1))
    cases = []
    for part, row in zip(parts, rows, strict=True):
        if len(row) > most:
            chosen = np.random.default_rng([seed, len(row)]).choice(len(row), most, replace=False)
            row = row.take(np.sort(chosen))
        if len(row):
            cases.append(Case.of(part, row, first))
    return cases


def learn_factors(
    cases: Sequence[Case], num_speeds: int, num_weights: int, *, speed: int | None = None, popularity: bool = False
) -> Factors:
    """How much each part counts: what makes the titles that were taken the most likely among all.

        z_ri = prior_ti + sum_k c_k (h_r W_k)_i,    t = territory of r
        L    = - sum_r 1/sqrt(|Y_r|) sum_{i in Y_r} log softmax(z_r)_i / sum_r sqrt(|Y_r|) + penalties

    over the titles that there were and that the user did not have; `prior` is that of `Parts`. It is minimised by
    L-BFGS.

    Args:
        cases: What `learning_cases` returns; without any the prior is the mixture of all shares.
        num_speeds: How many speeds the parts have.
        num_weights: How many collaborative weights.
        speed: Number of a speed: the prior is the territory's share at this speed. By default it is learnt.
        popularity: Whether to leave out the collaborative weights.
    """
    size = 2 * num_speeds
    is_free = np.ones(2 * size + 1 + num_weights, bool)
    values = np.zeros(len(is_free))
    if speed is not None:
        values[:size] = -np.inf
        values[num_speeds + speed] = 0.0
        is_free[:size] = is_free[size + 1 : 2 * size + 1] = False
    if popularity:
        is_free[2 * size + 1 :] = False
    spread, penalty = np.ones(len(values)), np.zeros(len(values))
    penalty[size + 1 : 2 * size + 1], penalty[2 * size + 1 :] = TREND_PENALTY, PENALTY
    if cases:
        logs = np.mean([case.logs.std(axis=-1).mean(axis=-1) for case in cases], axis=0)
        scores = np.mean([case.scores.std(axis=(1, 2)) for case in cases], axis=0)
        spread[size + 1 :] = np.maximum(np.concatenate([logs.ravel(), scores]), 1e-6)

    def factors_of(values: np.ndarray) -> Factors:
        shares = np.exp(values[:size] - values[:size].max())
        real = values / spread
        return Factors(
            (shares / shares.sum()).reshape(2, num_speeds),
            float(np.exp(values[size])),
            real[size + 1 : 2 * size + 1].reshape(2, num_speeds),
            real[2 * size + 1 :],
        )

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        values[is_free] = free
        factors, total, slope = factors_of(values), 0.0, np.zeros(len(values))
        for case in cases:
            figure, (shares, power, trends, weights) = case.loss(factors)
            total += figure
            inner = factors.shares * (shares - np.sum(shares * factors.shares))
            slope += np.concatenate([inner.ravel(), [power * factors.power], trends.ravel(), weights]) / spread
        number = sum(float(case.weight.sum()) for case in cases)
        total, slope = total / number, slope / number
        return total + float(penalty[is_free] @ free**2), (slope + 2 * penalty * np.where(is_free, values, 0.0))[
            is_free
        ]

    if cases:
        found = optimize.minimize(
            loss, values[is_free].copy(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "ftol": 1e-6}
        )
        values[is_free] = found.x
    return factors_of(values)

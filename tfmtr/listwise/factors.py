"""How much each part of a list's order counts: learnt from what users took, among the titles at the top."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import optimize

from tfmtr.listwise.parts import SCORES, Factors, Order, Parts, activity_of
from tfmtr.listwise.rows import ListRows

ROUNDS = ((300, 200), (100, 100))  # the best titles of each row, and others drawn, that factors are learnt from
MOST_SCORES = 24_000_000  # of rows and titles that the best ones are sought among
CHUNK = 3_000_000  # of these, at a time
PENALTY = 1e-4
TREND_PENALTY = 5e-3
STEPS = 80


@dataclasses.dataclass(frozen=True, eq=False)
class Heads:
    """The best titles of some lists, and some others, that factors are learnt from.

    Attributes:
        logs: Log shares of all territories, and what those of the user's own differ from them by, float32 of shape
            `(2, speeds, rows, titles)`.
        activity: What `activity_of` returns, shape `(rows,)`.
        scores: What pasts say, float32 of shape `(4, rows, titles)`.
        is_open: Which of the titles count, booleans of shape `(rows, titles)`.
        is_taken: Which of them the user took.
        weights: 1 over the root of how many the user took in all, shape `(rows,)`.
    """

    logs: np.ndarray
    activity: np.ndarray
    scores: np.ndarray
    is_open: np.ndarray
    is_taken: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def join(cls, heads: Sequence["Heads"]) -> "Heads":
        """Those of several windows, without rows of which nothing was taken."""
        axes = {"logs": 2, "activity": 0, "scores": 1, "is_open": 0, "is_taken": 0, "weights": 0}
        is_kept = np.concatenate([head.is_taken.any(axis=1) for head in heads])
        return cls(
            **{
                name: np.compress(is_kept, np.concatenate([getattr(head, name) for head in heads], axis=axis), axis)
                for name, axis in axes.items()
            }
        )


def find_heads(
    parts: Parts, rows: ListRows, first: np.ndarray, factors: Factors, best: int, drawn: int, seed: int = 0
) -> Heads:
    """The best titles of the lists of a window, by some factors, among those that there were and that users had not.

    Args:
        parts: The window's `Parts`.
        rows: Its `ListRows`, or some of them.
        first: What `first_windows` returns.
        factors: The `Factors`.
        best: How many of the best titles of each row.
        drawn: How many others are drawn.
        seed: Of these.
    """
    there = np.flatnonzero(first <= rows.window)
    order, rng = parts.order(factors), np.random.default_rng([seed, len(rows)])
    rows = rows if len(there) else rows.take(np.zeros(0, int))
    size = max(1, CHUNK // max(len(first), 1))
    begins = range(0, max(len(rows), 1), size)
    chunks = (rows.take(np.arange(begin, min(begin + size, len(rows)))) for begin in begins)
    return Heads.join([_heads(parts, order, chunk, there, best, drawn, rng) for chunk in chunks])


def _heads(
    parts: Parts, order: Order, rows: ListRows, there: np.ndarray, best: int, drawn: int, rng: np.random.Generator
) -> Heads:
    """The heads of some rows, of the titles that were there."""
    scores, activity = parts.scores(rows.pasts), activity_of(rows.pasts)
    wanted = rows.wanted[:, there].toarray() > 0
    logits = order.logits(scores, activity, rows.homes)[:, there]
    logits[rows.had[:, there].toarray().astype(bool) & ~wanted] = -np.inf
    missing = max(best - len(there), 0)  # these stand at the end, and are not open
    best -= missing
    top = np.argpartition(-logits, best - 1, axis=1)[:, :best] if best else np.zeros((len(rows), 0), int)
    others = rng.integers(max(len(there), 1), size=(len(rows), drawn))
    number = np.arange(len(rows))[:, None]
    is_best = np.zeros(logits.shape, bool)
    is_best[number, top] = True
    is_other = ~is_best[number, others] & ~wanted[number, others] & np.isfinite(logits[number, others])
    nothing = np.zeros((len(rows), missing), bool)
    title = there[np.hstack([top, others, nothing.astype(int)])]
    return Heads(
        np.stack([parts.everywhere[:, title], parts.there.of(rows.homes, title)]),
        activity,
        scores[:, number, title],
        np.hstack([np.isfinite(logits[number, top]), is_other, nothing]),
        np.hstack([wanted[number, top], np.zeros_like(is_other), nothing]),
        np.maximum(wanted.sum(axis=1), 1) ** -0.5,
    )


def learn(parts: Sequence[Parts], rows: Sequence[ListRows], first: np.ndarray, seed: int = 0) -> tuple[Factors, Heads]:
    """Factors from lists of some windows, and the heads that they were learnt from; of many rows some are drawn.

    The best titles by a mixture of all shares are the first heads; those by what was learnt from them are the second.
    So what is learnt is the order at the top, and the titles drawn keep the others below.

    Args:
        parts: The `Parts` of the windows.
        rows: The `ListRows` of the same windows.
        first: What `first_windows` returns.
        seed: Of what is drawn.
    """
    most = max(50, MOST_SCORES // max(len(first), 1) // max(len(rows), 1))
    chosen = [row.some(most, seed) for row in rows]
    factors, heads = Factors.even(len(parts[0].everywhere)), None
    for best, drawn in ROUNDS:
        heads = Heads.join(
            [find_heads(part, row, first, factors, best, drawn, seed) for part, row in zip(parts, chosen, strict=True)]
        )
        factors = learn_factors(heads)
    return factors, heads  # pyright: ignore[reportReturnType]


def learn_factors(heads: Heads, *, speed: int | None = None, popularity: bool = False) -> Factors:
    """How much each part counts: what makes the titles that were taken the most likely among those at the top.

        z_ri = prior_ti + n_r sum_s d_s log p_si + sum_k c_k s_kri,    t = territory of r
        L    = - sum_r a_r sum_{i in Y_r} log softmax(z_r)_i / sum_r a_r |Y_r| + penalties

    over the heads' titles, with the weights `a_r`, the activity `n_r` and the titles taken `Y_r`; `prior` is that of
    `Parts`. It is minimised by L-BFGS from the mixture of all shares, which it stays near where there are few rows.

    Args:
        heads: The `Heads`; without a row the prior is the mixture of all shares.
        speed: Number of a speed: the prior is the territory's share at this speed. By default it is learnt.
        popularity: Whether what pasts say is left out.
    """
    loss = Loss(heads)
    is_free = np.ones(loss.size, bool)
    start = np.zeros(loss.size)
    if speed is not None:
        start[loss.shares] = -np.inf
        start[loss.num_speeds + speed] = 0.0
        is_free[loss.shares] = is_free[loss.trends] = False
    if popularity:
        is_free[loss.activity] = is_free[loss.weights] = False
    if len(heads):
        start[is_free] = optimize.minimize(
            loss, start[is_free], (start, is_free), "L-BFGS-B", jac=True, options={"maxiter": STEPS, "ftol": 1e-7}
        ).x
    return loss.factors(start)


class Loss:
    """The loss of `learn_factors` and its slope.

    What it is of is one vector: logarithms of the shares' weights, of the power, and the rest in units of one over what
    it is multiplied by varies, so that a penalty means the same of each.

    Args:
        heads: The `Heads`.

    Attributes:
        num_speeds: Number of speeds.
        size: Length of the vector.
        shares, power, trends, activity, weights: Where each of the `Factors` stands in it.
    """

    def __init__(self, heads: Heads) -> None:
        self.num_speeds, self.shape = heads.logs.shape[1], heads.is_open.shape
        double = 2 * self.num_speeds
        self.shares, self.power, self.trends = slice(0, double), double, slice(double + 1, 2 * double + 1)
        self.activity = slice(2 * double + 1, 2 * double + 1 + self.num_speeds)
        self.size = self.activity.stop + len(SCORES)
        self.weights = slice(self.activity.stop, self.size)
        # What each of them is multiplied by, of all rows and titles.
        self.logs, self.scores = heads.logs.reshape(double, -1), heads.scores.reshape(len(SCORES), -1)
        self.leans = (heads.logs[0] * heads.activity[:, None]).reshape(self.num_speeds, -1)
        self.of_shares = np.exp(heads.logs + np.stack([np.zeros_like(heads.logs[0]), heads.logs[0]]))
        self.of_shares = self.of_shares.reshape(double, -1)
        self.closed = np.where(heads.is_open, np.float32(0), np.float32(-1e9))
        self.is_taken, self.taken = heads.is_taken.astype("float32"), heads.is_taken.sum(axis=1)
        self.rows, self.total = heads.weights, float(heads.weights @ self.taken)
        self.spread, self.penalty = np.ones(self.size), np.full(self.size, 0.5 / max(self.total, 1e-12))
        self.penalty[self.trends] += TREND_PENALTY
        self.penalty[self.activity] += PENALTY
        self.penalty[self.weights] += PENALTY
        if len(heads):
            for place, values in ((self.trends, self.logs), (self.activity, self.leans), (self.weights, self.scores)):
                self.spread[place] = np.maximum(values.std(axis=1), 1e-6)

    def factors(self, values: np.ndarray) -> Factors:
        """The `Factors` that a vector stands for."""
        mixture, real = np.exp(values[self.shares] - values[self.shares].max()), values / self.spread
        return Factors(
            (mixture / mixture.sum()).reshape(2, self.num_speeds),
            float(np.exp(values[self.power])),
            real[self.trends].reshape(2, self.num_speeds),
            real[self.activity],
            real[self.weights],
        )

    def __call__(self, free: np.ndarray, start: np.ndarray, is_free: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss, and its slope by what is free.

        Args:
            free: The values that are free.
            start: All values; of the free ones nothing is used.
            is_free: Which are free, booleans.
        """
        values = start.copy()
        values[is_free] = free
        factors = self.factors(values)
        own = factors.shares.ravel()
        mixture = own.astype("float32") @ self.of_shares
        log = np.log(mixture)
        logits = np.float32(factors.power) * log + factors.trends.ravel().astype("float32") @ self.logs
        logits += factors.activity.astype("float32") @ self.leans
        logits += factors.weights.astype("float32") @ self.scores
        logits = logits.reshape(self.shape)
        logits += self.closed
        logits -= logits.max(axis=1, keepdims=True)
        of_taken = np.einsum("rt,rt->r", logits, self.is_taken)
        odds = np.exp(logits)
        sums = odds.sum(axis=1)
        figure = float(self.rows @ (self.taken * np.log(sums) - of_taken)) / self.total
        odds *= (self.rows * self.taken / sums / self.total).astype("float32")[:, None]
        slope = (odds - (self.rows / self.total).astype("float32")[:, None] * self.is_taken).ravel()
        of_mixture = self.of_shares @ (slope * np.float32(factors.power) / mixture)
        slopes = np.empty(self.size)
        slopes[self.shares] = own * (of_mixture - own @ of_mixture)
        slopes[self.power] = float(slope @ log) * factors.power
        for place, values_of in ((self.trends, self.logs), (self.activity, self.leans), (self.weights, self.scores)):
            slopes[place] = values_of @ slope
        slopes = (slopes / self.spread)[is_free]
        near = self.penalty[is_free]
        return figure + float(near @ free**2), slopes + 2 * near * free

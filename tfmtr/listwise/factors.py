"""How much each part of a list's order counts: learnt from what users took, among the titles at the top."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import optimize

from tfmtr.listwise.parts import SCORES, Factors, Parts, activity_of
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
    (everywhere, home), lean = parts.prior(factors), parts.lean(factors)
    rng = np.random.default_rng([seed, len(rows)])
    rows = rows if len(there) else rows.take(np.zeros(0, int))
    missing, size, found = max(best - len(there), 0), max(1, CHUNK // max(len(first), 1)), []
    best -= missing  # which stand at the end, and are not open
    for begin in range(0, max(len(rows), 1), size):
        row = rows.take(np.arange(begin, min(begin + size, len(rows))))
        scores, activity = parts.scores(row.pasts), activity_of(row.pasts)
        wanted = row.wanted[:, there].toarray() > 0
        logits = np.tensordot(factors.weights.astype("float32"), scores, axes=1) + everywhere + home[row.homes]
        logits += np.outer(activity, lean)
        logits = logits[:, there]
        logits[row.had[:, there].toarray().astype(bool) & ~wanted] = -np.inf
        top = np.argpartition(-logits, best - 1, axis=1)[:, :best] if best else np.zeros((len(row), 0), int)
        others = rng.integers(max(len(there), 1), size=(len(row), drawn))
        number = np.arange(len(row))[:, None]
        is_best = np.zeros(logits.shape, bool)
        is_best[number, top] = True
        is_other = ~is_best[number, others] & ~wanted[number, others] & np.isfinite(logits[number, others])
        nothing = np.zeros((len(row), missing), bool)
        chosen = np.hstack([top, others, nothing.astype(int)])
        title, of_home = there[chosen], row.homes[:, None]
        found.append(
            Heads(
                np.stack([parts.everywhere[:, title], parts.there[:, of_home, title]]),
                activity,
                scores[:, number, title],
                np.hstack([np.isfinite(logits[number, top]), is_other, nothing]),
                np.hstack([wanted[number, top], np.zeros_like(is_other), nothing]),
                np.maximum(wanted.sum(axis=1), 1) ** -0.5,
            )
        )
    return Heads.join(found)


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
    num_speeds = heads.logs.shape[1]
    size, shape = 2 * num_speeds, heads.is_open.shape
    places = {"shares": slice(0, size), "power": size, "trends": slice(size + 1, 2 * size + 1)}
    rest = 2 * size + 1 + num_speeds
    places |= {"activity": slice(2 * size + 1, rest), "weights": slice(rest, None)}
    is_free = np.ones(rest + len(SCORES), bool)
    values, spread, penalty = np.zeros(len(is_free)), np.ones(len(is_free)), np.zeros(len(is_free))
    if speed is not None:
        values[places["shares"]] = -np.inf
        values[num_speeds + speed] = 0.0
        is_free[places["shares"]] = is_free[places["trends"]] = False
    if popularity:
        is_free[places["activity"]] = is_free[places["weights"]] = False
    logs, scores = heads.logs.reshape(size, -1), heads.scores.reshape(len(SCORES), -1)
    leans = (heads.logs[0] * heads.activity[:, None]).reshape(num_speeds, -1)
    shares = np.exp(heads.logs + np.stack([np.zeros_like(heads.logs[0]), heads.logs[0]])).reshape(size, -1)
    closed, taken = np.where(heads.is_open, np.float32(0), np.float32(-1e9)), heads.is_taken.sum(axis=1)
    total, is_taken = float(heads.weights @ taken), heads.is_taken.astype("float32")
    of_row = (heads.weights / max(total, 1.0)).astype("float32")[:, None]
    penalty[places["trends"]] = TREND_PENALTY
    penalty[places["activity"]] = penalty[places["weights"]] = PENALTY

    def factors_of(values: np.ndarray) -> Factors:
        mixture, real = np.exp(values[places["shares"]] - values[places["shares"]].max()), values / spread
        return Factors(
            (mixture / mixture.sum()).reshape(2, num_speeds),
            float(np.exp(values[places["power"]])),
            real[places["trends"]].reshape(2, num_speeds),
            real[places["activity"]],
            real[places["weights"]],
        )

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        values[is_free] = free
        factors = factors_of(values)
        own = factors.shares.ravel()
        mixture = own.astype("float32") @ shares
        log = np.log(mixture)
        logits = np.float32(factors.power) * log + factors.trends.ravel().astype("float32") @ logs
        logits += factors.activity.astype("float32") @ leans
        logits = (logits + factors.weights.astype("float32") @ scores).reshape(shape)
        logits += closed
        logits -= logits.max(axis=1, keepdims=True)
        of_taken = np.einsum("rt,rt->r", logits, is_taken)
        odds = np.exp(logits)
        sums = odds.sum(axis=1)
        figure = float(heads.weights @ (taken * np.log(sums) - of_taken)) / total
        odds *= (heads.weights * taken / sums / total).astype("float32")[:, None]
        slope = (odds - of_row * is_taken).ravel()
        of_shares = shares @ (slope * np.float32(factors.power) / mixture)
        of_power = float(slope @ log) * factors.power
        slopes = (
            np.concatenate(
                [own * (of_shares - own @ of_shares), [of_power], logs @ slope, leans @ slope, scores @ slope]
            )
            / spread
        )
        near = penalty + 0.5 / total
        return figure + float(near[is_free] @ free**2), (slopes + 2 * near * np.where(is_free, values, 0.0))[is_free]

    if len(heads):
        spread[places["trends"]] = np.maximum(logs.std(axis=1), 1e-6)
        spread[places["activity"]] = np.maximum(leans.std(axis=1), 1e-6)
        spread[places["weights"]] = np.maximum(scores.std(axis=1), 1e-6)
        found = optimize.minimize(
            loss, values[is_free].copy(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "ftol": 1e-7}
        )
        values[is_free] = found.x
    return factors_of(values)

"""The parts of a list's order as of a window, in closed form."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from tfmtr.evaluation.past import Past
from tfmtr.listwise.collaborative import factorise, frequent_titles, next_titles, together
from tfmtr.listwise.prior import SPEEDS, log_shares
from tfmtr.listwise.rows import ListRows
from tfmtr.listwise.texts import next_vectors

ROW_HALF_LIFE = 3.0  # windows after which a row counts half for what users take next
TYPICAL = 2.0  # the log of 1 and a past's titles at which activity is 0
SCORES = ("together", "next", "alike", "next texts")  # what a past says of a title, in the order of their factors


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """How much each part counts.

    Attributes:
        shares: Weights of a mixture of shares, shape `(2, speeds)`, of all territories and of the user's own, which add
            up to 1.
        power: How much the log of the mixture counts.
        trends: How much the log shares themselves count beside it, shape `(2, speeds)`: with a positive one of a fast
            share and a negative one of a slow share, what rises comes first.
        activity: How much the log shares count more for a user of a long past, shape `(speeds,)`: who had much takes
            what is less popular.
        weights: How much each of `SCORES` counts, shape `(4,)`.
    """

    shares: np.ndarray
    power: float
    trends: np.ndarray
    activity: np.ndarray
    weights: np.ndarray

    @classmethod
    def even(cls, num_speeds: int) -> "Factors":
        """The mixture of all shares alone."""
        shares = np.full((2, num_speeds), 0.5 / num_speeds)
        return cls(shares, 1.0, np.zeros_like(shares), np.zeros(num_speeds), np.zeros(len(SCORES)))


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What is known before a window.

    Attributes:
        everywhere: Log shares of the titles, float32 of shape `(speeds, titles)`.
        there: What a territory's differ from them by, float32 of shape `(speeds, territories, titles)`.
        titles: Numbers of the titles that have collaborative weights.
        weights: `together` and `next_titles`, float32 of shape `(2, these titles, these titles)`.
        vectors: What `unit` returns, float32 of shape `(titles, width)`.
        follow: What `next_vectors` returns, float32 of shape `(width, width)`.
    """

    everywhere: np.ndarray
    there: np.ndarray
    titles: np.ndarray
    weights: np.ndarray
    vectors: np.ndarray
    follow: np.ndarray

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

    def lean(self, factors: Factors) -> np.ndarray:
        """What a user's activity is multiplied by: float32 of shape `(titles,)`."""
        return (factors.activity @ self.everywhere).astype("float32")

    def scores(self, pasts: sparse.csr_matrix) -> np.ndarray:
        """What pasts say of the titles: float32 of shape `(4, rows, titles)`, in the order of `SCORES`."""
        found = np.zeros((len(SCORES), pasts.shape[0], len(self.vectors)), "float32")  # pyright: ignore[reportOptionalSubscript]
        known, like = pasts.tocsc()[:, self.titles], pasts @ self.vectors
        for scores, weights in zip(found, self.weights, strict=False):
            scores[:, self.titles] = known @ weights
        found[2], found[3] = like @ self.vectors.T, like @ self.follow @ self.vectors.T
        return found

    def factorised(self, factors: Factors, width: int) -> tuple[np.ndarray, np.ndarray]:
        """What pasts say, added up, as the best product of two matrices: about `pasts @ inputs @ outputs.T`.

        Args:
            factors: The `Factors`.
            width: Of the matrices.

        Returns:
            `(inputs, outputs)`, float32 of shape `(titles, width)`.
        """
        weights = factors.weights.astype("float32")
        own = factorise(np.tensordot(weights[:2], self.weights, axes=1), 2 * width)  # more than what is kept
        left, right = (np.zeros((len(self.vectors), 2 * width + self.vectors.shape[1]), "float32") for _ in range(2))
        left[self.titles, : 2 * width], right[self.titles, : 2 * width] = own
        middle = weights[2] * np.eye(len(self.follow), dtype="float32") + weights[3] * self.follow
        left[:, 2 * width :], right[:, 2 * width :] = self.vectors, self.vectors @ middle.T
        (before, left), (after, right) = np.linalg.qr(left), np.linalg.qr(right)
        first, sizes, second = np.linalg.svd(left @ right.T)
        rank = min(width, len(sizes))
        inputs, outputs = (np.zeros((len(self.vectors), width), "float32") for _ in range(2))
        roots = np.sqrt(sizes[:rank])
        inputs[:, :rank], outputs[:, :rank] = before @ first[:, :rank] * roots, after @ second[:rank].T * roots
        return inputs, outputs


def activity_of(pasts: sparse.csr_matrix) -> np.ndarray:
    """How much users had: `log(1 + titles of the past) - 2`, float32 of shape `(rows,)`."""
    titles = np.bincount(pasts.nonzero()[0], minlength=pasts.shape[0])  # pyright: ignore[reportOptionalSubscript]
    return np.log1p(titles).astype("float32") - np.float32(TYPICAL)


def find_parts(past: Past, window: int, days: float | None, earlier: Sequence[ListRows], vectors: np.ndarray) -> Parts:
    """The parts as of a window.

    Args:
        past: A `Past`.
        window: Number of the window; of what is later nothing is used.
        days: Length of a window in days, `None` where the data have no times.
        earlier: The `ListRows` of windows before it.
        vectors: What `unit` returns.
    """
    history = past.history(window)
    speeds = [None] if days is None else [None if speed is None else speed * days for speed in SPEEDS]
    shares = [log_shares(history, half_life) for half_life in speeds]
    titles = frequent_titles(history)
    rows = [row for row in earlier if row.window < window and len(row)]
    after, follow = np.zeros((len(titles), len(titles)), "float32"), np.zeros((vectors.shape[1],) * 2, "float32")
    if rows:
        weights = 0.5 ** (np.concatenate([np.full(len(row), window - row.window) for row in rows]) / ROW_HALF_LIFE)
        pasts, wanted = (sparse.vstack([getattr(row, name) for row in rows]).tocsr() for name in ("pasts", "wanted"))
        after = next_titles(pasts, wanted, weights, titles)  # pyright: ignore[reportArgumentType]
        follow = next_vectors(pasts, wanted, weights, vectors)  # pyright: ignore[reportArgumentType]
    everywhere, there = (np.stack(values) for values in zip(*shares, strict=True))
    return Parts(everywhere, there, titles, np.stack([together(history, titles), after]), vectors, follow)

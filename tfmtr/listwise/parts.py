"""The parts of a list's order as of a window, in closed form."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from tfmtr.evaluation.past import Past
from tfmtr.listwise.collaborative import factorise, frequent_titles, next_titles, together
from tfmtr.listwise.prior import SPEEDS, LocalShares, log_shares
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
        there: What territories' differ from them by, a `LocalShares`.
        titles: Numbers of the titles that have collaborative weights.
        weights: `together` and `next_titles`, float32 of shape `(2, these titles, these titles)`.
        vectors: What `unit` returns, float32 of shape `(titles, width)`.
        follow: What `next_vectors` returns, float32 of shape `(width, width)`.
    """

    everywhere: np.ndarray
    there: LocalShares
    titles: np.ndarray
    weights: np.ndarray
    vectors: np.ndarray
    follow: np.ndarray

    def prior(self, factors: Factors) -> tuple[np.ndarray, np.ndarray]:
        """The prior of the titles, `(titles,)`, and what territories differ from it by, `(territories, titles)`.

        prior_ti = power log sum_s (m_0s p_si + m_1s p_sti) + sum_s (a_s log p_si + b_s (log p_sti - log p_si))

        with the shares `m` and the trends `a`, `b`; where the territory is not known its share is that of all.
        """
        (mixed, own), trends, shares = factors.shares, factors.trends[1].astype("float32"), np.exp(self.everywhere)
        of_all = factors.shares.sum(axis=0) @ shares
        everywhere = factors.power * np.log(of_all) + factors.trends[0] @ self.everywhere

        def differ(of_own: np.ndarray, of_all: np.ndarray, logs: np.ndarray) -> np.ndarray:
            of_own /= of_all
            np.log(of_own, out=of_own)
            of_own *= np.float32(factors.power)
            of_own += logs
            return of_own

        titles, counted, rest = self.there.titles, self.there.counted, self.there.rest
        of_all = of_all.astype("float32")
        there = (mixed + own * np.exp(rest.T)).astype("float32") @ shares
        there = differ(there, of_all, (trends @ rest)[:, None])
        of_pairs = mixed.astype("float32") @ shares[:, titles]
        of_pairs += own.astype("float32") @ (shares[:, titles] * np.exp(counted))
        there[self.there.territories, titles] = differ(of_pairs, of_all[titles], trends @ counted)
        return everywhere.astype("float32"), there

    def lean(self, factors: Factors) -> np.ndarray:
        """What a user's activity is multiplied by: float32 of shape `(titles,)`."""
        return (factors.activity @ self.everywhere).astype("float32")

    def order(self, factors: Factors) -> "Order":
        """The `Order` that some factors make of the parts."""
        return Order(*self.prior(factors), self.lean(factors), factors.weights.astype("float32"))

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
        middle = weights[2] * np.eye(len(self.follow), dtype="float32") + weights[3] * self.follow
        vectors = self.vectors, self.vectors @ middle.T
        pairs = list(zip(own, vectors, strict=True))  # each matrix: columns of some titles, and columns of all
        (root, back), (other, forth) = (_root(_gram(*pair, self.titles)) for pair in pairs)
        first, sizes, second = np.linalg.svd(root @ other.T)
        rank = min(width, len(sizes))
        roots, found = np.sqrt(sizes[:rank]), []
        for (some, every), mix in zip(pairs, (back @ first[:, :rank], forth @ second[:rank].T), strict=True):
            mix = (mix * roots).astype("float32")
            product = np.zeros((len(every), width), "float32")
            product[:, :rank] = every @ mix[some.shape[1] :]
            product[self.titles, :rank] += some @ mix[: some.shape[1]]
            found.append(product)
        return found[0], found[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """How titles are ordered as of a window.

    Attributes:
        prior: float32 of shape `(titles,)`.
        there: What territories differ from it by, float32 of shape `(territories, titles)`.
        lean: What a user's activity is multiplied by, float32 of shape `(titles,)`.
        weights: How much each of `SCORES` counts, float32 of shape `(4,)`.
    """

    prior: np.ndarray
    there: np.ndarray
    lean: np.ndarray
    weights: np.ndarray

    def logits(self, scores: np.ndarray, activity: np.ndarray, homes: np.ndarray) -> np.ndarray:
        """All titles' logits for some users, float32 of shape `(users, titles)`.

        Args:
            scores: What `Parts.scores` returns.
            activity: What `activity_of` returns.
            homes: Numbers of the users' territories, integers of shape `(users,)`.
        """
        logits = np.tensordot(self.weights, scores, axes=1)
        logits += self.prior
        logits += self.there[homes]
        logits += np.outer(activity, self.lean)
        return logits


def _gram(some: np.ndarray, every: np.ndarray, titles: np.ndarray) -> np.ndarray:
    """Products of the columns with each other, float64: of those of some titles, and those of all."""
    some, known, every = some.astype(float), every[titles].astype(float), every.astype(float)
    return np.block([[some.T @ some, some.T @ known], [known.T @ some, every.T @ every]])


def _root(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(root, inverse)` with `root.T @ root` the gram and columns @ inverse orthonormal, but for what depends."""
    values, vectors = np.linalg.eigh(gram)
    sizes = np.sqrt(np.where(values > 1e-12 * max(values.max(initial=0.0), 1e-30), values, 0.0))
    inverse = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    return sizes[:, None] * vectors.T, vectors * inverse


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
    everywhere, there = log_shares(history, speeds)
    titles = frequent_titles(history)
    rows = [row for row in earlier if row.window < window and len(row)]
    after, follow = np.zeros((len(titles), len(titles)), "float32"), np.zeros((vectors.shape[1],) * 2, "float32")
    if rows:
        weights = 0.5 ** (np.concatenate([np.full(len(row), window - row.window) for row in rows]) / ROW_HALF_LIFE)
        pasts, wanted = (sparse.vstack([getattr(row, name) for row in rows]).tocsr() for name in ("pasts", "wanted"))
        after = next_titles(pasts, wanted, weights, titles)  # pyright: ignore[reportArgumentType]
        follow = next_vectors(pasts, wanted, weights, vectors)  # pyright: ignore[reportArgumentType]
    return Parts(everywhere, there, titles, np.stack([together(history, titles), after]), vectors, follow)

"""What the first stage knows of a user and a title, part by part: features that a ranking model reads."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfmtr.listwise.prior import SPEEDS, log_shares
from tfmtr.names import EVIDENCE as PREFIX

if TYPE_CHECKING:
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.evaluation.past import Past
    from tfmtr.listwise.model import ListModel, Scorer
    from tfmtr.schema import Schema

ROUNDING = 1e-5
PARTS = ("score", "past", "popularity", "activity", "titles_had", "rank")


def feature_names(num_speeds: int) -> tuple[str, ...]:
    """Names of the features, of the shares last.

    >>> feature_names(1)[-2:]
    ('first_stage_rank', 'first_stage_share_0')
    """
    return tuple(PREFIX + name for name in (*PARTS, *(f"share_{i}" for i in range(num_speeds))))


def parts_of(query: Any, titles: Any, shares: Any, past_width: int) -> dict[str, Any]:
    """The list model's score of titles and what it is made of.

    With the coordinates of `tfmtr.listwise.model.Scorer`: `past` is what the user's past says, `popularity` the prior
    with the territory's own part, `activity` what an active user likes more or less of popular titles; the three add up
    to `score`. `titles_had` is the user's activity itself, `share_<i>` the log of the title's share of all events at
    the i-th of the prior's speeds. The towers, which have learnt from training rows, are in none of it.

    Args:
        query: Coordinates of users, float32 of shape `(batch, width)`.
        titles: Coordinates of each one's titles, of shape `(batch, n, width)`.
        shares: Of shape `(batch, n, speeds)`.
        past_width: How many of the coordinates are of pasts.

    Returns:
        `{feature: float32 tensor of shape (batch, n)}`, all but the rank.
    """
    past = tf.einsum("bd,bnd->bn", query[:, :past_width], titles[:, :, :past_width])
    local = tf.einsum("bd,bnd->bn", query[:, past_width + 2 :], titles[:, :, past_width + 2 :])
    popularity = query[:, past_width, None] * titles[:, :, past_width] + local
    activity = query[:, past_width + 1, None] * titles[:, :, past_width + 1]
    titles_had = tf.broadcast_to(query[:, past_width + 1, None], tf.shape(past))
    found = dict(zip(PARTS, (past + popularity + activity, past, popularity, activity, titles_had), strict=False))
    found |= {f"share_{i}": shares[:, :, i] for i in range(shares.shape[-1])}
    return {PREFIX + name: value for name, value in found.items()}


def with_rank(parts: dict[str, Any], candidates: Any) -> dict[str, Any]:
    """What `parts_of` returns, with the rank among candidates' scores; see `rank_among`."""
    return parts | {f"{PREFIX}rank": rank_among(parts[f"{PREFIX}score"], candidates)}


def rank_among(scores: Any, candidates: Any) -> Any:
    """The log of 1 + the number of candidates whose score is greater, by more than rounding makes of one score.

    Args:
        scores: Of shape `(batch, n)`.
        candidates: Of shape `(batch, m)`, minus infinity where there is none.

    >>> np.expm1(rank_among(np.float32([[2.0, 0.5]]), np.float32([[3.0, 2.0, 1.0]]))).round().tolist()
    [[1.0, 3.0]]
    """
    at_most = tf.searchsorted(tf.sort(candidates, axis=1), scores + ROUNDING * (1.0 + tf.abs(scores)), side="right")
    return tf.math.log1p(tf.cast(tf.shape(candidates)[1] - at_most, tf.float32))


def shares_of(model: ListModel, past: Past, window: int) -> np.ndarray:
    """Log shares of the titles before a window at the speeds of a list model, float32 of shape `(titles, speeds)`."""
    speeds = [None] if model.days is None else [None if s is None else s * model.days for s in SPEEDS]
    everywhere, _ = log_shares(past.history(window), speeds)
    return np.ascontiguousarray(everywhere.T)


def check_evidence(argument: str, schema: Schema, model: ListModel | None) -> None:
    """Raises a `ValueError` unless a first stage has the features that a ranking model reads of it.

    Args:
        argument: What the ranking model was given as.
        schema: Its `Schema`.
        model: The first stage's list model, `None` where it has none.
    """
    asked = {feature.name for feature in schema.evidence}
    known = set() if model is None else set(feature_names(1 if model.days is None else len(SPEEDS)))
    if asked - known:
        raise ValueError(
            f"`{argument}` must read what the first stage knows; prepare its candidates with a run like that one. "
            f"Received: {sorted(asked - known)[:3]}, which a first stage "
            f"{'without a list model' if model is None else 'on such data'} does not have"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class FirstStageFeatures:
    """The features as of a window.

    Attributes:
        scorer: The `Scorer` of the window.
        shares: Log shares of the titles, float32 of shape `(titles, speeds)`.
    """

    scorer: Scorer
    shares: np.ndarray

    @classmethod
    def as_of(cls, model: ListModel, data: Dataset, past: Past, window: int) -> FirstStageFeatures:
        """What is known before a window; arguments as for `ListModel.as_of`."""
        return cls(model.as_of(data, past, window), shares_of(model, past, window))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return feature_names(self.shares.shape[1])

    def of(self, queries: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
        """The features of users with their candidates.

        Args:
            queries: What `Scorer.queries` returns, of shape `(users, width)`.
            index: Places of the candidates, integers of shape `(users, n)`; -1 where there is none, whose features mean
                nothing.

        Returns:
            `{feature: float32 of shape (users, n)}`.
        """
        places = np.maximum(index, 0)
        parts = parts_of(queries, self.scorer.outputs[places], self.shares[places], self.scorer.inputs.shape[1])
        found = with_rank(parts, tf.where(index >= 0, parts[f"{PREFIX}score"], -np.inf))
        return {name: np.asarray(found[name], "float32") for name in self.names}

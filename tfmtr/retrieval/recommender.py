"""From a query to the answer of a request: search, second stage, diversification, ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr import names
from tfmtr.encoders.raw import lookup
from tfmtr.encoders.unknown import DEFAULT_BRANCH, UNKNOWN_CONTEXT
from tfmtr.listwise.layer import ListQuery
from tfmtr.retrieval.diversify import diversify
from tfmtr.retrieval.first_stage import PREFIX, with_rank
from tfmtr.retrieval.indexes.exact import cut, width_of

if TYPE_CHECKING:
    from tfmtr.retrieval.indexes import Index
    from tfmtr.retrieval.second_stage import SecondStage


OVERFETCH = 4  # candidates for each title wanted, where a second stage reorders them
TEXT, TEXTS = tf.TensorSpec([None], tf.string), tf.TensorSpec([None, None], tf.string)
# What every request has, beside the query or the user, and what it may have, with what it is otherwise.
REQUEST = dict(zip(names.REQUEST, (TEXT, TEXTS, tf.TensorSpec([None], tf.int32)), strict=True))
DEFAULTS = ((TEXTS, [[""]]), (TEXTS, [[""]]), (tf.TensorSpec([None], tf.float32), [0.0]))
OPTIONS = dict(zip(names.OPTIONS, DEFAULTS, strict=True))
RANK_BY = {names.RANK_BY: (TEXT, [""])}
COMBINE = {names.COMBINE: (TEXT, [""])}
FIRST_STAGE_WEIGHT = tf.TensorSpec([None], tf.float32)
HISTORY = dict(zip(names.HISTORY, ((TEXTS, [[""]]), (tf.TensorSpec([None, None], tf.float32), [[0.0]])), strict=True))


class Recommender(keras.layers.Layer):
    """Answers requests from an index.

    Args:
        index: `ExactIndex` or another with its call and its `vectors_of`.
        outputs: `outputs({tower: logits of shape (n, 1)}) -> {name: probabilities of shape (n, 1)}`, the head's.
        biases: `{tower: bias}` to add to a dot product to have the logit.
        names: Names of the outputs.
        order: `tfmtr.listwise.layer.ListQuery` where a list model orders titles beside the towers; the index has its
            coordinates after the towers' vectors.
        second: The `SecondStage` where a ranking model orders what the index finds. Its scores are the answer's, and
            `rank_by` names one of its outputs.
        unknown: What `tfmtr.encoders.unknown.unknown_values` makes of the models' schemas.

    A cold user, of whom nothing is known that tells tastes apart, gets what is popular in the request's territory; with
    `order` what the list model says, which knows what is popular.

    Call arguments:
        query: Tensor of shape `(batch, d)`.
        request: `{name: tensor}` of `REQUEST`, `OPTIONS` and, with `queries`, `RANK_BY`; with `second`, what it needs
            and `COMBINE`, too. An option may have one row for all.
        queries: `{tower: tensor of shape (batch, d)}`, or `None` where only the query is known: then it has the list
            model's coordinates, too.
        is_cold: Boolean tensor of shape `(batch,)`, or `None` for nobody.
        has_default_branch: Boolean tensor of shape `(batch,)`: whose scenario the model does not know, or `None`.

    Returns:
        A dictionary: `titles`, text of shape `(batch, max(k))`, padded with ""; `scores`, float32 of the same shape,
        padded with minus infinity: `<query, title>`, the probability that `rank_by` names, or of a cold user the log
        of 1 + the number of users who had the title; `count`, int32 of shape `(batch,)`: how many came back;
        `is_exact`, boolean of shape `(batch,)`: whether they are the best of all that are allowed, in order (a
        diversified list is not); `fallback`, text of shape `(batch,)`: what was not known, joined by commas, of
        `cold_user`, `default_branch` (of either model), `no_history` (with `order`: the seen titles stand for it),
        `unknown_context` (a category of the context, of either model), `unknown_territory`;
        "" where all was. With `second` and `queries` a list is exact if no more titles are allowed than there are
        candidates, and there is `scores_<task>`, float32 of the shape of `scores`, for each of its tasks.

    Raises:
        tf.errors.InvalidArgumentError: If `k` or `diversity` is out of its range, `rank_by` is no output, or `where` no
            condition.
    """

    def __init__(
        self,
        index: Index,
        *,
        outputs: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]] | None = None,
        biases: Mapping[str, float] | None = None,
        names: Iterable[str] = (),
        order: ListQuery | None = None,
        second: SecondStage | None = None,
        unknown: keras.Model | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})  # whatever the towers compute in
        self.index, self.catalogue, self.order, self.second = index, index.catalogue, order, second
        self.unknown = unknown
        self.outputs, self.biases, self.names = outputs, biases, sorted(names)
        self.output_index = lookup(self.names)
        self.built = True

    def call(
        self,
        query: tf.Tensor,
        request: Mapping[str, tf.Tensor],
        queries: Mapping[str, tf.Tensor] | None = None,
        is_cold: tf.Tensor | None = None,
        has_default_branch: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Answers; see the class."""
        batch, size, k = tf.shape(query)[0], self.catalogue.num_titles, request["k"]
        width = width_of(k, size)
        options = {name: repeat(request[name], batch) for name in OPTIONS}
        options["diversity"] = checked_share("diversity", options["diversity"])
        allowed = self.catalogue(request["request_territory"], request["seen"], options["allow"], options["where"])
        nobody = tf.zeros([batch], tf.bool)
        is_cold = nobody if is_cold is None else is_cold
        has_history = ~nobody  # pyright: ignore[reportOperatorIssue]
        is_unknown = {name: nobody for name in (DEFAULT_BRANCH, UNKNOWN_CONTEXT)}
        if queries and self.unknown is not None:
            found = self.unknown({name: request[name] for name in self.unknown.input})  # pyright: ignore[reportOptionalIterable]
            is_unknown = {name: repeat(value[:, 0], batch) for name, value in found.items()}
        if has_default_branch is not None:
            is_unknown[DEFAULT_BRANCH] |= has_default_branch  # pyright: ignore[reportOperatorIssue]
        list_query = None
        if queries and self.order is not None:
            query, list_query, has_history, has_past = self.joined(query, request)
            is_cold = is_cold & ~has_past
        rank_by = tf.fill([batch], "")
        if queries:
            rank_by = repeat(self.checked_output(request["rank_by"]), batch)
            if self.second is None:
                rank_by = tf.where(is_cold, "", rank_by)  # pyright: ignore[reportArgumentType]
        is_ranked, is_mixed = rank_by != "", options["diversity"] > 0
        second = self.second if queries else None
        num_candidates = tf.where(is_ranked | is_mixed, tf.minimum(OVERFETCH * k, size), k)
        if second is not None:
            num_candidates = tf.maximum(num_candidates, tf.minimum(second.candidates, size))
        candidates = self.index(query, num_candidates, allowed)
        index, scores, is_exact = candidates["index"], candidates["scores"], candidates["is_exact"]
        is_popular: Any = is_cold if self.order is None else nobody
        number = tf.reduce_sum(tf.cast(allowed, tf.int32), axis=1)
        parts = {}
        if second is not None:
            index, scores = self.with_popular(is_popular, request, allowed, index, scores)
            outputs = second(request, index, self.evidence(list_query, index, scores))
            first = tf.where(scores > -np.inf, scores, 0.0) * finite(request, names.FIRST_STAGE_WEIGHT)[:, None]
            combined = second.combined(outputs, request) + first
            combined = tf.where(is_ranked[:, None], self.named(outputs, rank_by), combined)
            scores = tf.where(scores > -np.inf, combined, -np.inf)
            parts = {names.score_name(task.name): outputs[task.name] for task in second.tasks}
            is_exact = (is_exact | is_popular) & (number <= num_candidates)  # pyright: ignore[reportOperatorIssue]
        elif queries:
            scores = tf.cond(
                tf.reduce_any(is_ranked), lambda: self.ranked(queries, index, scores, rank_by), lambda: scores
            )
            is_exact = is_exact & (~is_ranked | (number <= num_candidates))  # pyright: ignore[reportOperatorIssue]
        if queries:
            order = tf.argsort(scores, axis=1, direction="DESCENDING", stable=True)
            index, scores, *values = (tf.gather(v, order, batch_dims=1) for v in (index, scores, *parts.values()))
            parts = dict(zip(parts, values, strict=True))
        if second is None:
            index, scores = self.with_popular(is_popular, request, allowed, index, scores)
        order = tf.cond(
            tf.reduce_any(is_mixed),
            lambda: self.diversified(index, scores, width, options["diversity"]),
            lambda: tf.tile(tf.range(width)[None, :], [batch, 1]),  # pyright: ignore[reportArgumentType]
        )
        index, scores, *values = (tf.gather(v, order, batch_dims=1) for v in (index, scores, *parts.values()))
        scores = cut(scores, k)
        is_there = scores > -np.inf
        return {
            "titles": tf.where(is_there, self.catalogue.title_id(tf.cast(index, tf.int64) + 1), ""),
            "scores": scores,
            "count": tf.reduce_sum(tf.cast(is_there, tf.int32), axis=1),
            "is_exact": (is_exact if second is not None else is_exact | is_popular) & ~is_mixed,  # pyright: ignore[reportOperatorIssue]
            "fallback": join_names(
                {
                    "cold_user": is_cold,  # pyright: ignore[reportArgumentType]
                    DEFAULT_BRANCH: is_unknown[DEFAULT_BRANCH],
                    "no_history": ~(has_history | is_cold),
                    UNKNOWN_CONTEXT: is_unknown[UNKNOWN_CONTEXT],
                    "unknown_territory": ~self.catalogue.is_known(request["request_territory"]),
                }
            ),
            **{name: tf.where(is_there, value, -np.inf) for name, value in zip(parts, values, strict=True)},
        }

    def joined(self, query: tf.Tensor, request: Mapping[str, tf.Tensor]) -> tuple[Any, Any, Any, Any]:
        """The towers' query with the list model's coordinates, these alone, and what `ListQuery` knows of the past."""
        order, batch = self.order, tf.shape(query)[0]
        history, ages = (repeat(request[name], batch) for name in HISTORY)
        own, has_history, has_past = order(history, ages, request["seen"], request["request_territory"])  # pyright: ignore[reportOptionalCall]
        return tf.concat([order.model_weight * query, own], axis=1), own, has_history, has_past  # pyright: ignore[reportOptionalMemberAccess]

    def coordinates_of(self, index: tf.Tensor) -> tf.Tensor:
        """The list model's coordinates of titles, of shape `(batch, n, width)`."""
        return self.index.vectors_of(tf.maximum(index, 0))[..., -self.order.width :]  # pyright: ignore[reportArgumentType, reportOptionalMemberAccess]

    def evidence(
        self, query: tf.Tensor | None, index: tf.Tensor, scores: tf.Tensor, titles: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor] | None:
        """What the first stage knows of titles; `None` where no model asks for it.

        Args:
            query: The list model's coordinates of users; `None` without one.
            index: Places of the candidates, of shape `(batch, m)`.
            scores: Their scores, minus infinity where there is none.
            titles: Places of the titles, of shape `(batch, n)`; by default the candidates themselves.
        """
        second, order = self.second, self.order
        if second is None or order is None or query is None or not second.has_evidence:
            return None
        parts = second.known(order, query, index, self.coordinates_of(index))
        candidates = tf.where(scores > -np.inf, parts[f"{PREFIX}score"], -np.inf)
        if titles is not None:
            parts = second.known(order, query, titles, self.coordinates_of(titles))
        return with_rank(parts, candidates)

    def evidence_of(
        self, query: tf.Tensor, request: Mapping[str, tf.Tensor], titles: tf.Tensor
    ) -> dict[str, tf.Tensor] | None:
        """What the first stage knows of given titles among the candidates of a request, see `evidence`."""
        if self.second is None or not self.second.has_evidence:
            return None
        batch = tf.shape(query)[0]
        request = {name: repeat(request[name], batch) for name in ("request_territory", "seen", *HISTORY)}
        query, own, _, _ = self.joined(query, request)
        nothing = tf.fill([batch, 1], "")
        allowed = self.catalogue(request["request_territory"], request["seen"], nothing, nothing)
        number = tf.fill([batch], tf.minimum(self.second.candidates, self.catalogue.num_titles))
        found = self.index(query, number, allowed)
        return self.evidence(own, found["index"], found["scores"], titles)

    def vectors_of(self, index: tf.Tensor) -> tf.Tensor:
        """The towers' vectors of candidates, of shape `(batch, candidates, d)`."""
        vectors = self.index.vectors_of(index)
        return vectors if self.order is None else vectors[..., : -self.order.width]  # pyright: ignore[reportArgumentType]

    def with_popular(
        self,
        is_popular: tf.Tensor,
        request: Mapping[str, tf.Tensor],
        allowed: tf.Tensor,
        index: tf.Tensor,
        scores: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Index and scores, of some users what is popular; where it is nobody, nothing is computed."""
        return tf.cond(
            tf.reduce_any(is_popular),
            lambda: self.popular(is_popular, request["request_territory"], allowed, index, scores),
            lambda: (index, scores),
        )

    def diversified(self, index: tf.Tensor, scores: tf.Tensor, width: tf.Tensor, diversity: tf.Tensor) -> tf.Tensor:
        """Places of a diversified list among the best candidates, of shape `(batch, width)`."""
        few = tf.minimum(OVERFETCH * width, tf.shape(index)[1])
        return diversify(scores[:, :few], self.vectors_of(index[:, :few]), width, diversity)

    def popular(
        self, is_cold: tf.Tensor, territory: tf.Tensor, allowed: tf.Tensor, index: tf.Tensor, scores: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Index and scores, of cold users what is popular."""
        popular = tf.where(allowed & is_cold[:, None], self.catalogue.popular(territory), -np.inf)
        own_scores, own_index = tf.math.top_k(popular, tf.shape(index)[1])
        return tf.where(is_cold[:, None], own_index, index), tf.where(is_cold[:, None], own_scores, scores)

    def checked_output(self, rank_by: tf.Tensor) -> tf.Tensor:
        """`rank_by`, once every row is empty or one of the outputs."""
        is_known = tf.reduce_all((self.output_index(rank_by) > 0) | (rank_by == ""))  # pyright: ignore[reportOperatorIssue]
        text = f"`rank_by` must be empty or one of {self.names}."
        with tf.control_dependencies([tf.debugging.Assert(is_known, [text, rank_by])]):
            return tf.identity(rank_by)

    def ranked(
        self, queries: Mapping[str, tf.Tensor], index: tf.Tensor, scores: tf.Tensor, rank_by: tf.Tensor
    ) -> tf.Tensor:
        """Scores, where a row asks for it the probability of that name."""
        vectors = self.vectors_of(index)
        logits = {
            tower: tf.reshape(tf.einsum("bd,bcd->bc", q, vectors) + self.biases[tower], [-1, 1])
            for tower, q in queries.items()
        }
        outputs = self.outputs(logits)  # pyright: ignore[reportOptionalCall]
        named = self.named({name: tf.reshape(outputs[name], tf.shape(scores)) for name in self.names}, rank_by)
        return tf.where((rank_by != "")[:, None] & (scores > -np.inf), named, scores)

    def named(self, outputs: Mapping[str, tf.Tensor], rank_by: tf.Tensor) -> tf.Tensor:
        """The output that each row names, of shape `(batch, candidates)`; any where it names none."""
        stacked = tf.stack([outputs[name] for name in self.names], axis=1)
        return tf.gather(stacked, tf.maximum(self.output_index(rank_by) - 1, 0), axis=1, batch_dims=1)


def checked_share(name: str, value: tf.Tensor) -> tf.Tensor:
    """A request's value, once every row is from 0 to 1."""
    is_share = tf.reduce_all((value >= 0) & (value <= 1))  # not of NaN
    with tf.control_dependencies([tf.debugging.Assert(is_share, [f"`{name}` must be from 0 to 1.", value])]):
        return tf.identity(value)


def finite(request: Mapping[str, tf.Tensor], name: str) -> tf.Tensor:
    """A request's value, once every row is a finite number."""
    value = request[name]
    check = tf.debugging.Assert(tf.reduce_all(tf.math.is_finite(value)), [f"`{name}` must be finite.", value])
    with tf.control_dependencies([check]):
        return tf.identity(value)


def repeat(value: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    """One row for all, as one for each."""
    return tf.broadcast_to(value, tf.concat([[batch], tf.shape(value)[1:]], axis=0))


def join_names(conditions: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Names whose condition holds, joined by commas: `{name: boolean of shape (batch,)}` gives text of that shape."""
    parts = [tf.where(condition, f"{name},", "") for name, condition in conditions.items()]
    return tf.strings.regex_replace(tf.strings.join(parts), ",$", "")

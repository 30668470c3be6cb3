"""A user's titles."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfmtr import names
from tfmtr.kinds import KINDS
from tfmtr.names import weight_name
from tfmtr.retrieval.recommender import (
    COMBINE,
    FIRST_STAGE_WEIGHT,
    HISTORY,
    OPTIONS,
    RANK_BY,
    REQUEST,
    Recommender,
    repeat,
)
from tfmtr.schema import Schema
from tfmtr.signatures._signature import Served, Signature, context_defaults, defaults_as_specs, specs


def recommend(served: Served, *, user: keras.Model, scenario: keras.Model, recommender: Recommender) -> Signature:
    """User features and a request -> the titles that are best for the user.

    In: `request_territory`, `seen` (batch, n), `k` (batch,); out: `titles`, `scores`, `count`, `is_exact`, `fallback`
    (see `tfmtr.retrieval.recommender.Recommender`). The user's own territory selects the branch, the request's the
    catalogue. The query is the sum of the tasks' queries, each times `weight_<task>`, by default the task's weight. A
    client may leave out these weights, the context, `allow`, `where`, `diversity` and `rank_by`. Where the run has a
    list model, `history` (batch, n) are the titles that the user had, the newest last, and `history_ages` the days
    since then; without them the seen titles stand for the history.

    Where a ranking model is exported with it, that orders the candidates which the queries find: then the weights are
    those of its tasks, and `scores` the weighted sum of their log-odds (with `combine_tasks` = "product" the logarithm
    of the product of powers) and `first_stage_weight` times the first stage's score. `rank_by` names one of its
    outputs, `scores_<task>` are what it says of each title, and `is_exact` says whether all titles that are allowed
    were ranked. See `tfmtr.retrieval.second_stage.SecondStage`.
    """
    second = recommender.second
    users = served.users if second is None else {**served.users, **second.users}
    tasks = [task for task in served.schema.tasks if task.name in user.output] if second is None else second.tasks
    weights = {weight_name(task.name): (tf.TensorSpec([None], tf.float32), [task.weight]) for task in tasks}
    defaults = OPTIONS | RANK_BY | weights | (HISTORY if recommender.order is not None else {})
    context = context_defaults(served, users)
    defaults |= context
    if second is not None:
        defaults |= COMBINE | {names.FIRST_STAGE_WEIGHT: (FIRST_STAGE_WEIGHT, [second.first_weight])}
    own = {task.name: task.weight for task in served.schema.tasks}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        batch = tf.shape(request["k"])[0]
        request = request | {name: repeat(request[name], batch) for name in context}
        raw = {name: request[name] for name in served.users}
        queries = user(raw)
        query = tf.add_n([weighted(task, q, request, batch) for task, q in queries.items()])
        return recommender(query, request, queries, is_cold(request, served.schema), scenario(raw)[:, 0] == 0)

    def weighted(task: str, query: tf.Tensor, request: dict[str, Any], batch: tf.Tensor) -> tf.Tensor:
        if second is not None:
            return own.get(task, 1.0) * query
        return repeat(request[weight_name(task)], batch)[:, None] * query if weight_name(task) in weights else query

    return Signature(
        answer, {**specs(users), **specs(REQUEST), **defaults_as_specs(defaults)}, defaults, tuple(context)
    )


def is_cold(request: Mapping[str, Any], schema: Schema) -> tf.Tensor | None:
    """Of whom no taste is known, boolean of shape `(batch,)`: a zero vector, empty sets and sequences.

    Args:
        request: `{column: tensor}` of raw values.
        schema: The `Schema`.

    Returns:
        A tensor, or `None` where users have no such feature: the model knows all users equally.
    """
    kinds = {f.name: KINDS[f.kind] for f in schema.by_role("user")}
    known = [
        tf.reduce_any(request[name] != ("" if kind.is_text else 0.0), axis=1)
        for name, kind in kinds.items()
        if kind.tells_taste
    ]
    return ~tf.reduce_any(tf.stack(known), axis=0) if known else None

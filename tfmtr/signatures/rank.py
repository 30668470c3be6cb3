"""Given titles in the order that is best for a user."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr import names
from tfmtr.names import TITLES, score_name, weight_name
from tfmtr.retrieval.recommender import COMBINE, HISTORY, TEXT, TEXTS, Recommender, repeat
from tfmtr.retrieval.second_stage import SecondStage
from tfmtr.signatures._signature import Served, Signature, context_defaults, defaults_as_specs, specs


def rank(served: Served, *, user: keras.Model, recommender: Recommender, ranker: SecondStage) -> Signature:
    """User features and `rank_titles` of shape `(batch, n)`, padded with "" -> what the ranking model says of each.

    Out, of shape `(batch, n)` in the order of the request: `scores`, float32, as `recommend` has them, and minus
    infinity for padding and for titles that the index does not know; `scores_<task>`; `is_known`, boolean. A title need
    not be available to be ranked. A client may leave out the context, `weight_<task>` and `combine_tasks`. Where the
    ranking model reads what the first stage knows, `request_territory`, `seen`, `history` and `history_ages` may be
    given, too, as for `recommend`: with the same, the scores are the same.
    """
    weights = {weight_name(task.name): (tf.TensorSpec([None], tf.float32), [task.weight]) for task in ranker.tasks}
    defaults, users = COMBINE | weights, ranker.users
    if ranker.has_evidence:
        territory, seen, _ = names.REQUEST
        defaults |= HISTORY | {territory: (TEXT, [""]), seen: (TEXTS, [[""]])}
        users = {**served.users, **users}
    context = context_defaults(served, users)
    defaults |= context
    own = {task.name: task.weight for task in served.schema.tasks}

    def evidence(request: dict[str, Any], place: tf.Tensor) -> dict[str, tf.Tensor] | None:
        if not ranker.has_evidence:
            return None
        queries = user({name: request[name] for name in served.users})
        query = tf.add_n([own.get(task, 1.0) * query for task, query in queries.items()])
        return recommender.evidence_of(query, request, place)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        request = request | {name: repeat(request[name], tf.shape(request[TITLES])[0]) for name in context}
        place = tf.cast(recommender.catalogue.title_index(request[TITLES]), tf.int32) - 1
        is_known = place >= 0
        outputs = ranker(request, place, evidence(request, place))
        scores = ranker.combined(outputs, request)
        found = {"scores": scores, **{score_name(task.name): outputs[task.name] for task in ranker.tasks}}
        return {**{name: tf.where(is_known, v, -np.inf) for name, v in found.items()}, "is_known": is_known}

    inputs = {**specs(users), TITLES: tf.TensorSpec([None, None], tf.string, name=TITLES)}
    return Signature(answer, {**inputs, **defaults_as_specs(defaults)}, defaults, tuple(context))

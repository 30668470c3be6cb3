"""The queries of a user."""

from typing import Any

import keras
import tensorflow as tf

from tfmtr.names import MODEL
from tfmtr.signatures._signature import Served, Signature, specs


def user_embedding(served: Served, *, user: keras.Model) -> Signature:
    """User features -> query vector of each task, and `model`, the run that it is of.

    `<query, title> + bias` is the logit.
    """

    def embed(raw: dict[str, Any]) -> dict[str, Any]:
        queries = user(raw)
        batch = tf.shape(next(iter(queries.values())))[:1]
        return {**queries, MODEL: tf.fill(batch, served.run_id)}

    return Signature(embed, specs(served.users))

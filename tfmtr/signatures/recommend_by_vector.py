"""The titles of a query vector."""

from typing import Any

import keras
import tensorflow as tf

from tfmtr.names import MODEL, QUERY
from tfmtr.retrieval.recommender import OPTIONS, REQUEST, Recommender
from tfmtr.signatures._signature import Served, Signature, defaults_as_specs, specs


def recommend_by_vector(served: Served, *, title: keras.Model, recommender: Recommender) -> Signature:
    """As `recommend`, from a `query` of shape `(batch, d)`, without weights, `rank_by` and history.

    Where the run has a list model, the query has its coordinates, too, as the vectors of `tfmtr embeddings` have.

    With `model`, a vector of another run is an error.
    """
    width = title.output_shape[-1] + (0 if recommender.order is None else recommender.order.width)
    run_id, query = served.run_id, tf.TensorSpec([None, width], tf.float32)
    defaults = OPTIONS | {MODEL: (tf.TensorSpec([None], tf.string), [""])}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        is_same_model = tf.reduce_all((request[MODEL] == "") | (request[MODEL] == run_id))
        text = f"`{MODEL}` must be {run_id}: a vector of another model means nothing to these titles."
        with tf.control_dependencies([tf.debugging.Assert(is_same_model, [text, request[MODEL]])]):
            return recommender(tf.identity(request[QUERY]), request)

    return Signature(answer, {**specs({QUERY: query, **REQUEST}), **defaults_as_specs(defaults)}, defaults)

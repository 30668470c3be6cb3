"""Approximate top-k with ScaNN, exact where filters leave few titles, inside the graph."""

import os
import uuid
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.retrieval.indexes.exact import check_vectors, cut, pad, search_allowed, width_of

SMALLEST_TREE = 1000  # titles; fewer are searched by ScaNN without a tree, exactly
COST = 32  # of fetching one title, in titles scored exactly
SAMPLE = 1024  # titles from which the share that a row is allowed is estimated


class ScannIndex(keras.layers.Layer):
    """Finds most of each query's best titles in a fraction of `ExactIndex`'s time, where there are very many.

    ScaNN knows no filters, so m titles are fetched, m being what k allowed ones would take if they were spread evenly,
    and doubled until every row has k of them. A row for which m would exceed the number of titles that it is allowed
    is searched exactly among these. So k titles come back whenever k exist, and `is_exact` says of which rows the
    search was exact.

    TensorFlow Recommenders' layer of the same name wraps the same operations but fixes the leaves and the reordered
    candidates when it is built and returns no more than the latter, so that nothing could be over-fetched; here
    both are inputs of each search. A test holds the two against each other without filters.

    Reference: Guo et al., Accelerating Large-Scale Inference with Anisotropic Vector Quantization, ICML 2020,
    https://arxiv.org/abs/1908.10396.

    Args:
        catalogue: The `Catalogue`.
        vectors: Array of shape `(titles, d)`.
        leaves: Of the tree; the square root of the number of titles by default.
        leaves_to_search: For a search without filters; more are searched as more is fetched. A quarter by default.
        reorder: Candidates that are scored exactly, at least.

    Call arguments, Returns: As `ExactIndex`.

    Raises:
        ValueError: If there is not one vector for each title, or ScaNN is not installed.
        tf.errors.InvalidArgumentError: If `k` is not in [1, titles].
    """

    def __init__(
        self,
        catalogue: Catalogue,
        vectors: np.ndarray,
        *,
        leaves: int | None = None,
        leaves_to_search: int | None = None,
        reorder: int = 500,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})  # whatever the towers compute in
        check_vectors(catalogue, vectors)
        self.catalogue, self.reorder = catalogue, reorder
        self.is_tree = catalogue.num_titles >= SMALLEST_TREE
        self.leaves = leaves or round(catalogue.num_titles**0.5)
        self.leaves_to_search = leaves_to_search or max(1, self.leaves // 4)
        builder = load_operations().builder(np.asarray(vectors, np.float32), 10, "dot_product")
        builder = builder.set_n_training_threads(os.cpu_count())
        if self.is_tree:
            builder = builder.tree(self.leaves, self.leaves_to_search)
            builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(reorder)
        else:
            builder = builder.score_brute_force()
        self.state = builder.build().serialize_to_module()
        self.sample = np.random.default_rng(0).permutation(catalogue.num_titles)[:SAMPLE].astype("int32")
        self.searcher_name = f"scann-{uuid.uuid4()}"  # by which the signatures share one searcher
        self.built = True

    def call(self, query: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Searches; see `ExactIndex`."""
        size = self.catalogue.num_titles
        width, searcher, vectors = width_of(k, size), self.searcher(), tf.convert_to_tensor(self.state.dataset)
        share = tf.reduce_mean(tf.cast(tf.gather(allowed, self.sample, axis=1), tf.float32), axis=1)
        fetch = tf.cast(tf.cast(k, tf.float32) / tf.maximum(share, 1 / size), tf.int32)
        fetch = tf.maximum(2 * k, fetch)  # (batch,)
        most = tf.cast(share * (size / COST), tf.int32)  # to fetch before it costs more than the exact search

        def search(m: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            leaves = tf.maximum(self.leaves_to_search * m // tf.maximum(2 * width, 1), self.leaves_to_search)
            neighbours = searcher.search_batched_parallel(
                query, m, tf.maximum(self.reorder, m), tf.minimum(leaves, self.leaves)
            )
            # (batch, at most m); NaN where the leaves had no more.
            neighbours, scores = (tf.ensure_shape(t, [None, None]) for t in (neighbours.indices, neighbours.distances))
            is_title = tf.gather(allowed, neighbours, batch_dims=1) & ~tf.math.is_nan(scores)
            scores = tf.where(is_title, scores, -np.inf)
            scores, place = tf.math.top_k(scores, tf.minimum(width, tf.shape(scores)[1]))
            index = tf.gather(neighbours, place, batch_dims=1)
            is_lacking = tf.math.count_nonzero(scores > -np.inf, axis=1, dtype=tf.int32) < k
            scores, index = pad(scores, index, width)
            return tf.minimum(2 * m, size), scores, index, is_lacking

        is_fetched, unknown = fetch <= most, tf.fill([tf.shape(query)[0], width], -np.inf)
        first = tf.reduce_max(tf.concat([[1], tf.where(is_fetched, fetch, 1)], axis=0))
        _, scores, index, is_lacking = tf.while_loop(
            lambda m, scores, index, is_lacking: tf.reduce_any(is_lacking & is_fetched & (m <= most)),
            search,
            (first, unknown, tf.zeros_like(unknown, tf.int32), tf.ones_like(is_fetched)),
            shape_invariants=(tf.TensorShape([]), *(tf.TensorShape([None, None]),) * 2, tf.TensorShape([None])),
        )
        rows = tf.where(is_lacking)

        def exactly() -> tuple[tf.Tensor, tf.Tensor]:
            own_query, own_allowed = tf.gather_nd(query, rows), tf.gather_nd(allowed, rows)
            exact_scores, exact_index = search_allowed(own_query, vectors, own_allowed, width)
            return (
                tf.tensor_scatter_nd_update(scores, rows, exact_scores),
                tf.tensor_scatter_nd_update(index, rows, exact_index),
            )

        scores, index = tf.cond(tf.reduce_any(is_lacking), exactly, lambda: (scores, index))
        return {"index": index, "scores": cut(scores, k), "is_exact": is_lacking | (not self.is_tree)}

    def vectors_of(self, index: tf.Tensor) -> tf.Tensor:
        """Vectors of candidates: `index` of shape `(batch, candidates)` gives `(batch, candidates, d)`."""
        return tf.gather(self.state.dataset, index)

    def searcher(self) -> Any:
        """ScaNN's searcher, made from the variables when it is first used."""
        ops, state = load_operations(), self.state
        handle = ops.tensors_to_scann(
            state.dataset,
            state.scann_config,
            state.serialized_partitioner,
            state.datapoint_to_token,
            state.ah_codebook,
            state.hashed_dataset,
            state.int8_dataset,
            state.int8_multipliers,
            state.dp_norms,
            shared_name=self.searcher_name,
        )
        return ops.ScannSearcher(handle)


def load_operations() -> ModuleType:
    """Module of ScaNN's operations; graphs that have them can be loaded from then on.

    Raises:
        ValueError: If ScaNN is not installed, or not for this TensorFlow.
    """
    try:
        from scann.scann_ops.py import scann_ops
    except (ImportError, tf.errors.OpError) as error:
        raise ValueError(f"ScaNN is needed; install it with: pip install 'tfmtr[scann]'. Received: {error}") from error
    return scann_ops


def scann(catalogue: Catalogue, vectors: np.ndarray, file: str | os.PathLike | None = None) -> ScannIndex:
    """A `ScannIndex`."""
    return ScannIndex(catalogue, vectors)

"""Exact top-k over title vectors that stay in a file, inside the graph."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.retrieval.indexes.exact import cut, width_of


class StreamingIndex(keras.layers.Layer):
    """Finds what `ExactIndex` finds, without the vectors in memory.

    A dataset reads the file chunk by chunk within each call and keeps the best titles so far, so that neither the
    vectors nor the scores of all titles are ever there at once; what the catalogue allows, one byte for each row and
    title, is. A call costs some 20 milliseconds and a pass over the file, and as much again where `vectors_of` is asked
    for: it is made for catalogues that do not fit, and for large batches. It computes on the CPU. The file is part of
    the exported model.

    Args:
        catalogue: The `Catalogue`.
        file: Raw float32, `vectors.tofile(file)` of an array of shape `(titles, d)`.
        chunk: Titles that are read and scored at once.

    Call arguments, Returns: As `ExactIndex`.

    Raises:
        ValueError: If the file does not hold one vector for each title.
        tf.errors.InvalidArgumentError: If `k` is not in [1, titles].
    """

    def __init__(self, catalogue: Catalogue, file: str | os.PathLike, *, chunk: int = 8192, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})  # whatever the towers compute in
        size, row = Path(file).stat().st_size, 4 * catalogue.num_titles
        if not size or size % row:
            raise ValueError(
                f"`file` must hold float32 of shape ({catalogue.num_titles}, d), one vector for each title. "
                f"Received: {file} of {size} bytes"
            )
        self.catalogue, self.width, self.chunk = catalogue, size // row, chunk
        self.file = tf.saved_model.Asset(str(file))
        self.built = True

    def call(self, query: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Searches; see `ExactIndex`."""
        width = width_of(k, self.catalogue.num_titles)

        def merge(
            state: tuple[tf.Tensor, tf.Tensor, tf.Tensor], chunk: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            start, scores, index = state
            stop = start + tf.shape(chunk)[0]
            chunk_scores = tf.where(allowed[:, start:stop], tf.matmul(query, chunk, transpose_b=True), -np.inf)
            chunk_index = tf.broadcast_to(tf.range(start, stop), tf.shape(chunk_scores))
            scores, place = tf.math.top_k(
                tf.concat([scores, chunk_scores], axis=1), width
            )  # earlier titles first, as Exact
            return stop, scores, tf.gather(tf.concat([index, chunk_index], axis=1), place, batch_dims=1)

        shape = [tf.shape(query)[0], width]
        _, scores, index = self.chunks().reduce(
            (tf.constant(0), tf.fill(shape, -np.inf), tf.zeros(shape, tf.int32)), merge
        )
        return {"index": index, "scores": cut(scores, k), "is_exact": tf.ones_like(k, tf.bool)}

    def vectors_of(self, index: tf.Tensor) -> tf.Tensor:
        """Vectors of candidates: `index` of shape `(batch, candidates)` gives `(batch, candidates, d)`."""

        def pick(state: tuple[tf.Tensor, tf.Tensor], chunk: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start, vectors = state
            size = tf.shape(chunk)[0]
            is_here = (index >= start) & (index < start + size)
            chunk_vectors = tf.gather(chunk, tf.clip_by_value(index - start, 0, size - 1))
            return start + size, tf.where(is_here[:, :, None], chunk_vectors, vectors)

        shape = tf.concat([tf.shape(index), [self.width]], axis=0)
        return self.chunks().reduce((tf.constant(0), tf.zeros(shape)), pick)[1]

    def chunks(self) -> tf.data.Dataset:
        """Dataset of float32 of shape `(at most chunk, d)`, in the order of the titles."""
        row = 4 * self.width
        rest = self.catalogue.num_titles % self.chunk * row
        whole = self.catalogue.num_titles * row - rest
        records = tf.data.FixedLengthRecordDataset(self.file.asset_path, self.chunk * row, footer_bytes=rest)
        if rest:
            last = tf.data.FixedLengthRecordDataset(self.file.asset_path, rest, header_bytes=whole)
            records = records.concatenate(last) if whole else last
        options = tf.data.Options()  # a call would rewrite the dataset's graph for longer than it reads
        options.experimental_optimization.apply_default_optimizations = False
        options.autotune.enabled = False
        records = records.with_options(options)
        return records.prefetch(1).map(
            lambda record: tf.reshape(tf.io.decode_raw(record, tf.float32), [-1, self.width])
        )


def streaming(catalogue: Catalogue, vectors: np.ndarray, file: str | os.PathLike | None = None) -> StreamingIndex:
    """A `StreamingIndex` of vectors that are written to a file."""
    vectors.tofile(file)  # pyright: ignore[reportArgumentType]
    return StreamingIndex(catalogue, file)  # pyright: ignore[reportArgumentType]

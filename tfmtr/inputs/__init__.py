"""Examples (Parquet) to tf.data batches: streamed, shuffled as a function of (seed, epoch), prefetched."""

from tfmtr.inputs.batched import batches, in_memory, without_autotune
from tfmtr.inputs.encoder import Encoder, check_row_weights, labels, model_inputs, row_weights, with_unknown_context
from tfmtr.inputs.frames import as_arrays, as_batches, as_labels, encode_frame
from tfmtr.inputs.parquet_rows import check_rows, num_rows, num_steps, read_tables
from tfmtr.inputs.store_rows import Recycled, open_stores, take_vectors

__all__ = [
    "Encoder",
    "Recycled",
    "as_arrays",
    "as_batches",
    "as_labels",
    "batches",
    "check_row_weights",
    "check_rows",
    "encode_frame",
    "in_memory",
    "labels",
    "model_inputs",
    "num_rows",
    "num_steps",
    "open_stores",
    "read_tables",
    "row_weights",
    "take_vectors",
    "with_unknown_context",
    "without_autotune",
]

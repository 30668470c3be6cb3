"""Embedding tables that do not fit one machine: their rows lie on parameter servers, the rest of the model stays.

python -m tfmtr.parameter_servers 7000      # on each machine that holds rows
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tfmtr.backends import check_tensorflow
from tfmtr.layers._sizes import check_sizes
from tfmtr.layers.embedding_table import EmbeddingTable

if TYPE_CHECKING:
    import tensorflow as tf

JOB = "parameter_server"
_servers = {"devices": (), "min_rows": 0}


@contextlib.contextmanager
def sharded_tables(addresses: Sequence[str], *, min_rows: int = 1_000_000) -> Iterator[None]:
    """Inside, models that are built have their large tables on parameter servers, row i on server i mod n.

    A step fetches each row of its batch once and sends one gradient for it; `SparseAdam` and `RowWiseAdagrad` keep
    their state and compute the update where the rows are. Nothing else changes: the model is trained by `fit`.

    A process has the same servers for as long as it lives. Whoever reaches a server's port can run what they like on
    it: ports belong in a private network.

    Args:
        addresses: `host:port` of each process `python -m tfmtr.parameter_servers <port>`.
        min_rows: Tables with fewer rows stay where the model is.

    Raises:
        ValueError: If there is no address, `min_rows` is not positive or the backend is not TensorFlow.
    """
    check_tensorflow("`sharded_tables`", "shard variables with `keras.distribution`")
    check_sizes(min_rows=min_rows)
    if not addresses:
        raise ValueError(f"`addresses` must have one host:port or more. Received: addresses={addresses}")
    before = dict(_servers)
    _servers.update(devices=_connect(list(addresses)), min_rows=min_rows)
    try:
        yield
    finally:
        _servers.update(before)


def table(rows: int, width: int, **options: Any) -> EmbeddingTable:
    """The layer of a table of so many rows: an `EmbeddingTable`, or a `ShardedTable` inside `sharded_tables`."""
    if _servers["devices"] and rows >= _servers["min_rows"]:
        return ShardedTable(rows, width, num_shards=len(_servers["devices"]), **options)
    return EmbeddingTable(rows, width, **options)


@keras.saving.register_keras_serializable(package="tfmtr")
class ShardedTable(EmbeddingTable):
    """An `EmbeddingTable` whose row i is in variable i mod `num_shards`, one on each server of `sharded_tables`.

    Popular ids tend to be neighbours in a vocabulary; so they are spread over the servers. Outside `sharded_tables` all
    variables are where the model is.

    Args:
        input_dim: Number of rows.
        output_dim: Width of a row.
        num_shards: Number of variables.

    Call arguments, Returns: As `EmbeddingTable`.
    """

    def __init__(self, input_dim: int, output_dim: int, num_shards: int, **kwargs: Any) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        check_sizes(num_shards=num_shards)
        check_tensorflow("`ShardedTable`", "take an `EmbeddingTable`")
        self.num_shards = num_shards

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes each variable on its server."""
        import tensorflow as tf

        self.shards = []
        for i, device in enumerate(_servers["devices"] or (None,) * self.num_shards):
            with tf.device(device):
                rows = -(-(self.input_dim - i) // self.num_shards)
                self.shards.append(
                    self.add_weight(
                        shape=(rows, self.output_dim), initializer=self.initializer, autocast=False, name="embeddings"
                    )
                )

    def call(self, inputs: "tf.Tensor") -> "tf.Tensor":
        """Fetches each row once."""
        import tensorflow as tf

        indices = tf.cast(inputs, tf.int32)
        unique, place = tf.unique(tf.reshape(indices, (-1,)))
        shards = [shard.value for shard in self.shards]
        rows = tf.compat.v1.nn.embedding_lookup(shards, unique, partition_strategy="mod")
        rows = tf.gather(rows, tf.reshape(place, tf.shape(indices)))
        rows.set_shape((*indices.shape, self.output_dim))
        return ops.cast(rows, self.compute_dtype)  # pyright: ignore[reportReturnType]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "num_shards": self.num_shards}


def _connect(addresses: list[str]) -> tuple[str, ...]:
    """Names of the servers' devices."""
    import tensorflow as tf

    devices = tuple(f"/job:{JOB}/replica:0/task:{i}/device:CPU:0" for i in range(len(addresses)))
    if not set(devices) <= {device.name for device in tf.config.list_logical_devices("CPU")}:
        tf.config.experimental_connect_to_host(addresses, job_name=JOB)
    return devices


def serve(port: int) -> None:
    """Holds rows until the process is ended."""
    import tensorflow as tf

    server = tf.distribute.Server({JOB: [f"localhost:{port}"]}, job_name=JOB, task_index=0)
    print(f"Holding rows for {server.target}", flush=True)
    server.join()


if __name__ == "__main__":
    serve(int(sys.argv[1]))

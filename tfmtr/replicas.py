"""Several replicas of a model: what a training step must know of the other ones.

`tf.distribute` copies the model to the devices of a machine (`MirroredStrategy`) or of several workers
(`MultiWorkerMirroredStrategy`, which reads `TF_CONFIG`), gives each its own rows and adds up the gradients. A step is
that of one process with all rows if the losses of the replicas add up to the loss of all rows: means divide by the
number of rows of all replicas, and batch normalisation uses the statistics of all.

Everything here is what it would be without replicas where there are none, on other backends among them.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import keras

from tfmtr.backends import is_tensorflow
from tfmtr.checks import check_choice

if TYPE_CHECKING:
    import tensorflow as tf

STRATEGIES = ("none", "mirrored", "multi_worker")


def make_strategy(name: str | None = None) -> "tf.distribute.Strategy":
    """The strategy of a name; `None` is `"multi_worker"` if the environment names several workers, or else `"none"`.

    Must come before TensorFlow has done anything, as workers find one another then.

    Args:
        name: One of `STRATEGIES`, or `None`.

    Returns:
        A `tf.distribute.Strategy`, whose scope training belongs into.

    Raises:
        ValueError: If `"multi_worker"` is asked for and `TF_CONFIG` names no cluster.
    """
    import tensorflow as tf

    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    name = name or ("multi_worker" if sum(map(len, cluster.values())) > 1 else "none")
    check_choice("strategy", name, STRATEGIES)
    if name == "multi_worker" and not cluster:
        raise ValueError(
            '`strategy="multi_worker"` needs the environment variable TF_CONFIG, such as '
            '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, "task": {"type": "worker", "index": 0}}. '
            f"Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}"
        )
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.MirroredStrategy() if name == "mirrored" else tf.distribute.get_strategy()


def strategy() -> Any:
    """The strategy of the scope that this is called in; `None` on other backends than TensorFlow."""
    if not is_tensorflow():
        return None
    import tensorflow as tf

    return tf.distribute.get_strategy()


def number() -> int:
    """Number of replicas."""
    return 1 if strategy() is None else strategy().num_replicas_in_sync


def total(values: keras.KerasTensor) -> keras.KerasTensor:
    """Sum of a tensor over all replicas, in the middle of a replica's step; the tensor itself anywhere else."""
    if number() == 1:
        return values
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    return values if replica is None else replica.all_reduce(tf.distribute.ReduceOp.SUM, values)


def worker() -> tuple[int, int]:
    """`(index, number of workers)` of this process; the first one is the chief, who writes files."""
    resolver = getattr(strategy(), "cluster_resolver", None)
    cluster = resolver.cluster_spec().as_dict() if resolver else {}
    chiefs, workers = (len(cluster.get(job, ())) for job in ("chief", "worker"))
    if chiefs + workers < 2:
        return 0, 1
    return (chiefs if resolver.task_type == "worker" else 0) + resolver.task_id, chiefs + workers


def is_chief() -> bool:
    """Whether this process writes files."""
    return worker()[0] == 0


def wait() -> None:
    """Returns when all workers are here."""
    if worker()[1] > 1:
        import tensorflow as tf

        strategy().reduce(tf.distribute.ReduceOp.SUM, strategy().run(_one), axis=None)


def alone(work: Callable[[], Any]) -> Any:
    """What `work` returns when it is called outside the scope of the strategy, as one worker does without the others.

    A variable that is made in the scope is sent to the other workers, who would wait for it. The scope is that of a
    thread, as are Keras's settings, so `work` is done in another one, to which the dtype policy is given.
    """
    if number() == 1:
        return work()
    policy = keras.config.dtype_policy()

    def outside() -> Any:
        keras.config.set_dtype_policy(policy)
        return work()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(outside).result()


def _one() -> keras.KerasTensor:
    return keras.ops.ones(())  # pyright: ignore[reportReturnType]


def reducible(logs: dict[str, keras.KerasTensor]) -> dict[str, keras.KerasTensor]:
    """Figures of a step as Keras can average them over workers.

    Keras 3.15 calls `strategy.reduce("MEAN", value, axis=0)` on the scalars that `train_step` returns
    (`reduce_per_replica` in `keras/src/backend/tensorflow/trainer.py`), and a scalar has no axis 0.
    """
    return {name: keras.ops.reshape(value, (1,)) for name, value in logs.items()} if worker()[1] > 1 else logs  # pyright: ignore[reportReturnType]

"""Embedding tables by row over several processes on loopback: every mechanism that installs beside TensorFlow 2.20.

    python benchmarks/large_tables.py

A batch of 8,192 rows looks 8 random ids up in one table of width 64 (1 and 10 million rows); a hidden layer of 64 and a
logit follow. Each cell is a mechanism and a size, in a process of its own:

* `one process`: an `EmbeddingTable` with `SparseAdam`, for reference; `one process, adagrad` with `RowWiseAdagrad`.
* `servers` and `servers, adagrad`: the same in `sharded_tables`, over two processes `tfmtr.parameter_servers`.
* `strategy`: TensorFlow's `ParameterServerStrategy` with two parameter servers and one worker, a `ShardedVariable`, and
  Adagrad of the touched rows in a loop without Keras.
* `keras_rs, tensorflow` and `keras_rs, jax`: Keras-RS's `DistributedEmbedding` with Adam, which has nothing but the
  default device where there is no SparseCore; on JAX over two devices of the process.
* `model parallel, jax`: an `EmbeddingTable` with `RowWiseAdagrad` and `keras.distribution.ModelParallel`, rows over two
  devices of the process.

Prints examples a second, bytes over loopback a step (whatever else uses it counts) and the memory of each process, and
writes `benchmarks/results/large_tables.json` cell by cell: what the file has is not measured again. The decision is in
`docs/large-tables.md`. Linux only.
"""

import argparse
import contextlib
import functools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tfmtr.documents import read_json, write_json
from tfmtr.serving.process import free_ports

RESULT = Path("benchmarks/results/large_tables.json")
SIZES = (1_000_000, 10_000_000)
WIDTH, IDS, HIDDEN, SERVERS = 64, 8, 64, 2
BATCHES = 4  # different ones
SERVER = """
import json, sys
import tensorflow as tf
cluster, job, task = json.loads(sys.argv[1])
server = tf.distribute.Server(tf.train.ClusterSpec(cluster), job_name=job, task_index=task)
print("ready", flush=True)
server.join()
"""


def batches(rows, batch_size):
    """Ids and labels of some batches, shapes `(batches, batch, ids)` and `(batches, batch)`."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, rows, (BATCHES, batch_size, IDS), dtype="int32")
    return ids, rng.integers(0, 2, (BATCHES, batch_size)).astype("float32")


@contextlib.contextmanager
def processes(commands):
    """Processes that have said a line; they end with the block."""
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for command in commands]
    try:
        for process in started:
            process.stdout.readline()
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def keras_model(embed, optimizer, rows, batch_size, jit_compile=False):
    """`train(steps)` of a Keras model, `embed(inputs)` of shape `(batch, ids, width)`."""
    import keras

    inputs = keras.Input((IDS,), batch_size=batch_size, dtype="int32")
    x = keras.layers.Dense(HIDDEN, activation="relu")(keras.layers.Flatten()(embed(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=jit_compile)
    ids, labels = batches(rows, batch_size)

    def train(steps):
        for step in range(steps):
            model.train_on_batch(ids[step % BATCHES], labels[step % BATCHES])
        int(model.optimizer.iterations)  # JAX answers before it has computed

    return train


def optimizers(name):
    """An optimizer of this package."""
    from tfmtr import training

    return training.optimizer_of(name)(1e-3)


@contextlib.contextmanager
def one_process(rows, batch_size, optimizer="sparse_adam"):
    """The reference."""
    from tfmtr.layers.embedding_table import EmbeddingTable

    yield keras_model(EmbeddingTable(rows, WIDTH), optimizers(optimizer), rows, batch_size), []


@contextlib.contextmanager
def servers(rows, batch_size, optimizer="sparse_adam"):
    """This package's."""
    from tfmtr import parameter_servers

    ports = free_ports(SERVERS)
    with processes([[sys.executable, "-m", "tfmtr.parameter_servers", str(port)] for port in ports]) as others:
        with parameter_servers.sharded_tables([f"localhost:{port}" for port in ports], min_rows=rows):
            table = parameter_servers.table(rows, WIDTH)
            table.build((None, IDS))
        yield keras_model(table, optimizers(optimizer), rows, batch_size), others


@contextlib.contextmanager
def strategy(rows, batch_size):
    """TensorFlow's strategy, its coordinator in this process."""
    import tensorflow as tf

    ports = free_ports(SERVERS + 1)
    cluster = {"worker": [f"localhost:{ports[0]}"], "ps": [f"localhost:{port}" for port in ports[1:]]}
    tasks = [(job, task) for job, addresses in cluster.items() for task in range(len(addresses))]
    commands = [[sys.executable, "-c", SERVER, json.dumps([cluster, *task])] for task in tasks]
    with processes(commands) as others:
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec(cluster), rpc_layer="grpc")
        partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(2**18, max_shards=SERVERS)
        distribution = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
        coordinator = tf.distribute.coordinator.ClusterCoordinator(distribution)
        with distribution.scope():
            # A shard is made where it lies only if both know the sizes; otherwise all of it here, for one message.
            sizes = {"shape": (rows, WIDTH), "dtype": tf.float32}
            starts = tf.random_uniform_initializer(-0.05, 0.05), tf.zeros_initializer()
            table, state = (tf.Variable(functools.partial(start, **sizes), **sizes) for start in starts)
            hidden = tf.Variable(tf.random.normal((IDS * WIDTH, HIDDEN)) * 0.05)
            output = tf.Variable(tf.random.normal((HIDDEN, 1)) * 0.1)
        shards, states = (getattr(variable, "variables", [variable]) for variable in (table, state))

        def step(ids, labels):
            unique, place = tf.unique(tf.reshape(ids, (-1,)))
            with tf.GradientTape() as tape:
                found = tf.gather(tf.nn.embedding_lookup(table, unique), place)
                x = tf.nn.relu(tf.matmul(tf.reshape(found, (-1, IDS * WIDTH)), hidden))
                logits = tf.matmul(x, output)[:, 0]
                loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
            *gradients, of_hidden, of_output = tape.gradient(loss, [*shards, hidden, output])
            for shard, sums, gradient in zip(shards, states, gradients, strict=True):
                with tf.device(shard.device):
                    tf.raw_ops.ResourceSparseApplyAdagradV2(
                        var=shard.handle, accum=sums.handle, lr=1e-3, epsilon=1e-7, grad=gradient.values,
                        indices=gradient.indices,
                    )  # fmt: skip
            hidden.assign_sub(1e-3 * of_hidden)
            output.assign_sub(1e-3 * of_output)
            return loss

        @tf.function
        def work(iterator):
            return distribution.run(step, args=next(iterator))

        def dataset():
            return tf.data.Dataset.from_tensor_slices(batches(rows, batch_size)).repeat()

        iterator = iter(coordinator.create_per_worker_dataset(dataset))

        def train(steps):
            for _ in range(steps):
                coordinator.schedule(work, args=(iterator,))
            coordinator.join()

        yield train, others


@contextlib.contextmanager
def keras_rs(rows, batch_size):
    """Keras-RS on the process's backend, on JAX over all devices."""
    import keras
    from keras_rs import layers

    if keras.backend.backend() == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    table = layers.TableConfig("ids", rows, WIDTH, initializer="uniform", optimizer="adam")
    shapes = {"input_shape": (batch_size, 1), "output_shape": (batch_size, WIDTH)}
    features = [layers.FeatureConfig(f"id_{i}", table, **shapes) for i in range(IDS)]
    embedding = layers.DistributedEmbedding(features)

    def embed(inputs):
        return keras.ops.stack(embedding([inputs[:, i : i + 1] for i in range(IDS)]), axis=1)

    is_jax = keras.backend.backend() == "jax"
    yield keras_model(embed, keras.optimizers.Adam(1e-3), rows, batch_size, jit_compile=is_jax), []


@contextlib.contextmanager
def model_parallel(rows, batch_size):
    """Keras's own sharding of variables."""
    import keras

    from tfmtr.layers.embedding_table import EmbeddingTable

    mesh = keras.distribution.DeviceMesh((1, SERVERS), ["batch", "rows"], keras.distribution.list_devices())
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*embeddings.*"] = ("rows", None)
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)
    )
    yield keras_model(EmbeddingTable(rows, WIDTH), optimizers("row_wise_adagrad"), rows, batch_size, True), []


def adagrad(mechanism):
    """The mechanism with `RowWiseAdagrad`."""
    return lambda rows, batch_size: mechanism(rows, batch_size, "row_wise_adagrad")


MECHANISMS = {  # (function, backend)
    "one process": (one_process, "tensorflow"),
    "one process, adagrad": (adagrad(one_process), "tensorflow"),
    "servers": (servers, "tensorflow"),
    "servers, adagrad": (adagrad(servers), "tensorflow"),
    "strategy": (strategy, "tensorflow"),
    "keras_rs, tensorflow": (keras_rs, "tensorflow"),
    "keras_rs, jax": (keras_rs, "jax"),
    "model parallel, jax": (model_parallel, "jax"),
}


def resident(process):
    """Megabytes of a process."""
    status = Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1]
    return int(status.split()[0]) / 1e3


def loopback():
    """Bytes that came over loopback so far."""
    lines = [line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")]
    return int(lines[0].split()[1])


def measure(name, rows, batch_size, steps, seconds_of_idle=1.0):
    """Figures of one cell, in a process that has its backend."""
    before = loopback()
    time.sleep(seconds_of_idle)
    idle = (loopback() - before) / seconds_of_idle
    mechanism, _ = MECHANISMS[name]
    with mechanism(rows, batch_size) as (train, others):
        started = time.perf_counter()
        train(1)
        first = time.perf_counter() - started
        bytes_before, seconds = loopback(), []
        for _ in range(steps):
            started = time.perf_counter()
            train(1)
            seconds.append(time.perf_counter() - started)
        traffic = loopback() - bytes_before
        return {
            "examples_per_second": batch_size / float(np.median(seconds)),
            "deviation": float(np.std([batch_size / value for value in seconds])),
            "first_step_seconds": first,
            "megabytes_per_step": traffic / steps / 1e6,
            "idle_megabytes_per_second": idle / 1e6,
            "megabytes": resident("self"),
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            "megabytes_of_others": [resident(process.pid) for process in others],
        }


def run_cell(name, rows, batch_size, steps, timeout):
    """Measures in a process of its own; says what went wrong if something did."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": MECHANISMS[name][1],
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={SERVERS}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    cell = json.dumps([name, rows, batch_size, steps])
    process = subprocess.Popen(
        [sys.executable, __file__, "--cell", cell], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        answer, messages = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # its servers too
        process.communicate()
        return {"failed": f"no answer in {timeout} s"}
    if process.returncode:
        return {"failed": messages.strip().splitlines()[-1][:300]}
    return json.loads(answer.splitlines()[-1])


def main(sizes=SIZES, mechanisms=tuple(MECHANISMS), batch_size=8192, steps=20, timeout=600, out=RESULT):
    """Measures what the file lacks and prints all."""
    from tfmtr import training

    document = read_json(out) or {"cells": {}}
    for rows in sizes:
        for name in mechanisms:
            cell = f"{rows:,} rows, {name}"
            if "examples_per_second" not in document["cells"].get(cell, {}):
                document["cells"][cell] = run_cell(name, rows, batch_size, steps, timeout)
            document |= {
                "batch_size": batch_size,
                "versions": training.versions(),
                "cores": os.cpu_count(),
                "date": time.strftime("%Y-%m-%d", time.gmtime()),
            }
            out.parent.mkdir(parents=True, exist_ok=True)
            write_json(out, document)
    table = Table("cell", title=f"A table of width {WIDTH}, batches of {batch_size:,} with {IDS} ids a row")
    for column in ("examples/s", "± std", "MB a step", "MB here", "MB elsewhere", "first step, s"):
        table.add_column(column, justify="right")
    for name, cell in document["cells"].items():
        if "failed" in cell:
            table.add_row(name, cell["failed"])
            continue
        table.add_row(
            name,
            f"{cell['examples_per_second']:,.0f}",
            f"{cell['deviation']:,.0f}",
            f"{cell['megabytes_per_step']:.1f}",
            f"{cell['megabytes']:,.0f}",
            " + ".join(f"{value:,.0f}" for value in cell["megabytes_of_others"]),
            f"{cell['first_step_seconds']:.1f}",
        )
    Console(width=140).print(table)
    return document


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="rows, with commas between")
    parser.add_argument("--mechanism", action="append", choices=list(MECHANISMS), help="only these")
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a cell")
    parser.add_argument("--timeout", type=int, default=600, help="seconds that a cell may take")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(measure(*json.loads(arguments.cell))), flush=True)
        os._exit(0)  # what is left of a cluster whose servers have ended would wait for them
    sizes = [int(float(size)) for size in arguments.sizes.split(",")]
    main(
        sizes, arguments.mechanism or list(MECHANISMS), arguments.batch_size, arguments.steps, arguments.timeout,
        arguments.out,
    )  # fmt: skip

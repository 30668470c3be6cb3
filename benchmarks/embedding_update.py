"""What a step of the row-sparse optimizers costs on tables of 10 thousand, 1 million and 20 million rows.

    python benchmarks/embedding_update.py
    python benchmarks/embedding_update.py --data path/to/ml-1m.zip

An update looks up 8 random ids for each of 8,192 rows in a table of width 16 and updates what it found; the limit it is
held against looks the same ids up and adds the same values to them, which is what a lookup and plain gradient descent
must do. A training step is that of a model with this table, its 8 embeddings side by side, one hidden layer of 64
and one logit, by `SparseAdam`. All take their turns one after the other, so that a machine that slows down slows all of
them down. Keras's Adam is measured up to 1 million rows. Prints median milliseconds, the ratio to the limit and the
process's peak memory, and writes `benchmarks/results/embedding_update.json`.

At 20 million rows most of a step is waiting for memory pages; `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` in front of the
command lets the tables have large ones where the kernel's setting is "madvise".

With `--data` it trains MMoE with layer normalisation on MovieLens-1M (split by time, five epochs) with Keras's Adam and
with the row-sparse optimizers, three seeds each, and adds the mean AUC of click and like on test rows, training by
training: what the file has is kept. Both kinds of Adam have the studies' rate; Adagrad's is the best of 0.01, 0.03 and
0.1 on validation rows, seed 0. `--sizes ""` leaves the times as they are.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import sharing
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tfmtr import models, training
from tfmtr.layers.embedding_table import EmbeddingTable
from tfmtr.optimizers.row_wise_adagrad import RowWiseAdagrad
from tfmtr.optimizers.sparse_adam import SparseAdam

RESULT = Path("benchmarks/results/embedding_update.json")
SIZES = (10_000, 1_000_000, 20_000_000)
MAKE = {"sparse_adam": SparseAdam, "row_wise_adagrad": RowWiseAdagrad, "keras_adam": keras.optimizers.Adam}
LARGEST_DENSE = 1_000_000
RATES = {"sparse_adam": 3e-3, "row_wise_adagrad": 3e-2, "keras_adam": 3e-3}


def measure(size, *, steps, warmup, batch=8192, ids=8, width=16):
    """Median milliseconds of a step by name, on tables of one size."""
    rng = np.random.default_rng(0)
    batches = [tf.constant(rng.integers(0, size, batch * ids), tf.int32) for _ in range(8)]
    values = tf.constant(rng.normal(size=(batch * ids, width)) * 1e-3, tf.float32)
    functions = {"limit": plain_step(size, width, values)}
    for name, make in MAKE.items():
        if name != "keras_adam" or size <= LARGEST_DENSE:
            functions[name] = optimizer_step(make(1e-3), size, width, values)
    functions["training_step"] = training_step(SparseAdam(1e-3), size, width, (batch, ids))
    seconds = {name: [] for name in functions}
    for step in range(warmup + steps):
        for name, function in functions.items():
            started = time.perf_counter()
            function(batches[step % len(batches)])
            if step >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * float(np.median(values)) for name, values in seconds.items()}


def plain_step(size, width, values):
    """Looks rows up and adds to them."""
    table = tf.Variable(tf.zeros((size, width)))

    @tf.function
    def step(ids):
        found = tf.gather(table, ids)
        table.scatter_sub(tf.IndexedSlices(values + 0.0 * found, ids))

    return step


def optimizer_step(optimizer, size, width, values):
    """Looks rows up and updates them by a gradient that comes row by row."""
    layer = keras.layers.Embedding(size, width, embeddings_initializer="zeros")
    layer.build()
    optimizer.build([layer.embeddings])

    @tf.function
    def step(ids):
        found = tf.gather(layer.embeddings.value, ids)
        gradient = tf.IndexedSlices(values + 0.0 * found, ids, tf.constant([size, width]))
        optimizer.apply([gradient], [layer.embeddings])

    return step


def training_step(optimizer, size, width, shape):
    """A whole step of a small model."""
    inputs = keras.Input(shape[1:], dtype="int32")
    x = EmbeddingTable(size, width)(inputs)
    x = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True), jit_compile=False)
    label = tf.constant(np.random.default_rng(1).integers(0, 2, (shape[0], 1)), tf.float32)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(ids):
        model.train_step((tf.reshape(ids, shape), label))

    return step


def read_movielens(path):
    """Schema and parts of MovieLens-1M, split by time, as the balancing study reads it."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from studies.balancing import study as balancing_study

    return *balancing_study.read("movielens", path), balancing_study.evaluate


def mean_auc(movielens, optimizer, seed, *, share="mmoe", policy="float32", epochs=5):
    """Mean AUC of click and like on MovieLens-1M's test rows, of a model trained with a seed under a dtype policy."""
    schema, parts, evaluate = movielens
    keras.utils.clear_session()  # which forgets the policy
    keras.mixed_precision.set_global_policy(policy)
    keras.utils.set_random_seed(seed)
    model = models.ranking(schema, share=sharing.normalized(share))
    model.compile(optimizer)
    model.fit(*parts["train"], batch_size=16_384, epochs=epochs, verbose=0)
    return evaluate(model, schema, *parts["test"])[0]["mean_auc"]


def accuracy(path, seeds, known=()):
    """Yields `(optimizer, mean AUC)`, those not known yet."""
    movielens = read_movielens(path)
    for name, make in MAKE.items():
        for seed in range(len(dict(known).get(name, ())), seeds):
            auc = mean_auc(movielens, make(RATES[name]), seed)
            print(f"{name} seed {seed}: {auc:.4f}", flush=True)
            yield name, auc


def write(document, out):
    """Keeps what there is."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main(*, sizes=SIZES, steps=30, warmup=5, data=None, seeds=3, out=RESULT):
    """Measures, prints and writes; returns the document."""
    rows = {}
    for size in sizes:
        rows[str(size)] = measure(size, steps=steps, warmup=warmup)
        keras.utils.clear_session()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows[str(size)]["peak_mebibytes"] = peak
    document = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    document |= {"date": time.strftime("%Y-%m-%d", time.gmtime()), "versions": training.versions()}
    if rows:
        document["milliseconds"] = rows
    aucs = document.setdefault("auc", {})
    write(document, out)
    for name, auc in accuracy(data, seeds, aucs) if data is not None else ():
        aucs.setdefault(name, []).append(auc)
        write(document, out)
    rows = document["milliseconds"]
    table = Table(title="Milliseconds of a step (ratio to the limit)")
    for name in ("rows", "limit", *MAKE, "training step", "peak memory, MiB"):
        table.add_column(name, justify="right")
    for size, found in rows.items():
        texts = [f"{found[n]:.1f} ({found[n] / found['limit']:.2f})" if n in found else "" for n in MAKE]
        more = (f"{found['training_step']:.1f}", f"{found['peak_mebibytes']:,.0f}")
        table.add_row(f"{int(size):,}", f"{found['limit']:.1f}", *texts, *more)
    Console().print(table)
    for name, aucs in document.get("auc", {}).items():
        Console().print(f"{name}: mean AUC {np.mean(aucs):.4f}, deviation {np.std(aucs, ddof=1):.4f}", highlight=False)
    return document


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="rows of the tables")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--data", type=Path, default=None, help="MovieLens-1M's archive, to compare AUC too")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    sizes = tuple(int(size) for size in arguments.sizes.split(",") if size)
    main(sizes=sizes, steps=arguments.steps, data=arguments.data, seeds=arguments.seeds)

"""From Parquet to ready batches: rows a second, against reading alone and against `numpy.take`.

    python benchmarks/inputs.py

Through `tfmtr.inputs.batches` as training reads it, shuffled, in batches of 8,192:

* `ids`: seven id features with MovieLens-1M's numbers of values, as text, and two labels. Beside it the rate of reading
  the same columns with PyArrow and doing nothing with them. Goal: 1.5 million rows a second.
* `vectors`: vectors of 512 (users) and 800 (titles) floats, gathered from memory-mapped stores, one label. Beside it
  the rate of `numpy.take` of the same rows of the same stores into arrays that are there. Goal: 60 % of it.
* `step`: the two-tower model of `training.py` with 4 groups trains on the latter, from the files and, beside it, from
  one batch in memory. Goal: it waits for its batches less than 2 % of the time.
* `PLE`, `MMoE`, `shared bottom`: ranking models of the ids with two tasks (embeddings of 16, experts 256-128, PLE's of
  256 in two levels, towers of 64), likewise. Goal: 0.95 of the rate from memory.

Memory is the process's own (RssAnon) in epochs over a quarter of the rows and over all: it must not grow with the rows.
Prints the table and writes `benchmarks/results/inputs.json`. Linux only.
"""

import argparse
import functools
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import limits
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
import training_peers
from rich.console import Console
from rich.table import Table

from tfmtr import inputs, training
from tfmtr.datasets.engines._engine import ROW_GROUP
from tfmtr.documents import write_json
from tfmtr.models import ranking, two_tower
from tfmtr.schema import Feature, Scenario, Schema, Task

RESULT = Path("benchmarks/results/inputs.json")
BATCH, PARTS = 8192, 4
GOALS = {"ids": "1,500,000 rows/s", "vectors": "ratio 0.60", "step": "ratio 0.98"}
GOALS |= dict.fromkeys(("PLE", "MMoE", "shared bottom"), "ratio 0.95")


def write_parts(folder, name, rows, make):
    """Writes `rows` rows in `PARTS` Parquet files as `tfmtr prepare` does; `make(rows)` gives a table."""
    files = [folder / f"{name}-{part}.parquet" for part in range(PARTS)]
    for file in files:
        pq.write_table(make(rows // PARTS), file, row_group_size=ROW_GROUP, compression="zstd")
    return files


def id_examples(folder, rows):
    """Files and schema of the id features."""
    rng = np.random.default_rng(0)
    schema = training_peers.id_schema()

    def make(count):
        columns = {}
        for feature in schema.features:
            values = rng.integers(len(feature.vocabulary), size=count, dtype="int32")
            columns[feature.name] = pa.DictionaryArray.from_arrays(values, pa.array(feature.vocabulary)).cast("string")
        labels = {task.column: rng.integers(0, 2, count).astype("float32") for task in schema.tasks}
        return pa.table(columns | labels)

    return SimpleNamespace(path=folder, schema=schema), write_parts(folder, "ids", rows, make)


def vector_examples(folder, rows, users, titles):
    """Files and schema of the wide vectors, and their stores."""
    rng = np.random.default_rng(0)
    counts, widths = {"user": users, "title": titles}, {"user": training_peers.USER, "title": training_peers.TITLE}
    for role in counts:
        np.save(folder / f"{role}.npy", rng.random((counts[role], widths[role]), dtype="float32"))
    features = [Feature(f"{role}_vector", role, "vector", width=widths[role]) for role in counts]
    territories = [f"t{i}" for i in range(200)]
    scenario = Scenario(["territory"], {(t,): f"group_{i % 4}" for i, t in enumerate(territories)})

    def make(count):
        homes = pa.DictionaryArray.from_arrays(rng.integers(200, size=count, dtype="int32"), pa.array(territories))
        columns = {f"{role}_row": rng.integers(counts[role], size=count) for role in counts}
        return pa.table({**columns, "territory": homes.cast("string"), "click": rng.random(count, dtype="float32")})

    @functools.cache
    def vectors(role):
        return SimpleNamespace(vectors=np.load(folder / f"{role}.npy", mmap_mode="r"))

    data = SimpleNamespace(path=folder, schema=Schema(features, [Task("click")], scenario), vectors=vectors)
    return data, write_parts(folder, "vectors", rows, make)


def anonymous_mebibytes():
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def epoch(data, files):
    """Rows a second and the peak of the memory in one shuffled epoch."""
    rows, peak, started = 0, 0.0, time.perf_counter()
    for x, _ in inputs.batches(data, files, batch_size=BATCH, seed=0):
        rows += len(next(iter(x.values())))
        peak = max(peak, anonymous_mebibytes()) if rows % (8 * BATCH) < BATCH else peak
    return rows / (time.perf_counter() - started), peak


def reading(files):
    """Rows a second of PyArrow reading the files."""
    started = time.perf_counter()
    rows = sum(len(table) for table in inputs.read_tables(files, rows=BATCH))
    return rows / (time.perf_counter() - started)


def taking(data, files):
    """Rows a second of `numpy.take` alone, both stores, into arrays that are there."""
    stores = {role: data.vectors(role).vectors for role in ("user", "title")}
    rows = min(32, pq.read_metadata(files[0]).num_rows * PARTS // BATCH) * BATCH
    table = next(inputs.read_tables(files, rows=rows))
    places = {role: table[f"{role}_row"].to_numpy() for role in stores}
    taken = {role: np.empty((BATCH, store.shape[1]), "float32") for role, store in stores.items()}
    for store in stores.values():
        store.sum()  # into the page cache
    started = time.perf_counter()
    for start in range(0, rows, BATCH):
        for role, store in stores.items():
            np.take(store, places[role][start : start + BATCH], axis=0, out=taken[role], mode="clip")
    return rows / (time.perf_counter() - started)


def stepping(model, data, files, turns):
    """Rows a second of training from files and from memory, in turn."""
    model.compile(keras.optimizers.Adam(1e-3))
    batches = inputs.batches(data, files, batch_size=BATCH, seed=0)
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    memory = inputs.without_autotune(tf.data.Dataset.from_tensors(next(iter(batches))).repeat(len(batches)))
    model.fit(memory.take(2), shuffle=False, verbose=0)

    def rate(source):
        started = time.perf_counter()
        model.fit(source, shuffle=False, verbose=0)
        return rows / (time.perf_counter() - started)

    rates = [(rate(batches), rate(memory)) for _ in range(turns)]
    with_files, without = (float(np.median(column)) for column in zip(*rates, strict=True))
    return {"rows_per_second": with_files, "alone": without, "ratio": with_files / without}


def ranking_shares(units):
    """Sharing files of ranking models, half as wide as the two towers."""
    half, quarter, towers = units // 2, units // 4, (max(1, units // 8),)
    return {
        "PLE": ("ple", {"units": (half, half), "tower_units": towers}),
        "MMoE": ("mmoe", {"units": (half, quarter), "tower_units": towers}),
        "shared bottom": ("shared_bottom", {"units": (half, quarter), "tower_units": towers}),
    }


def measure(data, files, alone, turns):
    """Figures of one kind; epochs and what they are compared with take turns, and the best of each counts."""
    epoch(data, files[:1])
    rates, others = [], []
    _, few = epoch(data, files[:1])
    for _ in range(turns):
        others.append(alone())
        rate, many = epoch(data, files)
        rates.append(rate)
    return {
        "rows_per_second": max(rates),
        "alone": max(others),
        "ratio": max(rates) / max(others),
        "mebibytes": [few, many],
    }


def main(rows, wide_rows, users, titles, turns, out, units=training_peers.UNITS):
    """Measures, prints and writes."""
    with tempfile.TemporaryDirectory() as folder:
        data, files = id_examples(Path(folder), rows)
        cells = {"ids": measure(data, files, lambda: reading(files), turns)}
        for name, share in ranking_shares(units).items():
            keras.utils.set_random_seed(0)
            cells[name] = stepping(ranking(data.schema, share=share), data, files[:1], turns)
        data, files = vector_examples(Path(folder), wide_rows, users, titles)
        cells["vectors"] = measure(data, files, lambda: taking(data, files), turns)
        keras.utils.set_random_seed(0)
        model = two_tower(data.schema, share="territory_branches", units=(units, units), unknown_rate=0.0)
        cells["step"] = stepping(model, data, files[:1], turns)
    table = Table("examples", title="Parquet to batches")
    for column in ("rows/s", "alone, rows/s", "ratio", "goal", "MiB at 1/4 of the rows and at all"):
        table.add_column(column, justify="right")
    for name, cell in cells.items():
        table.add_row(
            name, f"{cell['rows_per_second']:,.0f}", f"{cell['alone']:,.0f}", f"{cell['ratio']:.2f}", GOALS[name],
            " and ".join(f"{value:,.0f}" for value in cell.get("mebibytes", ())),
        )  # fmt: skip
    Console(width=140).print(table)
    sizes = {"rows": rows, "wide_rows": wide_rows, "users": users, "titles": titles}
    facts = {"processor": limits.processor(), "versions": training.versions()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"cells": cells, **sizes, **facts, "date": time.strftime("%Y-%m-%d", time.gmtime())})
    return cells


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000, help="of id features")
    parser.add_argument("--wide-rows", type=int, default=1_000_000, help="of wide vectors")
    parser.add_argument("--users", type=int, default=400_000)
    parser.add_argument("--titles", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    main(**vars(arguments))

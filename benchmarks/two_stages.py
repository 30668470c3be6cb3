"""What a second stage costs: one graph of an index and a ranking model beside the index alone.

    python benchmarks/two_stages.py

Models with random weights: user and title vectors 128 wide, towers 512 and 64, 24 territories, an exact index of
10,000, 100,000 and 1,000,000 titles; the ranking model is PLE with two tasks over both vectors and a set of genres.
For one user and for eight at once: p50 and p99 of `recommend` by the index alone and after both stages with 500
candidates, of the second stage alone (500 given titles), and of the same 500 pairs as rows of raw values, as a server
of the ranking model alone is asked. Everything in process, in the session that the server runs.

Expected: the user's side once is at least 3 times as fast as rows one by one; the file and the memory of a version grow
by the titles' features. Writes `benchmarks/results/two_stages.json`.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

from tfmtr import training

RESULT = Path("benchmarks/results/two_stages.json")
SIZES, USERS, CANDIDATES, WIDTH, UNITS = (10_000, 100_000, 1_000_000), (1, 8), 500, 128, (512, 64)
GENRES = tuple(f"g{i:02}" for i in range(20))
TERRITORIES = tuple(f"t{i:02}" for i in range(24))
GOAL = 3.0  # of the user's side once, against rows


def make_version(folder, titles, *, width=WIDTH, units=UNITS, candidates=CANDIDATES):
    """Exports both stages with random weights; returns the version's path."""
    import keras
    import tensorflow as tf

    from tfmtr import models
    from tfmtr.encoders.raw import look_up, raw_inputs
    from tfmtr.exporting import lookup_tables
    from tfmtr.private_names import saved_object, untrack_layers
    from tfmtr.retrieval.catalogue import Catalogue
    from tfmtr.retrieval.indexes.exact import ExactIndex
    from tfmtr.retrieval.recommender import Recommender
    from tfmtr.retrieval.second_stage import SecondStage, pair_graph
    from tfmtr.schema import Feature, Scenario, Schema, Task
    from tfmtr.signatures._signature import Served
    from tfmtr.signatures.rank import rank
    from tfmtr.signatures.recommend import recommend

    features = [Feature(f"{role}_vector", role, "vector", width=width) for role in ("user", "title")]
    features += [Feature("territory", "user", "id", TERRITORIES), Feature("genres", "title", "set", GENRES, width=3)]
    groups = {(name,): f"g{i % 4}" for i, name in enumerate(TERRITORIES)}
    schema = Schema(features, [Task("click"), Task("buy")], Scenario(["territory"], groups))
    towers = models.two_tower(schema, share="territory_branches", units=units)
    ranker = models.ranking(schema, share="ple")
    rng, everything = np.random.default_rng(0), np.ones(titles, bool)
    catalogue = Catalogue([f"m{i}" for i in range(titles)], dict.fromkeys(TERRITORIES, everything))
    index = ExactIndex(catalogue, rng.standard_normal((titles, units[-1]), "float32"))
    graph, raw = pair_graph(ranker, schema)
    arrays = {
        "title_vector": rng.standard_normal((titles, width), "float32"),
        "genres": rng.integers(0, len(GENRES) + 2, (titles, 3)).astype("int32"),
    }
    second = SecondStage(graph, raw, tuple(schema.tasks), arrays, candidates=candidates)
    options = {"outputs": towers.head.outputs, "biases": towers.biases}
    alone = Recommender(index, names=towers.predictor.output, **options)
    both = Recommender(index, names=second.names, second=second, **options)
    users, of_titles = raw_inputs(schema, "user", scenario=True), raw_inputs(schema, "title")
    encoded = look_up(users, schema, "user", scenario=True)
    parts = {
        "user": keras.Model(users, towers.user_tower(encoded)),
        "scenario": keras.Model(users, keras.ops.reshape(encoded["scenario"], (-1, 1))),
    }
    rows = {**users, **of_titles}
    score = keras.Model(rows, ranker.predictor({**encoded, **look_up(of_titles, schema, "title")}))
    served = Served(schema, "benchmark", users, of_titles)
    archive = keras.export.ExportArchive()
    layers = (*parts.values(), score, alone, both)
    for part in layers:
        archive.track(part)
    saved_object(archive).tables = lookup_tables(layers)
    untrack_layers(archive)
    for name, signature in {
        "first": recommend(served, recommender=alone, **parts),
        "both": recommend(served, recommender=both, **parts),
        "second": rank(served, user=parts["user"], recommender=both, ranker=second),
    }.items():
        archive.add_endpoint(name, signature.function, [dict(signature.inputs)])
    specs = {name: tf.TensorSpec(value.shape, value.dtype, name=name) for name, value in rows.items()}
    archive.add_endpoint("rows", lambda raw: score(raw), [specs])
    archive.write_out(str(folder / "1"), verbose=False)
    return folder / "1"


def arrays_of(signature, users, titles, *, width=WIDTH, candidates=CANDIDATES):
    """What a signature is asked for some users."""
    rng = np.random.default_rng(1)
    count = users * candidates if signature == "rows" else users
    given = {"user_vector": rng.standard_normal((users, width), "float32")}
    given["territory"] = np.asarray([TERRITORIES[i % len(TERRITORIES)] for i in range(users)], object)
    if signature == "rows":
        given = {name: np.repeat(value, candidates, axis=0) for name, value in given.items()}
        given["title_vector"] = rng.standard_normal((count, width), "float32")
        given["genres"] = rng.choice(np.asarray(GENRES, object), (count, 3))
        return given
    given |= {"combine_tasks": np.asarray([""], object)}
    given |= {f"weight_{task}": np.ones(1, "float32") for task in ("click", "buy")}
    if signature == "second":
        places = rng.integers(0, titles, (users, candidates))
        return given | {"rank_titles": np.asarray([[f"m{i}" for i in row] for row in places], object)}
    nothing = np.full((1, 1), "", object)
    given |= {"request_territory": given["territory"], "seen": np.full((users, 1), "", object)}
    given |= {"allow": nothing, "where": nothing, "diversity": np.zeros(1, "float32"), "k": np.full(users, 20, "int32")}
    given |= {"rank_by": np.asarray([""], object)}
    if signature == "both":
        return given | {"first_stage_weight": np.ones(1, "float32")}
    return {name: value for name, value in given.items() if name != "combine_tasks"}


def measure(version, titles, seconds, *, users=USERS, width=WIDTH, candidates=CANDIDATES):
    """`{"first, 1 user": {"p50_ms", "p99_ms"}}` of a version."""
    from tfmtr.serving.predict import choose_outputs, predict
    from tfmtr.serving.session import SavedModelSession

    session, cells = SavedModelSession(version), {}
    for name in ("first", "both", "second", "rows"):
        for number in users:
            signature, latencies = session.signatures[name], []
            given, outputs = arrays_of(name, number, titles, width=width, candidates=candidates), []
            outputs = choose_outputs(signature)
            for _ in range(3):
                predict(session, signature, given, outputs)
            end = time.monotonic() + seconds
            while time.monotonic() < end or len(latencies) < 5:
                started = time.perf_counter()
                predict(session, signature, given, outputs)
                latencies.append(1000 * (time.perf_counter() - started))
            cells[f"{name}, {number} at once"] = {
                "p50_ms": float(np.percentile(latencies, 50)),
                "p99_ms": float(np.percentile(latencies, 99)),
                "calls": len(latencies),
            }
    session.close()
    return cells


def main(sizes=SIZES, seconds=5.0, out=RESULT, *, users=USERS, width=WIDTH, units=UNITS, candidates=CANDIDATES):
    """Measures each size, prints a table, and writes the document."""
    document = {
        "candidates": candidates, "width": width, "units": list(units), "cells": {},
        "versions": training.versions(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip
    table = Table("titles", "users at once", "index, ms", "both, ms", "second, ms", "rows, ms", "rows / second")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            version = make_version(Path(folder), size, width=width, units=units, candidates=candidates)
            megabytes = sum(file.stat().st_size for file in version.rglob("*") if file.is_file()) / 1e6
            cells = measure(version, size, seconds, users=users, width=width, candidates=candidates)
        for number in users:
            first, both, second, rows = (cells[f"{n}, {number} at once"] for n in ("first", "both", "second", "rows"))
            second["rows_ratio"] = rows["p50_ms"] / second["p50_ms"]
            both["first_ratio"] = both["p50_ms"] / first["p50_ms"]
            texts = [f"{cell['p50_ms']:.1f} ({cell['p99_ms']:.1f})" for cell in (first, both, second, rows)]
            table.add_row(f"{size:,}", str(number), *texts, f"{second['rows_ratio']:.1f}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        document["cells"][f"{size:,} titles"] = {"megabytes": megabytes, "peak_megabytes": peak, **cells}
        Path(out).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    Console().print(table)
    print(f"p50 (p99); goal: rows / second at least {GOAL:g}")
    return document


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="Of each measurement.")
    arguments = parser.parse_args()
    main(seconds=arguments.seconds)

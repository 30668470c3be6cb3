"""What the list model costs where titles are served: latency, size and memory, beside the towers alone.

    python benchmarks/lists.py                       # 10,000 and a million titles, 200 territories
    python benchmarks/lists.py --titles 10000

A two-tower model (user and title vectors 64 wide, towers 512 and 128) with an exact index, once as it is and once with
a list model of random factors of the widths that a fit makes. One user is asked for at a time, with 50 titles of the
past, in turns by both exports in one process. Prints p50 and p99 milliseconds, their ratios, megabytes on disk, size
of the graph alone, and the peak memory of a process that makes and saves the export; writes
`benchmarks/results/lists.json`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

RESULT = Path("benchmarks/results/lists.json")
TERRITORIES, PAST, UNITS, WIDTH = 200, 50, (512, 128), 64
GOAL = 1.5


def scorer_of(titles, territories):
    """A `Scorer` of random factors, as wide as a fit makes them."""
    from tfmtr.listwise.model import MOST_LOCAL, WIDTH, Scorer

    rng, own = np.random.default_rng(0), WIDTH
    width = own + 2 + MOST_LOCAL
    random = lambda *shape: rng.standard_normal(shape, "float32")  # noqa: E731
    homes = [f"t{i}" for i in range(territories)]
    return Scorer(
        random(titles, own), random(titles, width), random(territories, width), random(width), tuple(homes), 28.0, 0.1
    )


def export(folder, titles, territories, *, listwise, units=UNITS):
    """Exports a model with random weights."""
    import keras
    import tensorflow as tf

    from tfmtr import models
    from tfmtr.encoders.raw import look_up, lookup, raw_inputs
    from tfmtr.listwise.layer import ListQuery
    from tfmtr.retrieval.catalogue import Catalogue
    from tfmtr.retrieval.indexes.exact import ExactIndex
    from tfmtr.retrieval.recommender import HISTORY, OPTIONS, RANK_BY, REQUEST, Recommender
    from tfmtr.schema import Feature, Scenario, Schema, Task

    groups = {(f"t{i}",): f"g{i % 4}" for i in range(territories)}
    features = [Feature(f"{role}_vector", role, "vector", width=WIDTH) for role in ("user", "title")]
    schema = Schema(features, [Task("click")], Scenario(["territory"], groups))
    model = models.two_tower(schema, units=units)
    users = raw_inputs(schema, "user", scenario=True)
    user = keras.Model(users, model.user_tower(look_up(users, schema, "user", scenario=True)))
    vectors = np.random.default_rng(1).standard_normal((titles, units[-1]), "float32")
    names, everything = [f"m{i}" for i in range(titles)], np.ones(titles, bool)
    order = None
    if listwise:
        scorer = scorer_of(titles, territories)
        order, vectors = ListQuery(scorer, lookup(names)), scorer.join_titles(vectors)
    catalogue = Catalogue(names, {name: everything for (name,) in groups})
    outputs = lambda logits: {name: tf.sigmoid(value) for name, value in logits.items()}  # noqa: E731
    recommender = Recommender(
        ExactIndex(catalogue, vectors), outputs=outputs, biases={"click": 0.0}, names=["click"], order=order
    )
    options = {**OPTIONS, **RANK_BY, **(HISTORY if listwise else {})}
    request = REQUEST | {name: spec for name, (spec, _) in options.items()}
    request = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in request.items()}
    specs = {name: tf.TensorSpec(value.shape, value.dtype, name=name) for name, value in users.items()}
    archive = keras.export.ExportArchive()
    for part in (user, recommender):
        archive.track(part)

    def recommend(raw):
        queries = user({name: raw[name] for name in users})
        return recommender(queries["click"], raw, queries=queries)

    archive.add_endpoint("recommend", recommend, [{**specs, **request}])
    archive.write_out(str(folder), verbose=False)


def request_of(number, titles, territories, *, listwise):
    """Inputs of one user's request."""
    rng = np.random.default_rng(number)
    territory = np.asarray([f"t{number % territories}"], object)
    empty = np.full((1, 1), "", object)
    past = np.asarray([[f"m{i}" for i in rng.integers(0, titles, PAST)]], object)
    found = {
        "user_vector": rng.standard_normal((1, WIDTH), "float32"),
        "territory": territory,
        "request_territory": territory,
        "seen": past,
        "allow": empty,
        "where": empty,
        "rank_by": np.asarray([""], object),
        "k": np.full(1, 20, "int32"),
        "diversity": np.zeros(1, "float32"),
    }
    if listwise:
        found |= {"history": past, "history_ages": np.arange(PAST, 0, -1, dtype="float32")[None]}
    return found


def latencies(folders, titles, territories, calls):
    """Seconds of each call, by export, asked in turns."""
    from tfmtr.serving.predict import choose_outputs, predict
    from tfmtr.serving.session import SavedModelSession

    sessions = {name: SavedModelSession(folder) for name, folder in folders.items()}
    found = {name: [] for name in folders}
    for number in range(calls + 10):
        for name, session in sessions.items():
            signature = session.signatures["recommend"]
            inputs = request_of(number, titles, territories, listwise=name == "list model")
            started = time.perf_counter()
            predict(session, signature, inputs, choose_outputs(signature))
            if number >= 10:
                found[name].append(time.perf_counter() - started)
    for session in sessions.values():
        session.close()
    return found


def measure(titles, territories, calls, units):
    """The figures of one number of titles."""
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name.replace(" ", "-") / "1" for name in ("towers", "list model")}
        for name, folder in folders.items():
            command = [sys.executable, __file__, "--export", str(folder), "--titles", str(titles)]
            command += ["--territories", str(territories), "--units", ",".join(map(str, units))]
            command += ["--listwise"] if name == "list model" else []
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = {"peak_megabytes": int(done.stdout.split()[-1])}
        for name, values in latencies(folders, titles, territories, calls).items():
            p50, p99 = np.percentile(values, [50, 99]) * 1000
            files = [file for file in folders[name].rglob("*") if file.is_file()]
            found[name] |= {
                "p50_ms": round(float(p50), 2),
                "p99_ms": round(float(p99), 2),
                "megabytes": round(sum(file.stat().st_size for file in files) / 2**20),
                "graph_megabytes": round((folders[name] / "saved_model.pb").stat().st_size / 2**20, 1),
            }
    for key in ("p50_ms", "p99_ms"):
        found["list model"][f"{key}_ratio"] = round(found["list model"][key] / found["towers"][key], 3)
    return found


def main(sizes=(10_000, 1_000_000), territories=TERRITORIES, calls=300, units=UNITS, out=RESULT):
    """Measures all sizes, prints them and writes `out`."""
    from tfmtr.run import versions

    document = {"territories": territories, "past": PAST, "calls": calls, "goal": GOAL, "cells": {}}
    table = Table("titles", "export", "p50, ms", "p99, ms", "ratios", "MB", "graph, MB", "peak of export, MB")
    for titles in sizes:
        document["cells"][str(titles)] = found = measure(titles, territories, calls, units)
        for name, row in found.items():
            ratios = f"{row['p50_ms_ratio']}, {row['p99_ms_ratio']}" if "p50_ms_ratio" in row else ""
            table.add_row(
                f"{titles:,}", name, *(str(row[key]) for key in ("p50_ms", "p99_ms")), ratios,
                *(f"{row[key]:,}" for key in ("megabytes", "graph_megabytes", "peak_megabytes")),
            )  # fmt: skip
    document |= {"date": time.strftime("%Y-%m-%d"), "versions": versions()}
    Console().print(table)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, nargs="*", default=[10_000, 1_000_000], help="Numbers of titles.")
    parser.add_argument("--territories", type=int, default=TERRITORIES, help="Number of territories.")
    parser.add_argument("--calls", type=int, default=300, help="Requests of each export.")
    parser.add_argument("--out", type=Path, default=RESULT, help="File of the figures.")
    parser.add_argument("--units", default=",".join(map(str, UNITS)), help=argparse.SUPPRESS)
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--listwise", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    widths = tuple(map(int, arguments.units.split(",")))
    if arguments.export:
        export(
            arguments.export,
            arguments.titles[0],
            arguments.territories,
            listwise=arguments.listwise,
            units=widths,
        )
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    else:
        main(arguments.titles, arguments.territories, arguments.calls, widths, arguments.out)

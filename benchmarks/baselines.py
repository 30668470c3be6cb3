"""Time and memory of the baselines at 1 and at 10 million events.

    python benchmarks/baselines.py

A log of 10 thousand titles, of whose events some titles have much more than others (Zipf, exponent 1), and of users of
whom some have much more than others, in 50 territories, over 180 days: 160 thousand users with 1 million events and 1.6
million users with 10 million. Each baseline, with the middle one of its tries, is fitted and then scores all titles for
10 thousand users, 256 at a time, in a process of its own. Beside it the process's peak memory, the log's arrays and
matrix included, which the row `log` has alone. EASE stands twice: as it is, and with as many titles as it may have.
Prints a table and writes `benchmarks/results/baselines.json`. Linux only.
"""

import argparse
import importlib.metadata
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

from tfmtr.documents import write_json
from tfmtr.evaluation.baselines.history import History
from tfmtr.evaluation.baselines.table import BASELINES
from tfmtr.evaluation.baselines.tried_options import fit, tries

RESULT = Path("benchmarks/results/baselines.json")
SIZES = {1_000_000: 160_000, 10_000_000: 1_600_000}  # events: users
TITLES, LARGEST, TERRITORIES, DAYS = 10_000, 13_600, 50, 180
SCORED, AT_ONCE = 10_000, 256
LOG, LARGE = "log", f"ease, {LARGEST:,} titles"


def log(events, users, titles, seed=0):
    """A `History`; titles are drawn with weights of 1 / rank, users log-normally."""
    rng = np.random.default_rng(seed)
    weights = np.cumsum(1 / np.arange(1, titles + 1))
    active = np.cumsum(rng.lognormal(sigma=1.0, size=users))
    drawn = np.searchsorted(weights, rng.random(events) * weights[-1])
    of_users = np.searchsorted(active, rng.random(events) * active[-1])
    age = rng.uniform(1e-3, DAYS, events)
    return History(of_users, drawn, age, rng.integers(TERRITORIES, size=users), num_titles=titles)


def measure(name, events, users, scored=SCORED):
    """Seconds and peak memory of one baseline in this process."""
    history = log(events, users, LARGEST if name == LARGE else TITLES)
    history.matrix  # noqa: B018 (cached: all baselines have it)
    cell = {}
    if name != LOG:
        name = name.partition(",")[0]
        options = tries(name, 7)[len(tries(name, 7)) // 2]
        started = time.perf_counter()
        score = fit(name, options, history)
        fitted = time.perf_counter()
        asked = np.random.default_rng(1).integers(users, size=scored)
        for begin in range(0, scored, AT_ONCE):
            score(asked[begin : begin + AT_ONCE])
        cell = {"options": options, "fit": fitted - started, "score": time.perf_counter() - fitted}
    return {**cell, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_process(*arguments):
    """What `measure` returns in a process of its own."""
    command = [sys.executable, Path(__file__), "--cell", json.dumps(arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main(*, sizes=SIZES, names=(LOG, *BASELINES, LARGE), scored=SCORED, out=RESULT):
    """Measures, prints and writes; returns the document."""
    document = {
        "command": "python benchmarks/baselines.py", "titles": TITLES, "territories": TERRITORIES,
        "users": {str(events): users for events, users in sizes.items()}, "scored": scored, "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "implicit")}, "cells": {},
    }  # fmt: skip
    for events, users in sizes.items():
        table = Table("baseline", "fit, s", f"score {scored:,} users, s", "peak, MB", title=f"{events:,} events")
        for name in names:
            cell = document["cells"][f"{name}, {events:,} events"] = in_process(name, events, users, scored)
            table.add_row(name, *(f"{cell[key]:,.1f}" if key in cell else "" for key in ("fit", "score", "megabytes")))
            write_json(out, document)
        Console().print(table)
    return document


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", type=json.loads, help="measure one cell, as JSON: baseline, events, users, scored")
    cell = parser.parse_args().cell
    print(json.dumps(measure(*cell))) if cell else main()

"""Training throughput of every sharing system relative to shared bottom, as ranking models.

    python benchmarks/sharing.py

The sizes are those of the M3oE study on MovieLens-1M: seven id features with embeddings of width 16, three scenarios
(age domains), two tasks, batches of 40,960 rows, layer normalisation where it is an option; the rows are random. All
models are built first, then each of them takes one step in turn, so that a machine that slows down slows all of them
down. Prints parameters, milliseconds of a step and examples per second, the ratio to shared bottom's, and writes
`benchmarks/results/sharing.json`. `--batch-size` and `--steps` make it shorter.
"""

import argparse
import functools
import inspect
import json
import os
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tfmtr import components
from tfmtr.models import ranking
from tfmtr.schema import Feature, Scenario, Schema, Task

BASELINE = "shared_bottom"
FEATURES = {
    "user": ("user", 6040),
    "movie": ("title", 3883),
    "gender": ("user", 2),
    "occupation": ("user", 21),
    "zip": ("user", 10),
    "genre": ("title", 18),
    "domain": ("context", 3),
}


def schema():
    """Features, tasks and scenarios of the study, with numbers for values."""
    features = [Feature(name, role, "id", map(str, range(count))) for name, (role, count) in FEATURES.items()]
    domains = {(str(i),): f"domain_{i}" for i in range(FEATURES["domain"][1])}
    return Schema(features, [Task("click"), Task("like")], Scenario(["domain"], domains))


def batch(rows, seed=0):
    """Random inputs and labels; index 0, the unknown value, does not come up."""
    rng = np.random.default_rng(seed)
    x = {name: rng.integers(1, count + 1, rows, dtype="int32") for name, (_, count) in FEATURES.items()}
    y = {task: rng.integers(0, 2, rows).astype("float32") for task in ("click", "like")}
    return {**x, "scenario": x["domain"]}, y


def normalized(name):
    """A sharing file with layer normalisation, if it has that option, as in the M3oE study."""
    share = components.find("sharing", name)
    is_option = "normalize" in inspect.signature(share).parameters
    return functools.partial(share, normalize=True) if is_option else share


def measure(names, *, batch_size, steps, warmup):
    """Takes training steps with all systems in turn; returns `{name: (parameters, seconds of each timed step)}`."""
    x, y = batch(batch_size)
    keras.utils.set_random_seed(0)  # once: it clears TensorFlow's kernel caches
    models = {}
    for name in names:
        models[name] = ranking(schema(), share=normalized(name), embedding_dim=16)
        models[name].compile(keras.optimizers.Adam(1e-2))
    seconds = {name: [] for name in names}
    for _ in track(range(warmup + steps), description="measuring"):
        for name, model in models.items():
            started = time.perf_counter()
            model.train_on_batch(x, y)  # returns the loss as a number, so the step is over
            seconds[name].append(time.perf_counter() - started)
    return {name: (models[name].count_params(), seconds[name][warmup:]) for name in names}


def main(names, batch_size, steps, warmup, out):
    """Measures the systems, prints the table and writes the result."""
    measured = measure(names, batch_size=batch_size, steps=steps, warmup=warmup)
    baseline = np.mean(measured[BASELINE][1])
    systems = {
        name: {
            "parameters": parameters,
            "ms_per_step": round(1e3 * float(np.mean(seconds)), 2),
            "ms_std": round(1e3 * float(np.std(seconds)), 2),
            "examples_per_second": round(batch_size / float(np.mean(seconds))),
            "ratio": round(float(baseline / np.mean(seconds)), 3),
        }
        for name, (parameters, seconds) in measured.items()
    }
    table = Table("system", title=f"Training step of {batch_size:,} rows; ratio of examples/s to {BASELINE}")
    for title in ("parameters", "ms a step", "± std", "examples/s", "ratio"):
        table.add_column(title, justify="right")
    table.columns[0].no_wrap = True
    for name, cell in sorted(systems.items(), key=lambda item: -item[1]["ratio"]):
        table.add_row(
            name,
            f"{cell['parameters']:,}",
            f"{cell['ms_per_step']:.1f}",
            f"{cell['ms_std']:.1f}",
            f"{cell['examples_per_second']:,}",
            f"{cell['ratio']:.2f}",
        )
    Console().print(table)
    run = {"batch_size": batch_size, "steps": steps, "cores": os.cpu_count(), "keras": keras.__version__}
    run |= {"backend": keras.backend.backend(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**run, "systems": systems}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=40_960, help="rows of a step")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each system")
    parser.add_argument("--warmup", type=int, default=3, help="untimed steps before; the first one traces the graph")
    parser.add_argument("--share", action="append", choices=components.names("sharing"), help="only these systems")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sharing.json")
    arguments = parser.parse_args()
    names = sorted({BASELINE, *(arguments.share or components.names("sharing"))})
    main(names, arguments.batch_size, arguments.steps, arguments.warmup, arguments.out)

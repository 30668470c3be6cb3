"""How a training step grows with tasks, experts and scenarios.

    python benchmarks/scaling.py

Ranking models of the sizes and with the layer normalisation of `sharing.py`, batches of 8,192, SparseAdam: MMoE with
more tasks (4 experts) and with more experts (2 tasks), STAR with more scenarios. All models of an axis are built first,
then each takes one step in turn. Prints milliseconds of a step, the line through them and what one more costs, relative
to the first size, and writes `benchmarks/results/scaling.json`. `docs/scaling.md` puts the slopes together with those
of other benchmarks.
"""

import argparse
import functools
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import limits
import numpy as np
from rich.console import Console
from rich.table import Table

from tfmtr import components, training
from tfmtr.documents import write_json
from tfmtr.models import ranking
from tfmtr.optimizers.sparse_adam import SparseAdam
from tfmtr.schema import Feature, Scenario, Schema, Task

RESULT = Path("benchmarks/results/scaling.json")
AXES = {"tasks": (1, 2, 4, 8), "experts": (2, 4, 8, 16), "scenarios": (2, 8, 32, 128)}
FEATURES = {"user": ("user", 6040), "movie": ("title", 3883), "genre": ("title", 18)}


def case(axis, size, rows):
    """A compiled model and a batch of random rows, of one size on one axis."""
    sizes = {"tasks": 2, "experts": 4, "scenarios": 3} | {axis: size}
    domains = [str(i) for i in range(sizes["scenarios"])]
    features = [Feature(name, role, "id", [str(i) for i in range(count)]) for name, (role, count) in FEATURES.items()]
    schema = Schema(
        [*features, Feature("domain", "context", "id", domains)],
        [Task(f"task_{i}") for i in range(sizes["tasks"])],
        Scenario(["domain"], {(domain,): f"domain_{domain}" for domain in domains}),
    )
    share = components.find("sharing", "star" if axis == "scenarios" else "mmoe")
    if axis != "scenarios":
        share = functools.partial(share, num_experts=sizes["experts"], normalize=True)
    model = ranking(schema, share=share, embedding_dim=16)
    model.compile(SparseAdam(1e-2))
    rng = np.random.default_rng(0)
    x = {f.name: rng.integers(1, len(f.vocabulary) + 1, rows, dtype="int32") for f in schema.features}
    y = {task.column: rng.integers(0, 2, rows).astype("float32") for task in schema.tasks}
    return model, {**x, "scenario": x["domain"]}, y


def measure(axis, sizes, rows, steps, warmup):
    """Median milliseconds of a step for each size."""
    keras.utils.set_random_seed(0)
    cases = [case(axis, size, rows) for size in sizes]
    milliseconds = [[] for _ in sizes]
    for _ in range(warmup + steps):
        for (model, x, y), times in zip(cases, milliseconds, strict=True):
            started = time.perf_counter()
            model.train_on_batch(x, y)
            times.append(1e3 * (time.perf_counter() - started))
    return [float(np.median(times[warmup:])) for times in milliseconds]


def main(axes, rows, steps, warmup, out):
    """Measures the axes, prints the table and writes the result."""
    table, found = Table("axis", "sizes", "ms a step", title=f"A training step of {rows:,} rows"), {}
    for column in ("line, ms", "one more, of the first size's step"):
        table.add_column(column, justify="right")
    for axis, sizes in axes.items():
        times = measure(axis, sizes, rows, steps, warmup)
        slope, start = np.polyfit(sizes, times, 1)
        found[axis] = {
            "sizes": list(sizes), "milliseconds": times, "slope": float(slope), "start": float(start),
            "one_more": float(slope / times[0]),
        }  # fmt: skip
        table.add_row(
            axis, ", ".join(map(str, sizes)), ", ".join(f"{t:.1f}" for t in times), f"{start:.1f} + {slope:.2f} n",
            f"{slope / times[0]:.1%}",
        )  # fmt: skip
    Console(width=120).print(table)
    facts = {"rows": rows, "processor": limits.processor(), "versions": training.versions()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"axes": found, **facts, "date": time.strftime("%Y-%m-%d", time.gmtime())})
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8192, help="of a batch")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    main(AXES, arguments.rows, arguments.steps, arguments.warmup, arguments.out)

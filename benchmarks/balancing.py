"""What every balancer costs: the time of a training step relative to `equal`, side by side in one run.

    python benchmarks/balancing.py

The model is MMoE with the sizes of the M3oE study on MovieLens-1M (see `benchmarks/sharing.py`) and two tasks; the rows
are random, batches of 8,192. All models are built first, then each takes one step in turn. Prints the median
milliseconds of a step, the ratio to `equal`, and how often a step calls the model, and writes
`benchmarks/results/balancing.json`. `bilevel` needs M3oE and is held against `equal` with M3oE; `self_auxiliary` is a
head with the sum of its losses.
"""

import argparse
import functools
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import sharing
import tensorflow as tf
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tfmtr import components, training
from tfmtr.models import ranking

RESULT = Path("benchmarks/results/balancing.json")
OPTIONS = {"fixed_weights": {"weights": {"click": 0.5}}}


def build(name, batch):
    """A model with a balancer, the function of its step, and how often a step calls the model."""
    share, _, balance = name.partition("+")
    head, balance = (balance, "equal") if balance == "self_auxiliary" else ("parallel", balance)
    model = ranking(sharing.schema(), share=sharing.normalized(share), head=head)
    make = functools.partial(components.find("balancing", balance), **OPTIONS.get(balance, {}))
    model.compile(keras.optimizers.Adam(1e-3), balance=make)
    calls, call = [], model.call

    def counted(*arguments, **options):
        calls.append(1)
        return call(*arguments, **options)

    model.call = counted
    step = tf.function(lambda x, y: model.train_step((x, y)))
    step(*batch)
    return step, len(calls)


def names():
    """`<system>+<balancer>` of all balancers."""
    others = [name for name in components.names("balancing") if name != "bilevel"]
    return [*(f"mmoe+{name}" for name in (*others, "self_auxiliary")), "m3oe+equal", "m3oe+bilevel"]


def main(*, wanted=None, batch_size=8192, steps=12, warmup=3, out=RESULT):
    """Measures, prints and writes; returns `{name: {"milliseconds", "ratio", "forward_passes"}}`."""
    console = Console()
    batch = tuple({k: tf.constant(v) for k, v in part.items()} for part in sharing.batch(batch_size))
    wanted = wanted or names()
    built = {name: build(name, batch) for name in track(wanted, description="Building", console=console)}
    seconds = {name: [] for name in wanted}
    for step in track(range(warmup + steps), description="Steps", console=console):
        for name, (function, _) in built.items():
            started = time.perf_counter()
            function(*batch)
            if step >= warmup:
                seconds[name].append(time.perf_counter() - started)
    found = {}
    for name, (_, passes) in built.items():
        median = float(np.median(seconds[name]))
        ratio = median / float(np.median(seconds[f"{name.partition('+')[0]}+equal"]))
        # Both turns of bilevel are traced; a step takes one of them.
        passes = 1 if name.endswith("+bilevel") else passes
        found[name] = {"milliseconds": 1000 * median, "ratio": ratio, "forward_passes": passes}
    document = {"batch_size": batch_size, "steps": steps, "models": found, "versions": training.versions()}
    document["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    table = Table("model", "ms a step", "relative to equal", "forward passes")
    for name, row in sorted(found.items(), key=lambda item: item[1]["ratio"]):
        table.add_row(name, f"{row['milliseconds']:.1f}", f"{row['ratio']:.2f}", str(row["forward_passes"]))
    console.print(table)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    main(batch_size=arguments.batch_size, steps=arguments.steps)

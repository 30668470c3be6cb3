"""Training on a GPU: examples a second of four models in float32 and mixed bfloat16, and the share of its matrix rate.

    pip install -e .[gpu]
    python benchmarks/gpu.py

The package's own models of `training.py` (two-tower with 4 territory branches, MMoE, PLE, M3oE), each in a process of
its own, in turns of batches through Keras `fit`. Batches are in the host's memory, so a turn pays for the way to the
device. The rates of matrix products are measured before, in the same run: at the two-tower model's shape, and at one
that is large enough for the device to show what it can. In float32 TensorFlow multiplies in TF32 where a GPU has it, in
the models as in the products.

Prints a table and writes `benchmarks/results/gpu.json`. Where TensorFlow sees no GPU it says so and ends with status 1;
`--device cpu --batch-size 64` tries the benchmark itself. Linux only.
"""

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several processes take turns on one device

import limits
import training
from rich.console import Console
from rich.table import Table

from tfmtr.documents import write_json
from tfmtr.training import versions

RESULT = Path("benchmarks/results/gpu.json")
MODELS = ("branches, 4 groups", "multi-task, mmoe", "multi-task, ple", "m3oe, float32")
DTYPES = ("float32", "bfloat16")
LARGE = 4096  # width and units of the large product


def cases(batch_size=None):
    """The models in both precisions, `training.Case`s with the package's own library only."""
    for case in training.cases():
        if case.name in MODELS:
            for dtype in DTYPES:
                yield dataclasses.replace(
                    case, name=f"{case.name.removesuffix(', float32')}, {dtype}", dtype=dtype,
                    libraries=dict([next(iter(case.libraries.items()))]), batch_size=batch_size or case.batch_size,
                )  # fmt: skip


def device_name(kind):
    """The device's name, or `None` if there is none of the kind."""
    import tensorflow as tf

    if kind == "cpu":
        tf.config.set_visible_devices([], "GPU")
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # for the models' processes
        return limits.processor()["name"]
    found = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(found[0]).get("device_name", "GPU") if found else None


def matmul_rates(rows, seconds):
    """GFLOP a second of a training step's products, by shape and precision."""
    shapes = {"two-tower": limits.SHAPES["two-tower, 512 to 512"], "large": (rows, LARGE, LARGE)}
    return {
        shape: {dtype: limits.matmul_rates(sizes, dtype, seconds)[1] for dtype in DTYPES}
        for shape, sizes in shapes.items()
    }


def main(device="gpu", batch_size=None, turns=6, batches=20, seconds=2.0, out=RESULT):
    """Measures, prints and writes; returns the document, or `None` where the device is missing."""
    name = device_name(device)
    if name is None:
        print(
            "no GPU: TensorFlow sees none on this machine, so there is nothing to measure. Install the extra `gpu` and "
            "NVIDIA's driver, or try the benchmark with `--device cpu --batch-size 64`.",
            file=sys.stderr,
        )
        return None
    rates = matmul_rates(batch_size or 8192, seconds)
    table, found = Table("model", title=f"Training on {name}"), {}
    for column in ("examples/s", "± std", "GFLOP/s", "of the large product's", "of its shape's", "first step, s"):
        table.add_column(column, justify="right")
    for case in cases(batch_size):
        (cell,) = training.measure(case, turns, batches).values()
        gflops = case.gflops(cell["examples_per_second"])
        shares = {shape: gflops / of_shape[case.dtype] for shape, of_shape in rates.items()}
        found[case.name] = {**cell, "batch_size": case.batch_size, "gflops": gflops, "of_matmul_rate": shares}
        table.add_row(
            case.name,
            f"{cell['examples_per_second']:,.0f}",
            f"{cell['deviation']:,.0f}",
            f"{gflops:,.0f}",
            f"{shares['large']:.1%}",
            f"{shares['two-tower']:.1%}",
            f"{cell['first_step_seconds']:.1f}",
        )
    Console(width=140).print(table)
    document = {
        "device": name,
        "models": found,
        "matmul_gflops": rates,
        "turns": turns,
        "batches": batches,
        "processor": limits.processor(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, document)
    return document


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--batch-size", type=int, help="of all models; by default their own")
    parser.add_argument("--turns", type=int, default=6, help="of each model; the first one warms up")
    parser.add_argument("--batches", type=int, default=20, help="of a turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring each matrix product")
    parser.add_argument("--out", type=Path, default=RESULT)
    sys.exit(1 if main(**vars(parser.parse_args())) is None else 0)

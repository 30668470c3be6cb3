"""What this machine can do: matrix products at the models' shapes, memory and disk.

    python benchmarks/limits.py

Rates of a product of a batch with a dense layer's kernel, forward and with both gradients, in float32 and bfloat16; of
reading, copying and gathering memory; of reading a file that is not in the page cache. Other benchmarks compare their
own rates with these, measured in the same run where they say so. Prints a table and writes
`benchmarks/results/limits.json`. Linux only. `--seconds` is the time of each measurement.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tfmtr import training
from tfmtr.documents import write_json

RESULT = Path("benchmarks/results/limits.json")
SHAPES = {  # (rows, width, units)
    "two-tower, 512 to 512": (8192, 512, 512),
    "two-tower, 1312 to 512": (8192, 1312, 512),
    "M3oE expert, 512 to 256": (40_960, 512, 256),
    "M3oE expert, 112 to 512": (40_960, 112, 512),
}
MEMORY = 512 * 2**20  # bytes: more than any cache
FILE = 2**30


def rate(function, amount, seconds):
    """`amount` a second of repeated calls, the best of the calls: what the machine can do when nothing else runs."""
    function()
    best, started = np.inf, time.perf_counter()
    while time.perf_counter() - started < seconds:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return amount / best


def matmul_rates(shape, dtype, seconds):
    """GFLOP a second of `x W` alone, and of `x W` with the gradients of both, as in a training step."""
    rows, width, units = shape
    rng = np.random.default_rng(0)
    x, kernel, gradient = (
        tf.cast(rng.normal(size=size).astype("float32"), dtype)
        for size in ((rows, width), (width, units), (rows, units))
    )

    @tf.function
    def forward():
        return tf.reduce_sum(tf.matmul(x, kernel)[0])

    @tf.function
    def step():
        products = (
            tf.matmul(x, kernel),
            tf.matmul(gradient, kernel, transpose_b=True),
            tf.matmul(x, gradient, transpose_a=True),
        )
        return sum(tf.cast(product[0, 0], "float32") for product in products)

    flop = 2 * rows * width * units / 1e9
    return rate(lambda: forward().numpy(), flop, seconds), rate(lambda: step().numpy(), 3 * flop, seconds)


def memory_rates(seconds):
    """GB a second of summing an array, of copying one, and of gathering random rows of 512 floats."""
    values = np.ones(MEMORY // 4, np.float32)
    target, table = np.empty_like(values), values.reshape(-1, 512)
    rows = np.random.default_rng(0).integers(len(table), size=65_536)
    taken = np.empty((len(rows), 512), np.float32)
    return {
        "read": rate(values.sum, values.nbytes / 1e9, seconds),
        "copy, read and written": rate(lambda: np.copyto(target, values), 2 * values.nbytes / 1e9, seconds),
        "gather of rows of 512 floats": rate(
            lambda: np.take(table, rows, axis=0, out=taken, mode="clip"), taken.nbytes / 1e9, seconds
        ),
    }


def disk_rate(folder):
    """GB a second of reading a file of a GiB that is not in the page cache."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        block = np.random.default_rng(0).bytes(2**24)
        for _ in range(FILE // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        started = time.perf_counter()
        while file.read(len(block)):
            pass
        return FILE / 1e9 / (time.perf_counter() - started)


def processor():
    """Name of the processor, and which of its instructions matter for matrix products."""
    lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    return {"name": facts.get("model name", "unknown"), "cores": os.cpu_count(), "instructions": flags}


def main(seconds, folder, out):
    """Measures, prints and writes."""
    table, result = Table("measured", title="Limits of this machine"), {"matmul": {}}
    table.add_column("rate", justify="right")
    for name, shape in SHAPES.items():
        for dtype in ("float32", "bfloat16"):
            forward, step = matmul_rates(shape, dtype, seconds)
            result["matmul"][f"{name}, {dtype}"] = {"rows": shape[0], "forward": forward, "step": step}
            table.add_row(f"{name}, {shape[0]:,} rows, {dtype}, forward", f"{forward:,.0f} GFLOP/s")
            table.add_row(f"{name}, {shape[0]:,} rows, {dtype}, with gradients", f"{step:,.0f} GFLOP/s")
    result["memory"] = memory_rates(seconds)
    result["disk"] = disk_rate(folder)
    for name, value in result["memory"].items():
        table.add_row(f"memory, {name}", f"{value:.1f} GB/s")
    table.add_row("disk, read", f"{result['disk']:.2f} GB/s")
    Console(width=120).print(table)
    facts = {
        "processor": processor(),
        "versions": training.versions(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {**result, **facts})
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="disk to read from")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    main(arguments.seconds, arguments.folder, arguments.out)

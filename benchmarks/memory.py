"""Peak anonymous memory of `tfmtr prepare` and `tfmtr train` at 1 and at 10 million events.

    python benchmarks/memory.py --memory-limit 4GB
    python benchmarks/memory.py --memory-limit 4GB --step counted_prepare

Runs each step as a process of its own on simulated logs (160 thousand and 1.6 million users), samples RssAnon of
the process from /proc ten times a second, and prints the peaks and their ratio; goal: at most 1.2. `counted_prepare`
has counters of titles, alone and in territories, of users, and of users with genres. Writes
`benchmarks/results/memory.json`, step by step. About 30 minutes on two cores, Linux only.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import read_json

USERS = {"1 million": 160_000, "10 million": 1_600_000}
STEPS = ("prepare", "train", "counted_prepare")
COUNTERS = ("title", "title,territory", "user", "user,genres")


def peak_anonymous_memory(command):
    """Runs a Python command and returns its peak RssAnon in MB and its seconds."""
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except FileNotFoundError:
            break
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))])
        time.sleep(0.1)
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, command))} failed with exit code {process.returncode}")
    return peak / 1024, time.perf_counter() - started


def main(folder, memory_limit, steps=STEPS):
    """Measures both sizes and writes the result; training needs the data that `prepare` has left."""
    cells = {}
    for size, users in USERS.items():
        data, run = folder / f"data-{users}", folder / f"run-{users}"
        shutil.rmtree(run, ignore_errors=True)
        prepare = ["-m", "tfmtr.cli", "prepare", "simulator", "--num-users", users, "--out", data, "--overwrite"]
        prepare += ["--memory-limit", memory_limit]
        train = ["-m", "tfmtr.cli", "train", "--data", data, "--out", run, "--epochs", "1", "--units", "16,16"]
        counted = [*prepare, *(word for counter in COUNTERS for word in ("--counters", counter))]
        for step, command in zip(STEPS, (prepare, train, counted), strict=True):
            if step in steps:
                cells[step, size] = peak_anonymous_memory(command)
        print(size, Dataset(data).report["statistics"]["events"], "events", flush=True)
    table = Table("step", *(f"{size} events, MB (s)" for size in USERS), "ratio")
    target = Path(__file__).parent / "results" / "memory.json"
    result = (read_json(target) or {"steps": {}}) | {"memory_limit": memory_limit}
    result["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    for step in steps:
        (small, small_time), (large, large_time) = (cells[step, size] for size in USERS)
        table.add_row(
            step, f"{small:.0f} ({small_time:.0f})", f"{large:.0f} ({large_time:.0f})", f"{large / small:.2f}"
        )
        result["steps"][step] = {"peak_mb": [round(small), round(large)], "ratio": round(large / small, 3)}
        result["steps"][step]["seconds"] = [round(small_time), round(large_time)]
    Console().print(table)
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory-limit", default="4GB", help="of the query engine")
    parser.add_argument("--folder", type=Path, default=Path("runs/memory"), help="where data and runs are kept")
    parser.add_argument("--step", action="append", choices=STEPS, help="only these; all by default")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.memory_limit, arguments.step or STEPS)

"""Rows a second and peak memory of `tfmtr prepare`, against the same logic in pandas and Polars, and on Spark.

    pip install -e '.[dev,peers]' -c constraints.txt
    python benchmarks/prepare.py --users 160000 1600000 16000000

Simulates a log for each number of users (24 territories, 400 titles, 60 days; some 6 events a user) and prepares it
with each contender in a process of its own: `whole_prepare` is all of `tfmtr prepare`, stores included, and
`counted_prepare` the same with counters of titles, alone and in territories, of users, and of users with genres;
`tfmtr` is the part that ends with the labelled examples, discoveries, sampled negatives and all, which pandas, Polars
and `spark` (`local[2]`, the same expressions) do, too; `whole_spark` is all of it on Spark. What they write must be the
same rows, or the benchmark ends: number, positives and a checksum of all values are compared. Memory is the peak
resident one, with Spark's process; a contender that needs more than `--memory-gb` has failed at this size and has no
larger ones.

Prints a table with ratios and writes `benchmarks/results/prepare.json` cell by cell: what is there is not measured
again. Events a second are those of the log. Linux only.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import limits
import prepare_peers as peers
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from tfmtr import training
from tfmtr.datasets.simulator import simulator
from tfmtr.documents import read_json, write_json

RESULT = Path("benchmarks/results/prepare.json")
PACKAGES = {"whole_prepare": "ibis", "counted_prepare": "ibis", "tfmtr": "ibis", "pandas": "pandas", "polars": "polars"}
PACKAGES |= {"spark": "pyspark", "whole_spark": "pyspark"}
MOST_USERS = {"spark": 1_600_000, "whole_spark": 160_000}  # by default; others go on until they fail
WHOLE = ("whole_prepare", "counted_prepare", "whole_spark")


def main(users, *, libraries=tuple(PACKAGES), size=None, memory_gb=16.0, folder=None, out=RESULT):
    """Measures what is not in `out` yet, prints and writes; returns the document."""
    size = {"num_titles": 400, "num_territories": 24, "days": 60, "widths": (64, 96), **(size or {})}
    document = read_json(out) or {"results": {}}
    document |= {
        "command": "python benchmarks/prepare.py",
        "size": {name: list(value) if isinstance(value, tuple) else value for name, value in size.items()},
        "processor": limits.processor(),
        "versions": {**training.versions(), **versions()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    for num_users in sorted(users):
        wanted = [name for name in libraries if is_wanted(name, num_users, document["results"])]
        if not wanted:
            continue
        with tempfile.TemporaryDirectory(dir=folder) as place:
            logs = simulator(Path(place, "log"), num_users=num_users, **size)
            Path(place, "logs.pickle").write_bytes(pickle.dumps(logs))
            events = pq.ParquetFile(logs.events).metadata.num_rows
            for name in wanted:
                cell = {"events": events, **measure(name, Path(place), memory_gb)}
                check_same_rows(cell, name, num_users, document["results"])
                document["results"][f"{num_users:,} users, {name}"] = cell
                write_json(out, document)
                print(num_users, name, cell, flush=True)
    print_results(document)
    return document


def is_wanted(name, num_users, results):
    """Whether a cell is to be measured: installed, not there yet, and not beyond a size that failed."""
    if f"{num_users:,} users, {name}" in results or importlib.util.find_spec(PACKAGES[name]) is None:
        return False
    failed = [
        int(key.partition(" ")[0].replace(",", ""))
        for key, cell in results.items()
        if key.endswith(f", {name}") and "failed" in cell
    ]
    return num_users <= MOST_USERS.get(name, num_users) and not any(few <= num_users for few in failed)


def measure(name, place, memory_gb):
    """Figures of one contender, in a process of its own."""

    def limit():
        if not name.endswith("spark"):  # whose memory is the matter of its own options
            resource.setrlimit(resource.RLIMIT_DATA, (int(memory_gb * 2**30),) * 2)

    with tempfile.TemporaryDirectory(dir=place) as folder:
        out = Path(folder, "examples")
        if name in ("tfmtr", "spark"):
            out.mkdir()
        asked = json.dumps({"library": name, "folder": str(place), "out": str(out)})
        command = [sys.executable, peers.__file__, asked]
        process = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
        if process.returncode:
            is_memory = process.returncode < 0 or "emory" in process.stderr or "alloc" in process.stderr
            if not is_memory:
                raise RuntimeError(f"{name} failed: {process.stderr}")
            return {"failed": f"out of {memory_gb:g} GB"}
        cell = json.loads(process.stdout.splitlines()[-1])
        return {**cell, **({} if name in WHOLE else {"rows": checksum(out)})}


def checksum(out):
    """Number of examples, of positives, and a sum over hashes of all rows, which does not depend on their order."""
    files = [file for file in (out, *out.rglob("*.parquet")) if file.is_file()]
    casts = {"bucket": "BIGINT", "window": "BIGINT", "event": "DOUBLE"}
    values = ", ".join(f'"{name}"::{casts.get(name, "VARCHAR")}' for name in peers.COLUMNS)
    query = f"SELECT count(*), count(*) FILTER (is_positive), sum(hash({values})) FROM read_parquet(?)"
    with duckdb.connect() as connection:
        rows, positives, total = connection.execute(query, [[str(file) for file in files]]).fetchone()
    return {"examples": rows, "positives": positives, "checksum": str(total)}


def check_same_rows(cell, name, num_users, results):
    """Raises a `RuntimeError` unless a contender wrote what the others of its size did."""
    for other in PACKAGES:
        rows = results.get(f"{num_users:,} users, {other}", {}).get("rows")
        if rows and "rows" in cell and cell["rows"] != rows:
            raise RuntimeError(f"{name} and {other} must write the same rows. Received: {cell['rows']} and {rows}")


def versions():
    """Versions of the peers that are installed."""
    names = ("pandas", "polars", "pyspark")
    return {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)}


def print_results(document):
    """One table."""
    table = Table(
        "users", "contender", title=f"tfmtr prepare, {document['processor']['cores']} cores; ratios to tfmtr's"
    )
    for column in ("events", "seconds", "hashing", "events/s", "time, ratio", "peak MiB", "memory, ratio"):
        table.add_column(column, justify="right")
    results = document["results"]
    for key, cell in results.items():
        users, name = key.split(" users, ")
        if "failed" in cell:
            table.add_row(users, name, f"{cell['events']:,}", cell["failed"])
            continue
        ours = results.get(f"{users} users, {'whole_prepare' if name in WHOLE else 'tfmtr'}", {})
        time_ratio, memory_ratio = (
            f"{cell[what] / ours[what]:.2f}" if what in ours else "" for what in ("seconds", "peak_mebibytes")
        )
        table.add_row(
            users,
            name,
            f"{cell['events']:,}",
            f"{cell['seconds']:,.1f}",
            f"{cell['hash_seconds']:,.1f}" if cell["hash_seconds"] else "",
            f"{cell['events'] / cell['seconds']:,.0f}",
            time_ratio,
            f"{cell['peak_mebibytes']:,.0f}",
            memory_ratio,
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[160_000, 1_600_000, 16_000_000])
    parser.add_argument("--library", action="append", choices=list(PACKAGES), help="only these contenders")
    parser.add_argument("--memory-gb", type=float, default=16.0, help="that a contender may have")
    parser.add_argument("--folder", type=Path, help="where logs are while they are needed; the system's by default")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    main(
        arguments.users,
        libraries=arguments.library or tuple(PACKAGES),
        memory_gb=arguments.memory_gb,
        folder=arguments.folder,
        out=arguments.out,
    )

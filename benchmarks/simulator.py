"""Seconds, CPU seconds, peak anonymous memory and size on disk of the simulator.

    python benchmarks/simulator.py --users 200000 2000000 10000000

Simulates 220 territories, 400 titles and 100 days for each number of users, ten events a user, as a process of its own,
and prints a table. Goal: 10 million users and 100 million events in under 15 minutes and 4 GiB on two cores. Vectors
are 512 and 768 wide and float16, 10 GB for 10 million users; `--widths` asks for others. What was simulated is removed.
Writes `benchmarks/results/simulator.json`. Linux only.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from memory import peak_anonymous_memory
from rich.console import Console
from rich.table import Table

OUT = Path(__file__).parent / "results" / "simulator.json"
COMMAND = """
import json, sys
from tfmtr.datasets.simulator import simulator
simulator(sys.argv[1], **json.loads(sys.argv[2]))
"""


def main(users, *, territories=220, titles=400, days=100, widths=(512, 768), folder=None, out=OUT):
    """Measures all numbers of users, prints the table, and writes and returns the document."""
    size = {"num_territories": territories, "num_titles": titles, "days": days, "widths": tuple(widths)}
    rows = {}
    for num_users in users:
        with tempfile.TemporaryDirectory(dir=folder) as tables:
            tables = Path(tables)
            check_disk(tables, num_users, widths[0])
            before = cpu_seconds()
            megabytes, seconds = peak_anonymous_memory(
                ["-c", COMMAND, tables, json.dumps({"num_users": num_users, **size})]
            )
            rows[f"{num_users:,}"] = {
                "events": pq.ParquetFile(tables / "events.parquet").metadata.num_rows,
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu_seconds() - before, 1),
                "peak_mb": round(megabytes),
                "disk_mb": round(sum(file.stat().st_size for file in tables.rglob("*.*")) / 1e6),
            }
    table = Table("users", "events", "seconds", "CPU seconds", "peak MB", "MB on disk")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:,}" for value in row.values()))
    Console().print(table)
    document = {"date": time.strftime("%Y-%m-%d", time.gmtime()), **size, "users": rows}
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def cpu_seconds():
    """CPU time of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def check_disk(folder, num_users, width):
    """Raises an `OSError` unless the disk has room for the vectors, the truth and some 300 bytes of events a user."""
    needed, free = num_users * (2 * width + 400), shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"`folder` needs {needed:,} bytes of disk; name another one or fewer users. Free: {free:,}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--widths", type=int, nargs=2, default=(512, 768))
    parser.add_argument(
        "--folder", type=Path, help="where the tables are while they are needed; the system's by default"
    )
    arguments = parser.parse_args()
    main(arguments.users, days=arguments.days, widths=arguments.widths, folder=arguments.folder)

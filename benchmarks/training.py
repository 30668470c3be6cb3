"""Training throughput against peers: the same architecture, batch, data and precision, in one run.

    pip install -e .[peers]
    pip install torch==2.13.0 torch-rechub==0.9.0
    pip install --no-deps deepctr==0.9.4
    python benchmarks/training.py

Four comparisons. Each model has a process of its own (`training_peers.py`), and they take turns, so that a machine
that slows down slows all of them down. A turn is some batches through the library's own loop: Keras `fit`,
torch-rechub's `MTLTrainer`. Batches are in memory before.

* `branches`: the two-tower model with territory branches (user vectors 512 wide, title vectors 800, two layers of 512,
  a branch of 512 for each group) with 4, 16 and 64 groups, batches of 8,192, against Keras layers with all branches
  computed and masked, as they are commonly written, and the same in TensorFlow Recommenders; alone in mixed bfloat16.
* `multi-task`: shared bottom, MMoE and PLE with two tasks on MovieLens-1M's ids (embeddings of 16, experts 256-128,
  PLE's of 256 in two levels, towers of 64), batches of 8,192, against torch-rechub and DeepCTR. A normalisation follows
  every layer: of the layer here, of the batch there, as neither has the other. Here steps are compiled by XLA
  (`jit_compile=True`).
* `m3oe`: M3oE at its reference sizes (embeddings of 16, 512-256, experts of 64), batches of 40,960, in float32 and
  mixed bfloat16, against a PyTorch model of the same layers. The share of the matrix rate counts the multiplications
  that these layers ask for; here 30 % of them are saved, as two linear layers are multiplied with one another before.
* `retrieval`: what is trained for retrieval by default, the two-tower model with territory branches on vectors of 128,
  against YouTubeDNN and SASRec of torch-rechub (20,000 titles, embeddings of 64, pasts of 50). Not one architecture: a
  row is a user and a title here, a past with one title and 20 drawn ones for YouTubeDNN, and 50 targets of a past for
  SASRec, whose examples are pasts. Batches of 1,024; `retrieval, default batch` is alone, with 8,192.

Prints examples a second and their ratio to the package's own, how much of the matrix product rate that this machine has
in this run (`limits.py`) the dense layers reach, peak memory and the time to the first step, and writes
`benchmarks/results/training.json`. Ids, vectors and labels are random. What is not installed is said to be missing.
Linux only.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import limits
import numpy as np
import training_peers as peers
from rich.console import Console
from rich.table import Table

from tfmtr import training
from tfmtr.documents import write_json

RESULT = Path("benchmarks/results/training.json")
WIDTH = peers.EMBEDDING * len(peers.FIELDS)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained by several libraries.

    Attributes:
        name: For the table.
        case: As `training_peers` takes it.
        batch_size: Rows of a batch.
        libraries: `{function of training_peers: package that it needs}`, the package's own first.
        macs: Multiplications of the dense layers for one example, forward; 0 where libraries do not compute the same.
        dtype: Of the matrix products.
        goal: Ratio to each other library that is the goal.
    """

    name: str
    case: str
    batch_size: int
    libraries: dict
    goal: float
    macs: int
    dtype: str = "float32"

    def gflops(self, examples_per_second):
        """What the dense layers compute in training: forward and both gradients, a multiplication and an addition."""
        return 6 * self.macs * examples_per_second / 1e9


def branches_macs():
    """Of the two-tower model with one branch a row."""
    units = peers.UNITS
    return (peers.USER + units + units + peers.TITLE + units) * units


def m3oe_macs():
    """Of M3oE, the row's own gates, towers and outputs only."""
    experts = peers.EXPERTS + peers.FIELDS["domain"] + len(peers.TASKS)
    dense = 2 * (WIDTH * peers.STAR + peers.STAR * peers.COMMON) + peers.COMMON * experts * peers.EXPERT_UNITS
    gates = peers.COMMON * peers.EXPERTS * len(peers.TASKS)
    return dense + gates + len(peers.TASKS) * peers.EXPERT_UNITS * peers.TOWER


def multi_task_macs(name):
    """Of shared bottom, MMoE or PLE: experts, gates and towers; every expert computes every row."""
    first, last = peers.EXPERT
    tasks, expert = len(peers.TASKS), WIDTH * first + first * last
    towers = tasks * (last * peers.TOWER + peers.TOWER)
    if name == "shared_bottom":
        return expert + towers
    if name == "mmoe":
        return peers.EXPERTS * expert + tasks * WIDTH * peers.EXPERTS + towers
    # PLE: an expert a task and a shared one; two gates of two experts and, in the first level, one of all three.
    return (tasks + 1) * expert + tasks * 2 * (WIDTH + first) + (tasks + 1) * WIDTH + towers


def cases():
    """All `Case`s."""
    keras_libraries = {"ours_branches": "tfmtr", "keras_branches": "keras", "tfrs_branches": "tensorflow_recommenders"}
    multi_task = {"ours_multi_task": "tfmtr", "rechub_multi_task": "torch_rechub", "deepctr_multi_task": "deepctr"}
    m3oe = {"ours_m3oe": "tfmtr", "torch_m3oe": "torch"}
    retrieval = {
        "ours_retrieval": "tfmtr",
        "rechub_youtube_dnn": "torch_rechub",
        "rechub_sasrec": "torch_rechub",
    }
    return [
        *(
            Case(f"branches, {groups} groups", str(groups), 8192, keras_libraries, 1.8, branches_macs())
            for groups in (4, 16, 64)
        ),
        Case("branches, bfloat16", "4", 8192, {"ours_branches": "tfmtr"}, 1.8, branches_macs(), "bfloat16"),
        *(
            Case(f"multi-task, {name}", name, 8192, multi_task, 2.0, multi_task_macs(name))
            for name in ("shared_bottom", "mmoe", "ple")
        ),
        Case("m3oe, float32", "float32", 40_960, m3oe, 2.0, m3oe_macs()),
        Case("m3oe, bfloat16", "bfloat16", 40_960, m3oe, 3.0, m3oe_macs(), "bfloat16"),
        Case("retrieval", "4", 1024, retrieval, 1.0, 0),
        Case("retrieval, default batch", "4", 8192, {"ours_retrieval": "tfmtr"}, 1.0, 0),
    ]


class Peer:
    """A library's model in its process."""

    def __init__(self, library, case, batch_size, dtype):
        work = dict(library=library, case=case, batch_size=batch_size, dtype=dtype)
        command = [sys.executable, peers.__file__, json.dumps(work)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts, self.turns, self.batch_size = self.answer(), [], batch_size

    def answer(self):
        """The next line of the process."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[-1]} ended with {self.process.wait()}; see its messages above")
        return json.loads(line)

    def turn(self, batches):
        """Trains some batches."""
        print(batches, file=self.process.stdin, flush=True)
        self.turns.append(batches * self.batch_size / self.answer()["seconds"])

    def end(self):
        """Ends the process and returns all figures."""
        self.process.stdin.close()
        facts = {**self.facts, **self.answer()}
        self.process.wait()
        rates = self.turns[1:] or self.turns  # the first turn warms up
        return {**facts, "examples_per_second": float(np.median(rates)), "deviation": float(np.std(rates))}


def measure(case, turns, batches):
    """`{library: figures}` of the libraries that are there."""
    there = [name for name, package in case.libraries.items() if importlib.util.find_spec(package)]
    found = {}
    for name in there:
        found[name] = Peer(name, case.case, case.batch_size, case.dtype)
    for _ in range(turns):
        for peer in found.values():
            peer.turn(batches)
    return {name: peer.end() for name, peer in found.items()}


def matmul_rate(dtype, seconds):
    """Examples' multiply-adds a second of a training step's products at the models' main shape, in GFLOP/s."""
    return limits.matmul_rates(limits.SHAPES["two-tower, 512 to 512"], dtype, seconds)[1]


def main(wanted, turns, batches, seconds, out):
    """Measures the cases, prints the table and writes the result."""
    rates = {dtype: matmul_rate(dtype, seconds) for dtype in ("float32", "bfloat16")}
    title = "Training; ratio of the package's examples a second to the library's"
    table, found = Table("case", "library", title=title), {}
    for column in ("parameters", "examples/s", "± std", "ratio", "goal", "of the matrix rate", "MiB", "first step, s"):
        table.add_column(column, justify="right")
    for case in cases():
        if wanted and case.name not in wanted:
            continue
        found[case.name] = cells = measure(case, turns, batches)
        ours = next(iter(cells.values()))["examples_per_second"]
        for library, cell in cells.items():
            cell["ratio"] = ours / cell["examples_per_second"]
            cell["of_matmul_rate"] = case.gflops(cell["examples_per_second"]) / rates[case.dtype]
            table.add_row(
                case.name,
                library.partition("_")[0] if case.macs else library.partition("_")[2],
                f"{cell['parameters']:,}",
                f"{cell['examples_per_second']:,.0f}",
                f"{cell['deviation']:,.0f}",
                f"{cell['ratio']:.2f}",
                "" if library.startswith("ours") else f"{case.goal:.1f}",
                f"{cell['of_matmul_rate']:.0%}" if case.macs else "",
                f"{cell['peak_mebibytes']:,.0f}",
                f"{cell['first_step_seconds']:.1f}",
            )
        for library in case.libraries.keys() - cells.keys():
            table.add_row(case.name, library.partition("_")[0], "not installed")
    console = Console(width=160)
    console.print(table)
    if {f"branches, {groups} groups" for groups in (4, 64)} <= found.keys():
        few, many = (found[f"branches, {groups} groups"]["ours_branches"] for groups in (4, 64))
        cost = few["examples_per_second"] / many["examples_per_second"]
        console.print(f"64 groups cost {cost:.2f} times 4 groups (goal: at most 1.2)")
    document = {
        "cases": found,
        "matmul_gflops": rates,
        "turns": turns,
        "batches": batches,
        "processor": limits.processor(),
        "versions": {**training.versions(), **peer_versions()},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, document)
    return document


def peer_versions():
    """Versions of the peers that are installed."""
    names = ("torch", "torch-rechub", "deepctr", "tensorflow-recommenders")
    return {
        name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name.replace("-", "_"))
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=[case.name for case in cases()], help="only these cases")
    parser.add_argument("--turns", type=int, default=6, help="of each library; the first one warms up")
    parser.add_argument("--batches", type=int, default=10, help="of a turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring each matrix product")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    main(arguments.case, arguments.turns, arguments.batches, arguments.seconds, arguments.out)

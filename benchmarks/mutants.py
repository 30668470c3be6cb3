"""Breaks lines of the package one at a time and runs their module's tests: which lines does no test guard?

    python benchmarks/mutants.py
    python benchmarks/mutants.py --only sharing balancing
    python benchmarks/mutants.py --only heads/escm2

A line is broken in a copy of the package and its tests, in a folder of its own; the working tree is left alone. Prints
a line for each, and in the end those whose tests stay green. About eight seconds each, most of them TensorFlow's
import.

Expected: every line is red, but for those that `KEPT` gives a reason for.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LINKED = ("benchmarks", "docs", "pipelines", "studies", "README.md")  # what tests read beside the package
CASCADE, DEFAULTS = "heads/test_counterfactual.py", "test_defaults.py"


class Line(NamedTuple):
    """A line to break: what it is in `tfmtr/<file>.py`, what it becomes, and the tests that must see it."""

    file: str
    old: str
    new: str
    tests: str = ""


LINES = (
    Line("sharing/_towers", 'activation="relu", normalize=normalize', 'activation="relu"', "sharing/test_mmoe.py"),
    Line("sharing/_towers", 'activation="relu", normalize', 'activation="elu", normalize', "sharing/test_mmoe.py"),
    Line("sharing/_shared", "routed_output=True, bases", "routed_output=False, bases", "sharing/test_shared.py"),
    Line("sharing/adatt", "i < len(units) - 1", "i < len(units)"),
    Line("sharing/adatt", "num_shared_experts: int = 1", "num_shared_experts: int = 2", DEFAULTS),
    Line("sharing/cross_stitch", "same_tower: float = 0.9,\n", "same_tower: float = 0.5,\n", DEFAULTS),
    Line("sharing/hinet", "1e4 * own", "1e-4 * own"),
    Line("sharing/m2m", "ops.leaky_relu(meta + level)", "ops.leaky_relu(meta)"),
    Line("sharing/m3oe", "(1 - beta) / (number - 1)", "(1 - beta) / number"),
    Line("sharing/m3oe", '"has_alpha": fusion == "weighted"', '"has_alpha": True'),
    Line("sharing/mmoe", "normalize: bool = False", "normalize: bool = True"),
    Line("sharing/pepnet", "gamma: float = 2.0", "gamma: float = 1.0", DEFAULTS),
    Line("sharing/pepnet", "ops.stop_gradient(o)", "o"),
    Line("sharing/ple", "ops.concatenate([own_experts, shared_experts], axis=1)", "own_experts"),
    Line("sharing/snr", "penalty: float = 1e-4,\n", "penalty: float = 1e-3,\n", DEFAULTS),
    Line("sharing/snr", "stddev=0.01", "mean=0.5, stddev=0.01"),
    Line("sharing/star", "units[:-1]", "units[:-2]"),
    Line("sharing/star", "momentum: float = 0.9", "momentum: float = 0.99", DEFAULTS),
    Line("sharing/stem", "ops.stop_gradient(outputs)", "outputs"),
    Line("heads/_head", "0.5 * ops.square", "ops.square", "heads/test_parallel.py"),
    Line("heads/aitm", "calibrator_weight: float = 0.6", "calibrator_weight: float = 0.1", DEFAULTS),
    Line("heads/cross_distil", "is_served=False", "is_served=True"),
    Line("heads/dcmt", "Tower(-factual_towers", "Tower(factual_towers", CASCADE),
    Line("heads/dcmt", "constraint_weight: float = 0.001", "constraint_weight: float = 0.1", CASCADE),
    Line("heads/escm2", "counterfactual_weight: float = 0.1", "counterfactual_weight: float = 1.0", CASCADE),
    Line("heads/esdf", "rate * ops.clip(time - k", "ops.clip(time - k"),
    Line(
        "heads/in_batch_softmax", '- power * ops.expand_dims(given["log_p"], 0)', '+ ops.expand_dims(given["log_p"], 0)'
    ),
    Line("heads/multi_ipw", "clip: float = 0.02", "clip: float = 0.2", CASCADE),
    Line("heads/position_bias", "ops.cast(kept > 0, term.dtype)", "kept"),
    Line("heads/self_auxiliary", "auxiliary_weight * small", "small"),
    Line("balancing/_solve", "1e-6 * value", "1e-1 * value", "balancing/test_gradients.py -k mgda"),
    Line("balancing/adatask", "(1 - beta_2**count)", "1", "balancing/test_step.py -k adatask"),
    Line("balancing/aligned_mtl", 'np.finfo("float32").eps', "1e-9", "balancing/test_gradients.py -k aligned"),
    Line("balancing/cagrad", "c: float = 0.4", "c: float = 0.5", DEFAULTS),
    Line("balancing/dynamic_weight_average", "temperature: float = 2.0", "temperature: float = 1.0", DEFAULTS),
    Line("balancing/fair_grad", "alpha: float = 2.0", "alpha: float = 1.0", DEFAULTS),
    Line("balancing/grad_norm", "alpha: float = 1.5", "alpha: float = 0.5", DEFAULTS),
    Line("balancing/metabalance", '= "both"', '= "reduce"', "balancing -k metabalance"),
    Line("balancing/nash_mtl", "max_norm: float = 1.0", "max_norm: float = 2.0", DEFAULTS),
    Line("balancing/stch", "size * mu * ops", "mu * ops", "balancing -k stch"),
    Line("layers/experts", "((width, units), dtype)", "((width, number * units), dtype)[:, :units]"),
    Line("layers/expert_gate", "logits / self.temperature", "logits * self.temperature"),
    Line("layers/field_query", '"ones", name="pair_weight"', '"zeros", name="pair_weight"'),
    Line("layers/normalized_dense", "EPSILON = 1e-3", "EPSILON = 1e-5"),
    Line("layers/routed_batch_norm", "ops.where(rows > 0, moved", "ops.where(rows >= 0, moved"),
    Line("layers/score", "/ math.sqrt(inputs.shape[-1])", ""),
    Line("layers/star_dense", "mean=1.0", "mean=0.0"),
    Line("layers/streaming_frequency", "ops.max(ops.take", "ops.min(ops.take"),
    Line("retrieval/diversify", "tf.maximum(likest, tf", "tf.minimum(likest, tf", "retrieval -k divers"),
    Line("retrieval/indexes/exact", "< FEW *", "> FEW *", "retrieval/test_exact.py"),
    Line("retrieval/indexes/exact", ":] < k[", ":] <= k[", "retrieval/test_exact.py"),
    Line("retrieval/indexes/exact", "index, 0)", "index, 1)", "retrieval/test_exact.py"),
    Line("serving/batching", "len(batches) > self.options.max_enq", "len(batches) >= self.options.max_enq"),
    Line("serving/json_request", "low <= leaf <= high", "low <= leaf < high"),
    Line("serving/json_request", "len(text) % 4", "len(text) % 3"),
    Line("serving/json_response", '"%.9g"', '"%.8g"'),
    Line("serving/json_response", "array.dtype != np.uint16", "True"),
)
KEPT = {  # lines whose change no test can see: why
    ("sharing/adatt", "i < len(units) - 1"): "what nothing reads is no part of a model: the layers are drawn in vain",
}


def tests_of(line: Line) -> list[str]:
    """What pytest is asked to run, `tests/<folder>/test_<name>.py` where the line does not say."""
    folder, _, name = line.file.rpartition("/")
    path, *options = (line.tests or f"{folder}/test_{name}.py").split()
    return [f"tests/{path}", *options]


def stays_green(line: Line, folder: Path, timeout: int) -> bool:
    """Whether the tests pass with the line broken in the copy, which is whole again afterwards."""
    file = folder / f"tfmtr/{line.file}.py"
    whole = file.read_text(encoding="utf-8")
    if whole.count(line.old) == 0:
        raise ValueError(f"`{file}` must have the line that is broken. Received: {line.old!r}")
    file.write_text(whole.replace(line.old, line.new, 1), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests_of(line)]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:  # a test that waits for ever has seen it
        return False
    finally:
        file.write_text(whole, encoding="utf-8")
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"pytest {' '.join(tests_of(line))} ended with {ended.returncode}:\n{ended.stdout[-2000:]}")
    return ended.returncode == 0


def main(only: tuple[str, ...] = (), timeout: int = 300) -> list[Line]:
    """Breaks the lines of files whose names begin with one of `only`; returns those that are green without a reason."""
    wanted = [line for line in LINES if line.file.startswith(only or ("",))]
    green = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("tfmtr", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        for i, line in enumerate(wanted, start=1):
            started = time.perf_counter()
            is_green = stays_green(line, folder, timeout)
            reason = KEPT.get((line.file, line.old), "") if is_green else ""
            if is_green and not reason:
                green.append(line)
            word, seconds = "green" if is_green else "red", time.perf_counter() - started
            what = f"{line.file}: {line.old!r} -> {line.new!r}"
            print(f"[{i}/{len(wanted)}] {word}: {what}; {seconds:.0f} s {reason}", flush=True)
    print(f"{len(wanted)} lines, {len(green)} that no test guards", *(f"  {g.file}: {g.old}" for g in green), sep="\n")
    return green


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", default=(), help="files by the beginning of their names, such as heads/esdf"
    )
    parser.add_argument("--timeout", type=int, default=300, help="seconds after which a test has seen it")
    arguments = parser.parse_args()
    sys.exit(bool(main(tuple(arguments.only), arguments.timeout)))

"""What every metric of `tfmtr.evaluation` costs on 10 million scored pairs, per territory and pooled.

    python benchmarks/evaluation.py

Pairs of 50 thousand users in 200 territories, of very different sizes, and 2 thousand titles, in random order, with the
scores of a model and of a baseline. Lists are the users' 10 best titles. Prints the seconds of each metric and the peak
memory of the process, pairs included, and writes `benchmarks/results/evaluation.json`. Goal: all in under 30 seconds
and 2 GiB on 2 cores. The metrics use one thread, so the time of the processor beside that of the clock says what else
was running. Last, the scores are written as `tfmtr evaluate` exports them, with TensorFlow in memory. Linux only.
"""

import argparse
import dataclasses
import os
import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from tfmtr.documents import write_json
from tfmtr.evaluation.compare import benjamini_hochberg
from tfmtr.evaluation.lists import rank_pairs
from tfmtr.evaluation.local_titles import equal_opportunity, local_share
from tfmtr.evaluation.metrics import evaluate_task
from tfmtr.evaluation.popularity_bias import (
    evaluate_exposure,
    exposure_curve,
    hit_rate_by_popularity,
    popularity_lift,
    quantile_bins,
)
from tfmtr.evaluation.ranking import evaluate_lists, gauc
from tfmtr.evaluation.territories import mean_gain, slice_gains, won
from tfmtr.evaluation.titles import score_shift

RESULT = Path("benchmarks/results/evaluation.json")
SEEDS, WINDOWS = 5, 3


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Scored pairs of users and titles, one a row, and what is known of the titles and of the users before.

    Args:
        users, titles: Integers.
        territories: Categorical.
        labels, scores, baseline_scores: Floats.
        popularity, quality, local: One a title.
        profile_users, profile_titles: Integers.
    """

    users: np.ndarray
    titles: np.ndarray
    territories: pd.Categorical
    labels: np.ndarray
    scores: np.ndarray
    baseline_scores: np.ndarray
    popularity: np.ndarray
    quality: np.ndarray
    local: np.ndarray
    profile_users: np.ndarray
    profile_titles: np.ndarray

    def sorted_by_score(self):
        """The same pairs in the order of the model's scores."""
        order = np.argsort(self.scores, kind="stable")
        names = ("users", "titles", "territories", "labels", "scores", "baseline_scores")
        return dataclasses.replace(self, **{name: getattr(self, name)[order] for name in names})


def make_pairs(rows, num_users, num_titles, num_territories, seed=0):
    """Pairs of which 4 % are positives; the model knows them better than the baseline does."""
    rng = np.random.default_rng(seed)

    def draw_titles(size):
        return (num_titles * rng.random(size, np.float32) ** 2).astype(np.int32)  # the first are the most popular

    def score(noise):
        return 1 / (1 + np.exp(-(logits + noise * rng.standard_normal(rows, np.float32))))

    sizes = np.geomspace(200, 1, num_territories)
    home = rng.choice(num_territories, num_users, p=sizes / sizes.sum()).astype(np.int16)
    users, titles = rng.integers(num_users, size=rows, dtype=np.int32), draw_titles(rows)
    quality = rng.normal(size=num_titles).astype(np.float32)
    logits = quality[titles] + rng.standard_normal(rows, np.float32) - 4
    names = [f"T{i}" for i in range(num_territories)]
    return Pairs(
        users=users,
        titles=titles,
        territories=pd.Categorical.from_codes(home[users], names),
        labels=(rng.random(rows, np.float32) < 1 / (1 + np.exp(-logits))).astype(np.float32),
        scores=score(0.5),
        baseline_scores=score(1.0),
        popularity=np.bincount(draw_titles(rows // 10), minlength=num_titles),
        quality=quantile_bins(quality, num_bins=5),
        local=rng.random(num_titles) < 0.3,
        profile_users=rng.integers(num_users, size=20 * num_users),
        profile_titles=draw_titles(20 * num_users),
    )


def measure(pairs, *, k=10):
    """Seconds of each metric by name."""
    seconds = {}

    def timed(name, function, *arguments, **options):
        started = time.perf_counter()
        result = function(*arguments, **options)
        seconds[name] = time.perf_counter() - started
        return result

    pairs = timed("sort by score, once for all metrics", pairs.sorted_by_score)
    rows = pairs.labels, pairs.scores
    classes = pd.Categorical.from_codes(pairs.local[pairs.titles].astype(np.int8), ["global", "local"])
    cells = timed("PR-AUC, calibration and so on by territory", evaluate_task, *rows, pairs.territories, pairs.users)
    timed("the same by title", evaluate_task, *rows, pairs.titles, pairs.users)
    timed("the same by title class", evaluate_task, *rows, classes, pairs.users)
    timed("shift of the scores by title", score_shift, pairs.scores, pairs.baseline_scores, pairs.titles, pairs.users)
    timed("GAUC", gauc, *rows, pairs.territories, pairs.users)
    lists = timed(
        f"lists of the {k} best", rank_pairs, pairs.users, pairs.titles, *rows, pairs.territories,
        num_titles=len(pairs.popularity), k=k,
    )  # fmt: skip
    timed("recall, NDCG, MRR, hit rate", evaluate_lists, lists)
    timed("coverage, Gini, entropy, ARP", evaluate_exposure, lists, pairs.popularity)
    timed("popularity lift", popularity_lift, lists, pairs.popularity, pairs.profile_users, pairs.profile_titles)
    timed("hit rate by popularity", hit_rate_by_popularity, lists, pairs.popularity)
    timed("exposure curve", exposure_curve, lists, pairs.popularity)
    timed("share of local titles", local_share, lists, pairs.local)
    timed("equal opportunity", equal_opportunity, lists, pairs.local, pairs.quality)
    runs = over_seeds(cells, seed=0), over_seeds(cells, seed=1)
    timed("interval and t-test of the mean gain", mean_gain, *runs)
    timed("gains and p-values by territory", slice_gains, *runs, correct=benjamini_hochberg)
    timed("territories won", won, *runs)
    return seconds


def exporting(pairs, file):
    """Writes the scores of all pairs as a test window's: seconds, size of the file, and the process's peak after it."""
    from tfmtr.evaluation.evaluate import score_writer
    from tfmtr.schema import Task

    started = time.perf_counter()
    with score_writer(file, SimpleNamespace(tasks=[Task("click")])) as write:
        write(0, {"click score": pairs.scores, "title_row": pairs.titles})
    return {
        "seconds": time.perf_counter() - started,
        "file_mebibytes": file.stat().st_size / 2**20,
        "peak_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def over_seeds(cells, *, seed):
    """Results of several seeds and windows, which differ by noise."""
    rng = np.random.default_rng(seed)

    def noisy(cell):
        return cell if cell["pr_auc"] is None else {**cell, "pr_auc": cell["pr_auc"] * rng.normal(1, 0.02)}

    return [
        {window: {name: noisy(cell) for name, cell in cells.items()} for window in range(WINDOWS)} for _ in range(SEEDS)
    ]


def main(*, pairs=10_000_000, users=50_000, titles=2_000, territories=200, out=RESULT):
    """Measures, prints and writes; returns the document."""
    scored = make_pairs(pairs, users, titles, territories)
    started = time.process_time()
    seconds = measure(scored)
    processor_seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    from tfmtr import training  # it imports TensorFlow, whose memory is not the metrics'

    with tempfile.TemporaryDirectory() as folder:
        export = exporting(scored, Path(folder, "scores.parquet"))

    document = {
        "command": "python benchmarks/evaluation.py",
        "pairs": pairs,
        "users": users,
        "titles": titles,
        "territories": territories,
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": training.versions(),
        "seconds": seconds,
        "total_seconds": sum(seconds.values()),
        "processor_seconds": processor_seconds,
        "peak_mebibytes": peak,
        "export": export,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, document)
    table = Table("metric", title=f"{pairs:,} pairs, {territories} territories, {os.cpu_count()} cores")
    table.add_column("seconds", justify="right")
    for name, value in {**seconds, "all": document["total_seconds"]}.items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)
    print(f"processor time {processor_seconds:.1f} s, of one thread (goal: all in under 30)")
    print(f"peak memory {peak:,.0f} MiB (goal: under 2,048)")
    print("export of the scores: {seconds:.1f} s, {file_mebibytes:,.0f} MiB".format(**export))
    return document


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("pairs", "users", "titles", "territories"):
        parser.add_argument(f"--{name}", type=int, default=main.__kwdefaults__[name])
    main(**vars(parser.parse_args()))

"""Whether mixed bfloat16 costs accuracy: AUC on MovieLens-1M, float32 beside it.

    python benchmarks/precision.py --data path/to/ml-1m.zip

Trains MMoE and M3oE, both with layer normalisation (split by time, five epochs, Adam) in both precisions, three seeds
each, and prints the mean AUC of click and like on test rows, its deviation, the difference in points and the interval
of it (Welch). Goal: within 0.1 point. Writes `benchmarks/results/precision.json`, training by training: what the file
has is kept.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from embedding_update import RATES, mean_auc, read_movielens
from rich.console import Console
from rich.table import Table
from scipy import stats

from tfmtr import training
from tfmtr.documents import write_json

RESULT = Path("benchmarks/results/precision.json")
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
SYSTEMS = ("mmoe", "m3oe")


def main(data, seeds=3, systems=SYSTEMS, epochs=5, out=RESULT):
    """Trains what is missing, prints and writes; returns `{system: {precision: [AUC by seed]}}`."""
    document = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"auc": {}}
    movielens = read_movielens(data)
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for system in systems:
            for precision, policy in POLICIES.items():
                found = document["auc"].setdefault(system, {}).setdefault(precision, [])
                if len(found) > seed:
                    continue
                adam = keras.optimizers.Adam(RATES["keras_adam"])
                found.append(mean_auc(movielens, adam, seed, share=system, policy=policy, epochs=epochs))
                document |= {"date": time.strftime("%Y-%m-%d", time.gmtime()), "versions": training.versions()}
                write_json(out, document)
    table = Table("system", title=f"Mean AUC on MovieLens-1M, {seeds} seeds")
    for column in (*POLICIES, "difference, points", "95 % interval"):
        table.add_column(column, justify="right")
    for system in systems:
        single, half = (np.asarray(document["auc"][system][precision][:seeds]) for precision in POLICIES)
        interval = stats.ttest_ind(half, single, equal_var=False).confidence_interval()
        table.add_row(
            system,
            *(f"{np.mean(aucs):.4f} ± {np.std(aucs, ddof=1):.4f}" for aucs in (single, half)),
            f"{100 * (np.mean(half) - np.mean(single)):+.3f}",
            f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}",
        )
    Console(width=100).print(table)
    return document["auc"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="MovieLens-1M's archive")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--systems", nargs="*", default=SYSTEMS)
    arguments = parser.parse_args()
    main(arguments.data, arguments.seeds, tuple(arguments.systems))

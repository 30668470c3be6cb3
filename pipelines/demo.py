"""The whole job in one go: logs -> examples -> three models -> comparison -> export -> server -> recommendations.

    make demo                                # the built-in simulator
    make demo DATA=path/to/ml-1m.zip         # MovieLens-1M
    make demo DATA=path/to/online_retail.parquet

Everything stays under `runs/demo/<data>/` and `saved_models/`. Prints the data's statistics, PR-AUC per
territory for the global baseline, the baseline with upsampling and the multi-task model, and one user's
titles as a client of the server sees them; under four minutes on two cores.
"""

import argparse
import functools
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console

from tfmtr import training
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.public.movielens import movielens
from tfmtr.datasets.public.online_retail import online_retail
from tfmtr.datasets.simulator import simulator
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.evaluation import print_tables
from tfmtr.evaluation.tables import recommendation_table, statistics_table
from tfmtr.exporting import export
from tfmtr.serving.recommend import recommend
from tfmtr.serving.server import Server

logging.getLogger("tensorflow").setLevel(logging.ERROR)
console = Console(width=110)
ROWS_TO_TRAIN = 800_000  # an epoch of a large log is enough for a demonstration


def main(source=None, *, runs=Path("runs/demo"), saved_models=Path("saved_models")):
    """Runs the job on a data set; without `source` on the simulator."""
    started = time.perf_counter()
    name, tables = "simulator", functools.partial(simulator, num_users=40_000)
    if source:
        name, convert = ("movielens", movielens) if is_movielens(source) else ("online_retail", online_retail)

        tables = functools.partial(convert, source)

    runs = runs / name
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)

    console.rule(f"1. Prepare: {name}")
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(tables(Path(folder)), runs / "data")
    console.print(statistics_table(data.report))
    for warning in data.report["warnings"]:
        console.print(f"warning: {warning}", markup=False)

    console.rule("2. Train and evaluate: three models, three test windows")
    rows = sum(part["rows"] for part in data.report["examples"] if part["split"] == "train")
    epochs = min(max(ROWS_TO_TRAIN // rows, 1), 4)  # the same for all three models
    results = {}
    for model, recipe in training.PAPER.items():
        console.print(f"[bold]{model}[/]")
        run = runs / model.replace(" + ", "_")
        training.train(data.path, run, training.dataclasses.replace(recipe, epochs=epochs))
        results[model] = evaluate(run, data.path)
    print_tables(results, console)

    console.rule("3. Export, serve, recommend")
    version = export(run, saved_models / "two_tower", titles=data.path)
    console.print(
        f"exported {version}: {json.loads((version / 'assets.extra/tfmtr.json').read_text())['titles']} titles"
    )
    with Server(version.parent, model_name="two_tower", port=0, rest_api_port=0) as server:
        user = a_user(data)
        answer = recommend(f"127.0.0.1:{server.port}", "two_tower", data.path, user, k=10)
        console.print(recommendation_table(user, answer))
    console.print(f"Done in {time.perf_counter() - started:.0f} s. See {runs} and {version.parent}.")


def is_movielens(source):
    """Whether a path looks like MovieLens (an archive or a folder) rather than Online Retail (a table)."""
    return Path(source).is_dir() or Path(source).suffix == ".zip"


def a_user(data: Dataset):
    """A user of a test window, the first one of the files."""
    from tfmtr.inputs import read_tables

    return next(read_tables(data.examples("test", windows=data.test_windows), rows=1))["user"][0].as_py()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="ml-1m.zip, its folder, or online_retail.parquet / .xlsx")
    main(parser.parse_args().source or None)

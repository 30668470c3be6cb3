"""The whole job in one go: logs -> examples -> a model -> its lists beside the baselines -> export -> server -> a list.

    make demo                                # the built-in simulator
    make demo DATA=path/to/ml-1m.zip         # MovieLens-1M
    make demo DATA=path/to/online_retail.parquet

Everything stays under `runs/demo/<data>/` and `saved_models/`. Prints the data's statistics, PR-AUC per territory, the
lists beside those of all baselines, one user's titles as a client of the server sees them, and what wins. The model is
smaller than the default, and trained for fewer epochs: about a minute on two cores.
"""

import argparse
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console

import tfmtr
from tfmtr.datasets.public.movielens import movielens
from tfmtr.datasets.public.online_retail import online_retail
from tfmtr.datasets.simulator import simulator
from tfmtr.evaluation.evidence import interval_text
from tfmtr.evaluation.list_scores import MODEL
from tfmtr.evaluation.tables import recommendation_table, statistics_table
from tfmtr.serving.recommendations import recommend
from tfmtr.serving.server import Server

logging.getLogger("tensorflow").setLevel(logging.ERROR)
console = Console(width=110)
RECIPE = tfmtr.Recipe(units=(128, 64), epochs=3, deterministic=False)
USERS = 15_000  # of the simulated service


def main(source=None, *, runs=Path("runs/demo"), saved_models=Path("saved_models"), recipe=RECIPE, **options):
    """Runs the job on a data set; without `source` on the simulator, which takes `options`."""
    started = time.perf_counter()
    name = "simulator"
    if source:
        name, convert = ("movielens", movielens) if is_movielens(source) else ("online_retail", online_retail)
    runs = Path(runs) / name
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)

    console.rule(f"1. Prepare: {name}")
    with tempfile.TemporaryDirectory() as folder:
        logs = convert(source, folder) if source else simulator(Path(folder), **{"num_users": USERS, **options})
        data = tfmtr.prepare(logs, runs / "data")
    console.print(statistics_table(data.report))
    for warning in data.report["warnings"]:
        console.print(f"warning: {warning}", markup=False)

    console.rule("2. Train")
    console.print(f"a smaller recipe than the default: units={recipe.units}, epochs={recipe.epochs}")
    run = tfmtr.train(data, runs / "run", recipe)

    console.rule("3. Evaluate, beside what people have without a model")
    evaluation = tfmtr.evaluate(run)
    console.print(evaluation.table(), markup=False)

    console.rule("4. Export, serve, recommend")
    version = tfmtr.export(run, Path(saved_models) / "two_tower").path
    titles = json.loads((version / "assets.extra/tfmtr.json").read_text())["titles"]
    console.print(f"exported {version}: {titles} titles")
    with Server(version.parent, model_name="two_tower", port=0, rest_api_port=0) as server:
        user = a_user(data)
        answer = recommend(f"127.0.0.1:{server.port}", "two_tower", data.path, user, k=10)
        console.print(recommendation_table(user, answer))

    console.rule("What wins")
    console.print(what_wins(evaluation), markup=False)
    console.print(f"Done in {time.perf_counter() - started:.0f} s. See {runs} and {version.parent}.")


def what_wins(evaluation):
    """The model beside the baseline that is best on the test, in one sentence."""
    ours, figures = evaluation.ndcg, {name: row.get("ndcg") for name, row in evaluation.lists.items() if name != MODEL}
    figures = {name: figure for name, figure in figures.items() if figure is not None}
    if ours is None or not figures:
        return "There are too few lists to say."
    best = max(figures, key=figures.get)
    ratio = evaluation.ratios[best]
    if ratio["low"] is None:
        word = "beside"
    else:
        word = "above" if ratio["low"] > 1 else "below" if ratio["high"] < 1 else "level with"
    return (
        f"The model's lists (NDCG {ours:.4f}) are {word} those of the best baseline, {best} ({figures[best]:.4f}): "
        f"{ratio['ratio']:.3f} times as good, 95 % interval {interval_text(ratio)}."
    )


def is_movielens(source):
    """Whether a path looks like MovieLens (an archive or a folder) rather than Online Retail (a table)."""
    return Path(source).is_dir() or Path(source).suffix == ".zip"


def a_user(data):
    """A user of a test window, the first one of the files."""
    from tfmtr.inputs import read_tables

    return next(read_tables(data.examples("test", windows=data.test_windows), rows=1))["user"][0].as_py()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="ml-1m.zip, its folder, or online_retail.parquet / .xlsx")
    main(parser.parse_args().source or None)

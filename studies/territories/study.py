"""Does one model for all territories reduce popularity bias? Every contender on every data set, cell by cell.

    python studies/territories/study.py simulator
    python studies/territories/study.py homogeneous
    python studies/territories/study.py movielens --source ../shared/data/movielens-1m/ml-1m-rebuilt.zip
    python studies/territories/study.py online_retail --source ../shared/data/online-retail/online_retail.parquet
    python studies/territories/study.py xmarket --source ../shared/data/xmarket-electronics/ratings_5core.parquet

Reproduces Tables 1 to 3 of Gampa et al., Multi-Task Learning For Reduced Popularity Bias In Multi-Territory Video
Recommendations, 2023, with every sharing file that can tell territory groups apart as a further contender, and the
controls that a gain of branches must beat: one group, random groups, one more layer, equal steps, one model a group.
`homogeneous` is the simulator without any difference between territories: there multi-task must not gain over one
group; only these two and the baseline with upsampling are there.

A cell is one contender with one seed, trained with early stopping on validation users, then from test window to test
window, and evaluated on three windows. All contenders have one recipe but for what their name says; nothing is tuned.
Sharing files that have the option `normalize` have layer normalisation, all alike; cells do not speak of it.
The paper's models have `--seeds` seeds, the others one, and the best `--finalists` of these, by validation loss, three.
A cell is a line of `results.jsonl`, written as soon as it is finished, and not computed again for the same data and
recipe. `--processes` computes several at once.
"""

import argparse
import concurrent.futures
import dataclasses
import datetime
import math
import multiprocessing
import os
import re
import shutil
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from pipelines.xmarket_tables import write_tables
from studies.cells import RESULTS, Cell, document_of, normalized, notes_of
from studies.territories.oracle import evaluate_truth
from studies.territories.page import BIAS, OURS, REFERENCE, page
from tfmtr import inputs, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.public.movielens import movielens
from tfmtr.datasets.public.online_retail import online_retail
from tfmtr.datasets.simulator import simulator
from tfmtr.datasets.truth import Truth
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.reporting.pairs import read_pairs
from tfmtr.reporting.runs import Model, read_run
from tfmtr.reporting.titles_section import describe_titles, shift_by_class

RUNS = Path("runs/territories")
SIMULATOR = {"num_users": 720_000, "num_titles": 600, "num_territories": 200}
# Of the simulated users few are trained on, many are tested: each of the 16 major territories has enough of them.
FEW = {"validation_fraction": 1 / 120, "random_fraction": 1 / 28, "active_fraction": 1 / 27}
ONLINE_RETAIL_WINDOWS = 3  # the last before the tests; five fit into MAX_ROWS, three save hours
MAX_ROWS = 600_000
FIGURES = ("pr_auc", "roc_auc", "prevalence", "rows", "positives")  # that a cell keeps of a territory
STEP_ROWS, STEPS = 8192, 24  # of the timed training steps
LOOKBACK = 30  # days without an event of the title before a discovery
FINALIST_SEEDS = 3
SCENARIO_FILES = ("hinet", "m2m", "m3oe", "pepnet", "star")
PER_PAIR_FILES = ("adatt", "cross_stitch", "mmoe", "ple", "shared_bottom", "snr")
PER_GROUP = "one model a group"
XMARKET = {
    "columns": {"user": "uid", "title": "asin", "territory": "market", "time": "date"},
    "tasks": {"liked": "liked"},
    "calendar": Calendar(datetime.timedelta(weeks=4), num_train=12, end=datetime.datetime(2019, 10, 1)),
}


@dataclasses.dataclass(frozen=True)
class Contender:
    """What is compared.

    Attributes:
        recipe: The `Recipe`.
        has_all_seeds: Whether it has all seeds from the start.
        is_per_group: Whether each territory group has a model of its own.
    """

    recipe: training.Recipe
    has_all_seeds: bool = False
    is_per_group: bool = False


def contenders(rows, groups, **changes):
    """`{name: Contender}`: the paper's models first, which have all seeds, then the controls.

    Args:
        rows: Training rows without and with upsampling.
        groups: True groups of the territories, `{territory: group}`, or `None`.
        **changes: Of all recipes.
    """
    changes = {"listwise": False, **changes}  # which would order all contenders' lists, and not their towers
    core, controls = (
        {name: dataclasses.replace(recipe, **changes) for name, recipe in recipes.items()}
        for recipes in (training.PAPER, training.CONTROLS)
    )
    plain, upsampled, branches = core.values()
    deeper = (*plain.units[:-1], *plain.units[-2:])
    steps = plain.epochs * rows[1]
    found = {
        **{name: Contender(recipe, has_all_seeds=True) for name, recipe in core.items()},
        **{name: Contender(recipe) for name, recipe in controls.items()},
        "one layer deeper": Contender(dataclasses.replace(upsampled, units=deeper)),
        # As many steps as the upsampled data give; early stopping is off in both, the best epoch is kept.
        "baseline, equal steps": Contender(
            dataclasses.replace(plain, epochs=math.ceil(steps / rows[0]), patience=plain.epochs * 10)
        ),
        "upsampling, equal steps": Contender(dataclasses.replace(upsampled, patience=plain.epochs * 10)),
        "sum of group means": Contender(dataclasses.replace(branches, normalizer="groups")),
        PER_GROUP: Contender(upsampled, is_per_group=True),
    }
    if groups:
        found["true groups"] = Contender(dataclasses.replace(branches, groups=groups))
    for share in SCENARIO_FILES:
        found[share] = Contender(dataclasses.replace(upsampled, share=share))
    for share in PER_PAIR_FILES:
        recipe = dataclasses.replace(upsampled, share=normalized(share), per_pair=True)
        found[f"{share}, a tower a group"] = Contender(recipe)
    return found


def tables(name, source, folder, **size):
    """The `Logs` of a data set, and its `Truth` or `None`."""
    if name in ("simulator", "homogeneous"):
        heterogeneity = {} if name == "simulator" else {"heterogeneity": 0.0}
        logs = simulator(folder, **{**SIMULATOR, **heterogeneity, **size})
        return logs, Truth(folder)
    if name == "xmarket":
        return Logs(**write_tables(source, folder), **XMARKET), None
    if name == "movielens":
        return movielens(Path(source), folder), None
    logs = online_retail(Path(source), folder)
    return dataclasses.replace(logs, calendar=dataclasses.replace(logs.calendar, num_train=ONLINE_RETAIL_WINDOWS)), None


def compute(data, contender, seed, cell, run):
    """The document of a cell, from its line if it is there."""
    recipe = dataclasses.replace(contender.recipe, seed=seed)
    data = Dataset(data)
    asked = {"fingerprint": data.report["fingerprint"], "recipe": document_of(recipe)}
    if there := cell.known(asked):
        return there
    parts = split_by_group(data, run / "data") if contender.is_per_group else [data]
    results, stages, parameters = [], [], 0
    for i, part in enumerate(parts):
        workdir = run / f"group-{i}" if contender.is_per_group else run
        trained = training.train(part.path, workdir, recipe, verbose=2)
        parameters += trained.model.count_params()
        results.append(evaluate(trained, baselines=()).document)
        stages.append(trained.document["stages"])
    (task,) = data.schema.tasks
    windows = {}
    for result in results:
        for window, cells in result["tasks"][task.name]["territory"].items():
            windows.setdefault(window, {}).update(cells)
    if contender.is_per_group:  # the pooled cell would be one group's
        for cells in windows.values():
            cells[OVERALL] = dict.fromkeys(cells[OVERALL])
    first = [stage[min(stage)]["history"] for stage in stages]
    document = {
        **asked,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": training.versions(),
        "epochs": [len(history) for history in first],
        "seconds": sum(stage[min(stage)]["seconds"] for stage in stages),
        "parameters": parameters,
        "validation_loss": None if contender.is_per_group else min(epoch["val_loss"] for epoch in first[0]),
        "recall": None if contender.is_per_group else results[0]["recall"],
        "title_classes": None if contender.is_per_group else results[0]["title_classes"][task.name],
        "lists": None if contender.is_per_group else pooled_lists(results[0]["lists"]),
        "k": results[0]["k"],
        "local_share": results[0]["local_share"],
        "windows": with_evidence(windows),
    }
    cell.write(document)
    return document


def with_evidence(windows):
    """The figures that the page has, of the pooled cell and those that are not n/a."""
    return {
        window: {
            name: {key: cell[key] for key in FIGURES}
            for name, cell in cells.items()
            if name == OVERALL or cell["reason"] is None
        }
        for window, cells in windows.items()
    }


def pooled_lists(lists):
    """`{metric: {window: cell over all territories}}` of the lists' metrics that the page has."""
    return {
        metric: {window: cells[OVERALL] for window, cells in lists[metric].items()} for metric in {of[0] for of in BIAS}
    }


def split_by_group(data, out):
    """A `Dataset` directory for each territory group, with the rows of its territories only."""
    groups = {}
    for (territory,), group in data.schema.scenario.groups.items():
        groups.setdefault(group, []).append(territory)
    parts = []
    for group, territories in sorted(groups.items()):
        folder = out / group
        if not folder.exists():
            staging = out / f"tmp-{group}"
            shutil.rmtree(staging, ignore_errors=True)
            shutil.copytree(data.path, staging, ignore=shutil.ignore_patterns("examples"))
            for source in sorted(data.path.glob("examples/**/*.parquet")):
                target = staging / source.relative_to(data.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                table = pq.read_table(source)
                pq.write_table(table.filter(pc.is_in(table["territory"], pa.array(territories))), target)
            staging.rename(folder)
        parts.append(Dataset(folder))
    return parts


def title_document(data, entrants, seeds, cell, runs):
    """Every title under the paper's three models, from its line if it is there.

    Returns:
        `{"baselines", "shifts", "titles"}`: the other models' names, `tfmtr.reporting.titles_section.ClassShift`s, and
        `tfmtr.reporting.titles_section.Title`s with a PR-AUC, as dicts.
    """
    core = sorted((model for model in training.PAPER if model in entrants), key=lambda model: model == OURS)
    recipes = [document_of(entrants[model].recipe) for model in core]
    asked = {"fingerprint": data.report["fingerprint"], "seeds": seeds, "recipes": recipes}
    if there := cell.known(asked):
        return there
    models = [Model(model, tuple(read_run(runs / stem(model, seed)) for seed in range(seeds))) for model in core]
    pairs, facts = read_pairs(data, models, data.schema.tasks[0].name), title_facts(data)
    tested = sorted(set(pairs.titles.tolist()))
    titles = describe_titles(tested, models, pairs, facts, data)
    document = {
        **asked,
        "baselines": core[:-1],
        "shifts": [dataclasses.asdict(of) for of in shift_by_class(models, pairs, facts)],
        "titles": [dataclasses.asdict(title) for title in titles if title.pr_auc[OURS] is not None],
    }
    cell.write(document)
    return document


def truth_document(data, truth, cell):
    """The document of the true propensity, from its line if it is there."""
    asked = {"fingerprint": data.report["fingerprint"], "recipe": "truth"}
    if there := cell.known(asked):
        return there
    found = evaluate_truth(data, truth, lookback=LOOKBACK)
    document = {
        **asked,
        **found,
        "windows": with_evidence(found["windows"]),
        "lists": pooled_lists(found["lists"]),
    }
    cell.write(document)
    return document


def step_document(data, entrants, cell):
    """`{contender: median milliseconds of a training step}`, one after another, from its line if it is there.

    The cells' own times are no measure: several are computed at once. Models that there are one a group of together
    have the rows and the steps of one, and stand for themselves.
    """
    recipes = {model: of.recipe for model, of in entrants.items() if not of.is_per_group}
    asked = {"fingerprint": data.report["fingerprint"], "models": sorted(recipes)}
    if there := cell.known(asked):
        return there
    files, found = data.examples("train"), {}
    for model, recipe in recipes.items():
        schema, times = recipe.adapt(data.schema), []
        batch = next(iter(inputs.batches(data, files, batch_size=STEP_ROWS, schema=schema, seed=[0, 0])))
        network = recipe.build(schema)
        for _ in range(STEPS):
            start = time.perf_counter()
            network.train_on_batch(*batch)
            times.append(1000 * (time.perf_counter() - start))
        found[model] = float(np.median(times[STEPS // 4 :]))
    document = {**asked, "rows": STEP_ROWS, "milliseconds": found, "versions": training.versions()}
    cell.write(document)
    return document


def stem(model, seed):
    """Name of a cell's files."""
    return f"{re.sub('[^a-z0-9_]+', '-', model)}-seed-{seed}"


def main(name, *, source=None, seeds=5, finalists=4, processes=1, runs=RUNS, folder=HERE, size=None, **changes):
    """Computes the missing cells of a data set and writes its page; `size` makes the simulator smaller, for tests."""
    runs = runs / name

    def cell_of(what):
        return Cell(folder / RESULTS, f"{name}/{what}")

    (runs / "log").mkdir(parents=True, exist_ok=True)
    logs, truth = tables(name, source, runs / "log", **(size or {}))
    data = prepare(
        logs,
        runs / "data",
        overwrite=True,
        discovery_lookback=datetime.timedelta(days=LOOKBACK),
        **(FEW if truth and not size else {}),
    )
    oracle = truth_document(data, truth, cell_of("truth")) if truth else None
    rows = [
        sum(pq.read_metadata(file).num_rows for file in data.examples("train", sampling=sampling))
        for sampling in (("random",), ("random", "active"))
    ]
    if rows[1] > MAX_ROWS:
        raise ValueError(f"a run must have at most {MAX_ROWS:,} rows; make the data smaller. Received: {rows[1]:,}")
    entrants = contenders(rows, truth.cultures if truth else None, **changes)
    if name == "homogeneous":  # the one question is whether branches gain over the control
        names = (REFERENCE, OURS, "one group")
        entrants = {model: dataclasses.replace(entrants[model], has_all_seeds=True) for model in names}
    wanted = [(model, seed) for model in entrants for seed in range(seeds if entrants[model].has_all_seeds else 1)]
    cells = compute_all(data, entrants, sorted(wanted, key=lambda pair: pair[1]), cell_of, runs, processes)
    single = [model for model in entrants if not entrants[model].has_all_seeds and cells[model, 0]["validation_loss"]]
    best = sorted(single, key=lambda model: cells[model, 0]["validation_loss"])[:finalists]
    more = [(model, seed) for seed in range(1, min(seeds, FINALIST_SEEDS)) for model in best]
    cells |= compute_all(data, entrants, more, cell_of, runs, processes)
    by_model = {model: [cells[pair] for pair in sorted(cells) if pair[0] == model] for model in entrants}
    command = " ".join(["python studies/territories/study.py", name, *([f"--source {source}"] if source else [])])
    titles = title_document(data, entrants, seeds, cell_of("titles"), runs)
    steps = step_document(data, entrants, cell_of("steps"))["milliseconds"]
    text = page(name, by_model, steps, titles, oracle, data, f"{command} --seeds {seeds}") + notes_of(
        folder, f"{name}-notes.md"
    )
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    Console(width=160).print(text, markup=False)
    return by_model


def compute_all(data, entrants, pairs, cell_of, runs, processes):
    """`{(contender, seed): document}`, several at once in processes of their own."""
    jobs = {}
    for model, seed in pairs:
        jobs[model, seed] = (
            data.path,
            entrants[model],
            seed,
            cell_of(stem(model, seed)),
            runs / stem(model, seed),
        )
    if processes == 1:
        return {pair: compute(*job) for pair, job in jobs.items()}
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ |= {f"TF_NUM_{which}_THREADS": str(threads) for which in ("INTRAOP", "INTEROP")}  # of each process
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=spawn, max_tasks_per_child=1) as pool:
        futures = {pair: pool.submit(compute, *job) for pair, job in jobs.items()}
        return {pair: future.result() for pair, future in futures.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("simulator", "homogeneous", "movielens", "online_retail", "xmarket"))
    parser.add_argument("--source", help="the data set's file")
    parser.add_argument("--seeds", type=int, default=5, help="of the paper's three models")
    parser.add_argument("--finalists", type=int, default=4, help="other models that get three seeds")
    parser.add_argument("--processes", type=int, default=1, help="cells computed at once")
    parser.add_argument("--runs", type=Path, default=RUNS)
    main(**vars(parser.parse_args()), epochs=6, patience=1)

"""Does one model for all territories reduce popularity bias? Every contender on every data set, cell by cell.

    python pipelines/territory_study.py simulator
    python pipelines/territory_study.py homogeneous
    python pipelines/territory_study.py movielens --source ../shared/data/movielens-1m/ml-1m-rebuilt.zip
    python pipelines/territory_study.py online_retail --source ../shared/data/online-retail/online_retail.parquet
    python pipelines/territory_study.py xmarket --source ../shared/data/xmarket-electronics/ratings_5core.parquet

Reproduces Tables 1 to 3 of Gampa et al., Multi-Task Learning For Reduced Popularity Bias In Multi-Territory Video
Recommendations, 2023, with every sharing file that can tell territory groups apart as a further contender, and the
controls that a gain of branches must beat: one group, random groups, one more layer, equal steps, one model a group.
`homogeneous` is the simulator without any difference between territories: there the interval of the multi-task model's
gain over one group must contain 0.

A cell is one contender with one seed, trained with early stopping on validation users, then from test window to test
window, and evaluated on three windows. All contenders have one recipe but for what their name says; nothing is tuned.
The paper's models have `--seeds` seeds, the others one, and the best `--finalists` of these, by validation loss, three.
A cell is written to `docs/results/territory_study/<data>/` as soon as it is finished, and not computed again for the
same data and recipe. `--processes` computes several at once.
"""

import argparse
import concurrent.futures
import dataclasses
import datetime
import json
import math
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from xmarket_tables import write_tables

from tfmtr import training
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.movielens import movielens
from tfmtr.datasets.online_retail import online_retail
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.prepared import Prepared
from tfmtr.datasets.simulator import simulator
from tfmtr.documents import write_json
from tfmtr.evaluation import compare
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.territories import mean_gain, won

RESULTS, RUNS = Path("docs/results/territory_study"), Path("runs/territory_study")
SIMULATOR = {"num_users": 60_000, "num_titles": 600, "num_territories": 200}
MAX_ROWS = 600_000
FINALIST_SEEDS = 3
SCENARIO_FILES = ("hinet", "m2m", "m3oe", "pepnet", "star")
PER_PAIR_FILES = ("adatt", "cross_stitch", "mmoe", "ple", "shared_bottom", "snr")
PER_GROUP = "one model a group"
BIAS = (  # metric of the lists, key of its cell, format
    ("ranking", "ndcg", ".4f"),
    ("exposure", "coverage", ".3f"),
    ("exposure", "gini", ".3f"),
    ("exposure", "entropy", ".2f"),
    ("exposure", "average_popularity", ",.0f"),
    ("popularity_lift", "popularity_lift", "+.2f"),
    ("local_share", "recommended", ".4f"),
    ("local_share", "truth", ".4f"),
)


XMARKET = {
    "columns": {"user": "uid", "title": "asin", "territory": "market", "time": "date"},
    "tasks": {"liked": "liked"},
    "calendar": Calendar(datetime.timedelta(weeks=4), num_train=12, end=datetime.datetime(2019, 10, 1)),
}

PAGE = """# Territories: {name}

`{command}`, {date}. Data fingerprint {fingerprint}; {train:,} rows for training, {test:,} for the three test windows;
{territories} territories, of which {major} are major (most training positives); prevalence {prevalence:.4f}.

## One model for all territories

Gain of multi-task over each other model in PR-AUC, percent, as mean over territories (each the mean over three test
windows; territories with under 30 positives or 20 users are n/a). Interval: 95 % over territories and seeds. p: t-test
over territories, Holm over the rows. Won: territories in which the mean over windows and seeds is higher.

| over | seeds | major: gain | interval | p | won | all: gain | interval | p | won |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{claims}

## Every contender

PR-AUC pooled over all test rows: mean over windows and seeds (deviation over seeds). Gain over the baseline with
upsampling as above, over all territories. Time: of training, relative to the baseline with upsampling at the same
number of epochs.

| model | seeds | PR-AUC | gain | interval | won | recall@10 | parameters | time an epoch |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{contenders}

## Popularity bias

Of the lists of {k} that the index returns to test users with a positive, over all territories, means over windows and
seeds. Popularity: positives in the training rows. Lift: how much more popular the lists are than what their users chose
before. Local: share of local titles (in at most {local_share:.0%} of the territories' catalogues) in the lists, and
among the positives.

| model | NDCG@{k} | coverage | Gini | entropy | mean popularity | lift | local, lists | local, positives |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{bias}

Smallest difference in pooled PR-AUC that {seeds} seeds would find with 80 % power: {detectable}.

Every combination tried is in the table. Versions: {versions}.
"""


@dataclasses.dataclass(frozen=True)
class Contender:
    """What is compared.

    Attributes:
        recipe: The `Recipe`.
        is_core: Whether it has all seeds: the paper's three models.
        is_per_group: Whether each territory group has a model of its own.
    """

    recipe: training.Recipe
    is_core: bool = False
    is_per_group: bool = False


def contenders(rows, truth, **changes):
    """`{name: Contender}`.

    Args:
        rows: Training rows without and with upsampling.
        truth: True groups of the territories, or `None`.
        **changes: Of all recipes.
    """
    plain = training.Recipe(share="none", upsample=False, **changes)
    upsampled = dataclasses.replace(plain, upsample=True)
    branches = dataclasses.replace(upsampled, share="territory_branches")
    deeper = (*plain.units[:-1], *plain.units[-2:])
    steps = plain.epochs * rows[1]
    found = {
        "baseline": Contender(plain, is_core=True),
        "baseline + upsampling": Contender(upsampled, is_core=True),
        "multi-task": Contender(branches, is_core=True),
        "one group": Contender(dataclasses.replace(branches, groups="one")),
        "random groups": Contender(dataclasses.replace(branches, groups="random")),
        "one layer deeper": Contender(dataclasses.replace(upsampled, units=deeper)),
        # As many steps as the upsampled data give; early stopping is off in both, the best epoch is kept.
        "baseline, equal steps": Contender(
            dataclasses.replace(plain, epochs=math.ceil(steps / rows[0]), patience=plain.epochs * 10)
        ),
        "upsampling, equal steps": Contender(dataclasses.replace(upsampled, patience=plain.epochs * 10)),
        "sum of group means": Contender(dataclasses.replace(branches, normalizer="groups")),
        PER_GROUP: Contender(upsampled, is_per_group=True),
    }
    if truth:
        found["true groups"] = Contender(dataclasses.replace(branches, groups=truth))
    for share in SCENARIO_FILES:
        found[share] = Contender(dataclasses.replace(upsampled, share=share))
    for share in PER_PAIR_FILES:
        found[f"{share}, a tower a group"] = Contender(dataclasses.replace(upsampled, share=share, per_pair=True))
    return found


def tables(name, source, folder, **size):
    """The `Logs` of a data set, and its true groups, `{territory: group}` or `None`."""
    if name in ("simulator", "homogeneous"):
        heterogeneity = {} if name == "simulator" else {"heterogeneity": 0.0}
        logs = simulator(folder, **{**SIMULATOR, **heterogeneity, **size})
        truth = pq.read_table(folder / "truth" / "territories.parquet", columns=["territory", "culture"]).to_pydict()
        return logs, dict(zip(truth["territory"], map(str, truth["culture"]), strict=True))
    if name == "xmarket":
        return Logs(**write_tables(source, folder), **XMARKET), None
    return {"movielens": movielens, "online_retail": online_retail}[name](Path(source), folder), None


def compute(data, contender, seed, file, run):
    """The document of a cell, from its file if it is there."""
    recipe = dataclasses.replace(contender.recipe, seed=seed)
    data = Prepared(data)
    asked = {"fingerprint": data.report["fingerprint"], "recipe": recipe.document()}
    if file.exists():
        there = json.loads(file.read_text(encoding="utf-8"))
        if {key: there[key] for key in asked} == asked:
            return there
    parts = split_by_group(data, run / "data") if contender.is_per_group else [data]
    results, stages, parameters = [], [], 0
    for i, part in enumerate(parts):
        workdir = run / f"part-{i}"
        model = training.train(part.path, workdir, recipe, verbose=2)
        parameters += model.count_params()
        results.append(evaluate(workdir, part.path))
        stages.append(training.read_run(workdir)["stages"])
    (task,) = data.schema.tasks
    windows = {}
    for result in results:
        for window, cells in result["tasks"][task.name]["territory"].items():
            windows.setdefault(window, {}).update(cells)
    if contender.is_per_group:  # the pooled cell would be one group's
        for cells in windows.values():
            cells["overall"] = dict.fromkeys(cells["overall"])
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
        "lists": None if contender.is_per_group else pooled_lists(results[0]),
        "k": results[0]["k"],
        "local_share": results[0]["local_share"],
        "windows": windows,
    }
    write_json(file, document)
    return document


def pooled_lists(result):
    """`{metric: {window: cell over all territories}}` of the lists' metrics that the page has."""
    wanted = {metric for metric, *_ in BIAS}
    return {
        metric: {window: cells["overall"] for window, cells in windows.items()}
        for metric, windows in result["lists"].items()
        if metric in wanted
    }


def split_by_group(data, out):
    """A `Prepared` directory for each territory group, with the rows of its territories only."""
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
        parts.append(Prepared(folder))
    return parts


def study(name, cells, data, command):
    """The page of a data set.

    Args:
        name: Of the data set.
        cells: `{contender: documents over seeds}`.
        data: The `Prepared` directory.
        command: Text.
    """
    rows = data.report["statistics"]["territories"]
    majors = major(rows)
    windows, only = (
        {model: [restrict(cell["windows"], names) for cell in documents] for model, documents in cells.items()}
        for names in (rows, majors)
    )
    ours, reference = "multi-task", "baseline + upsampling"
    others = [model for model in cells if model != ours]
    gains = {model: (mean_gain(only[ours], only[model]), mean_gain(windows[ours], windows[model])) for model in others}
    adjusted = [correct([gains[model][i]["p_value"] for model in others]) for i in (0, 1)]
    claims = []
    for i, model in enumerate(others):
        row = [model, str(len(cells[model]))]
        for part, results in enumerate((only, windows)):
            row += [*gain_texts(gains[model][part]), text(adjusted[part][i], ".3f"), won_text(results, ours, model)]
        claims.append(row)
    lines, epoch = [], seconds_an_epoch(cells[reference])
    against = {model: mean_gain(windows[model], windows[reference]) for model in cells if model != reference}
    for model in sorted(cells, key=lambda model: -(against.get(model, {}).get("gain") or 0.0)):
        documents = cells[model]
        pooled = [overall(cell) for cell in documents]
        mean, deviation = compare.mean_and_deviation(pooled)
        recalls = [value for cell in documents for value in (cell["recall"] or {}).values()]
        gain = ["", "", ""]
        if model != reference:
            gain = [*gain_texts(against[model]), won_text(windows, model, reference)]
        lines.append(
            [
                model,
                str(len(documents)),
                f"{text(mean, '.4f')} ({text(deviation, '.4f')})",
                *gain,
                text(compare.mean_and_deviation(recalls)[0], ".4f"),
                f"{documents[0]['parameters']:,}",
                f"{seconds_an_epoch(documents) / epoch:.2f}",
            ]
        )
    bias = [
        [model, *(text(list_metric(documents, *which), template) for *which, template in BIAS)]
        for model, documents in cells.items()
        if documents[0]["lists"]
    ]
    split_rows = {
        split: sum(part["rows"] for part in data.report["examples"] if part["split"] == split)
        for split in ("train", "test")
    }
    deviation = compare.mean_and_deviation([overall(cell) for cell in cells[ours]])[1]
    return PAGE.format(
        name=name,
        command=command,
        date=max(cell["date"] for documents in cells.values() for cell in documents),
        fingerprint=data.report["fingerprint"][:12],
        **split_rows,
        territories=len(rows),
        major=len(majors),
        prevalence=overall(cells[ours][0], "prevalence"),
        claims="\n".join(map(line, claims)),
        contenders="\n".join(map(line, lines)),
        bias="\n".join(map(line, bias)),
        k=cells[ours][0]["k"],
        local_share=cells[ours][0]["local_share"],
        seeds=len(cells[ours]),
        detectable=text(compare.detectable_difference(deviation, len(cells[ours])), ".4f"),
        versions=", ".join(f"{name} {version}" for name, version in cells[ours][0]["versions"].items()),
    )


def major(statistics):
    """The 16 territories with most training positives; with fewer than 32 territories half of them."""
    ranked = sorted(statistics, key=lambda name: (-statistics[name]["positives"], name))
    return ranked[: min(16, math.ceil(len(ranked) / 2))]


def restrict(result, names):
    """A result of some slices only."""
    return {window: {name: cells[name] for name in names if name in cells} for window, cells in result.items()}


def correct(p_values):
    """Holm over the p-values that there are."""
    known = [i for i, p in enumerate(p_values) if p is not None]
    adjusted = dict(zip(known, compare.holm([p_values[i] for i in known]), strict=True))
    return [adjusted.get(i) for i in range(len(p_values))]


def gain_texts(gain):
    """Mean gain and its interval."""
    if gain["gain"] is None:
        return "n/a", "n/a"
    return f"{gain['gain']:+.1f} %", f"{gain['low']:+.1f} to {gain['high']:+.1f}"


def won_text(results, model, other):
    """Territories won, of those that are not n/a."""
    return "{} of {}".format(*won(results[model], results[other]))


def overall(cell, metric="pr_auc"):
    """Mean over the test windows of the pooled metric."""
    return compare.mean_and_deviation([slices["overall"][metric] for slices in cell["windows"].values()])[0]


def list_metric(documents, metric, key):
    """Mean over windows and seeds of a metric of the lists."""
    values = [cell[key] for document in documents for cell in document["lists"][metric].values()]
    return compare.mean_and_deviation(values)[0]


def seconds_an_epoch(documents):
    """Seconds of training an epoch, the median over seeds."""
    return float(np.median([cell["seconds"] / max(cell["epochs"]) for cell in documents]))


def text(value, template):
    """A number as text, n/a for `None`."""
    return "n/a" if value is None else format(value, template)


def line(row):
    """A row of a table in Markdown."""
    return f"| {' | '.join(row)} |"


def main(name, *, source=None, seeds=5, finalists=4, processes=1, runs=RUNS, results=RESULTS, size=None, **changes):
    """Computes the missing cells of a data set and writes its page."""
    runs, folder = runs / name, results / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        logs, truth = tables(name, source, Path(scratch), **(size or {}))
        data = prepare(logs, runs / "data", overwrite=True)
    rows = [
        sum(pq.read_metadata(file).num_rows for file in data.examples("train", sampling=sampling))
        for sampling in (("random",), ("random", "active"))
    ]
    if rows[1] > MAX_ROWS:
        raise ValueError(f"a run must have at most {MAX_ROWS:,} rows; make the data smaller. Received: {rows[1]:,}")
    entrants = contenders(rows, truth, **changes)
    wanted = [(model, seed) for model in entrants for seed in range(seeds if entrants[model].is_core else 1)]
    cells = compute_all(data, entrants, sorted(wanted, key=lambda pair: pair[1]), folder, runs, processes)
    single = [model for model in entrants if not entrants[model].is_core and cells[model, 0]["validation_loss"]]
    best = sorted(single, key=lambda model: cells[model, 0]["validation_loss"])[:finalists]
    more = [(model, seed) for seed in range(1, min(seeds, FINALIST_SEEDS)) for model in best]
    cells |= compute_all(data, entrants, more, folder, runs, processes)
    by_model = {model: [cells[pair] for pair in sorted(cells) if pair[0] == model] for model in entrants}
    command = " ".join(["python pipelines/territory_study.py", name, *([f"--source {source}"] if source else [])])
    page = study(name, by_model, data, f"{command} --seeds {seeds}")
    (folder / "README.md").write_text(page, encoding="utf-8")
    Console(width=160).print(page, markup=False)
    return by_model


def compute_all(data, entrants, pairs, folder, runs, processes):
    """`{(contender, seed): document}`, several at once in processes of their own."""
    jobs = {}
    for model, seed in pairs:
        stem = f"{re.sub('[^a-z0-9_]+', '-', model)}-seed-{seed}"
        jobs[model, seed] = data.path, entrants[model], seed, folder / f"{stem}.json", runs / stem
    if processes == 1:
        return {pair: compute(*job) for pair, job in jobs.items()}
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

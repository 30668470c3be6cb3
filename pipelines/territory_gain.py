"""Do territory branches gain anything? The paper's three models and two controls, several seeds, one table.

    python pipelines/territory_gain.py simulator --seeds 3
    python pipelines/territory_gain.py ../shared/data/movielens-1m/ml-1m-rebuilt.zip --seeds 3

One cell is one model with one seed: trained with early stopping on validation users, incrementally from test
window to test window, evaluated on three windows. Every contender has the same budget: one recipe, nothing tuned.
A cell is written as soon as it is finished to `docs/results/territory_gain/<data>/`, and cells that are there for
the same data and recipe are not computed again. The controls have the same layers as the multi-task model: one
group for all territories, and groups drawn at random.

Expected on the simulator and on MovieLens-1M: see `docs/results/territory_gain/*/README.md`.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from cells import known, text
from rich.console import Console

from tfmtr import training
from tfmtr.datasets.movielens import movielens
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.simulator import simulator
from tfmtr.evaluation import compare
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.territories import won

RESULTS = Path("docs/results/territory_gain")
MODELS = {**training.PAPER, **training.CONTROLS}

PAGE = """# Territory branches on {name}

`python pipelines/territory_gain.py {source} --seeds {seeds}`, {date}. Data fingerprint {fingerprint}; {train:,} rows
for training, {test:,} for the three test windows.

PR-AUC over all territories, mean over three test windows; prevalence {prevalence:.4f}. Mean and deviation over {seeds}
seeds. Gain: of multi-task over the row. p: Welch over seeds, Holm over the {comparisons} comparisons. Won:
territories in which multi-task's mean over windows and seeds is higher, of those that are not n/a.

| model | PR-AUC | deviation | recall@10 | gain of multi-task | p | won |
| --- | --- | --- | --- | --- | --- | --- |
{lines}

Smallest difference that {seeds} seeds would find with 80 % power: {detectable}.

Versions: {versions}.
"""


def main(source, *, seeds, runs, results=RESULTS, **changes):
    """Computes the missing cells of a data set and writes its page."""
    name = "simulator" if source == "simulator" else "movielens"
    with tempfile.TemporaryDirectory() as tables:
        logs = (
            simulator(Path(tables), num_users=40_000)
            if source == "simulator"
            else movielens(Path(source), Path(tables))
        )
        data = prepare(logs, runs / name / "data", overwrite=True)
    folder = results / name
    folder.mkdir(parents=True, exist_ok=True)
    cells = {}
    for seed in range(seeds):
        for model, recipe in MODELS.items():
            recipe = dataclasses.replace(recipe, seed=seed, **changes)
            cells[model, seed] = cell(data, recipe, model, folder, runs / name)
    page = report(cells, data, source)
    (folder / "README.md").write_text(page, encoding="utf-8")
    Console().print(page, markup=False)


def cell(data, recipe, model, folder, runs):
    """The result of one model with one seed, from its file if it is there."""
    stem = f"{model.replace(' ', '-').replace('-+-', '-')}-seed-{recipe.seed}"
    file, run = folder / f"{stem}.json", runs / stem
    asked = {"fingerprint": data.report["fingerprint"], "recipe": recipe.document()}
    if there := known(file, asked):
        return there
    training.train(data.path, run, recipe, verbose=2)
    result, document = evaluate(run, data.path), training.read_run(run)
    (task,) = data.schema.tasks
    stages = document["stages"].values()
    document = {
        **asked,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": document["versions"],
        "epochs": [len(stage["history"]) for stage in stages],
        "seconds": sum(stage["seconds"] for stage in stages),
        "windows": result["tasks"][task.name]["territory"],
        "recall@10": result["recall"],
    }
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def overall(cell, metric="pr_auc"):
    """Mean over the test windows of the pooled metric."""
    return compare.mean_and_deviation([slices["overall"][metric] for slices in cell["windows"].values()])[0]


def report(cells, data, source):
    """The page of a data set: overall PR-AUC over seeds, gains, p-values, and territories won."""
    seeds = sorted({seed for _, seed in cells})
    scores = {model: [overall(cells[model, seed]) for seed in seeds] for model in MODELS}
    ours = "multi-task"
    others = [model for model in MODELS if model != ours]
    p_values = [compare.welch(scores[ours], scores[model]) for model in others]
    adjusted = dict(zip(others, compare.holm(p_values) if None not in p_values else p_values, strict=True))
    lines = []
    for model in MODELS:
        mean, deviation = compare.mean_and_deviation(scores[model])
        recall, _ = compare.mean_and_deviation(
            [value for seed in seeds for value in cells[model, seed]["recall@10"].values()]
        )
        row = [model, text(mean, ".4f"), text(deviation, ".4f"), text(recall, ".4f")]
        if model == ours:
            row += ["", "", ""]
        else:
            own = compare.mean_and_deviation(scores[ours])[0]
            wins, compared = won(*([cells[name, seed]["windows"] for seed in seeds] for name in (ours, model)))
            row += [f"{100 * (own / mean - 1):+.1f} %", text(adjusted[model], ".3f"), f"{wins} of {compared}"]
        lines.append("| " + " | ".join(row) + " |")
    any_cell = cells[ours, seeds[0]]
    detectable = compare.detectable_difference(compare.mean_and_deviation(scores[ours])[1], len(seeds))
    prevalence = overall(any_cell, "prevalence")
    rows = [
        sum(part["rows"] for part in data.report["examples"] if part["split"] == split) for split in ("train", "test")
    ]
    versions = ", ".join(f"{name} {version}" for name, version in any_cell["versions"].items())
    return PAGE.format(
        name=data.path.parent.name,
        source=source,
        seeds=len(seeds),
        date=any_cell["date"],
        fingerprint=data.report["fingerprint"][:12],
        train=rows[0],
        test=rows[1],
        prevalence=prevalence,
        comparisons=len(others),
        lines="\n".join(lines),
        detectable=text(detectable, ".4f"),
        versions=versions,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the word simulator, or the path of ml-1m.zip")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/territory_gain"))
    arguments = parser.parse_args()
    main(arguments.source, seeds=arguments.seeds, runs=arguments.runs, epochs=6, patience=1)

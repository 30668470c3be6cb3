"""When do corrections of territories pay? Contenders on simulated worlds of any size, cell by cell.

    python studies/territories/scale.py --users 20000 --heterogeneity 0 0.7 1.0 --seeds 2 --world 1 --least 100

Simulates a service for each number of users and each heterogeneity, trains every contender, and judges it on three
test windows. Validation users choose among the options of the shrunken branches (the least loss, mean over the seeds),
and name the comparator among the baseline with upsampling and one group; test windows are read by what is chosen and by
the contenders without options. A line of `results.jsonl` is a cell and is not computed again; a page has all of them.

Territories are estimated together (`pooled_gains`): each one's gain in PR-AUC, shrunk towards their mean as far as its
test windows disagree, with false discoveries corrected over territories.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import numpy as np
from scipy import stats

from studies.cells import RESULTS, Cell, document_of, notes_of, table, text
from studies.territories.page import OURS, REFERENCE, overall
from studies.territories.study import stem, with_evidence
from tfmtr import training
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.simulator import simulator
from tfmtr.evaluation.compare import benjamini_hochberg
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.reporting.gains import major_territories

RUNS = Path("runs/territories/scale")
PRIOR_ROWS = (300.0, 1000.0, 3000.0)
SHRUNKEN = "shrunken"
COMPARATORS = (REFERENCE, "one group")
RECIPE = {"units": (128, 128), "batch_size": 1024, "epochs": 6, "patience": 1, "listwise": False}
PAGE = """# When corrections of territories pay

`{command}`. Simulated users, {territories} territories, three test windows; all contenders have one recipe, {recipe}.
Validation loss: mean over the seeds, of the first training window, by which the option of the shrunken branches
is chosen (`{shrunken}`: groups or territories within groups, and where tau starts). Test: PR-AUC pooled over the
windows' rows, mean over windows and seeds; n/a was not chosen and has read no test row.

{contenders}

Gain of each model over the comparator (the better one of {comparators} on validation) in PR-AUC, percent: mean over
territories; the least lower end of a territory's 95 % interval; how many gain and lose, at a false discovery rate
of 5 %, of the major ones and of all, after partial pooling. Territories with under {least} test positives are taken
together. Detectable: the smallest gain that a territory of median size would show with 80 % power.

{gains}
"""


def contenders():
    """`{name: Recipe}`; those that begin with `SHRUNKEN` are options of one contender."""
    branches = training.PAPER[OURS]
    found = {REFERENCE: training.PAPER[REFERENCE], "one group": training.CONTROLS["one group"], OURS: branches}
    for groups in ("given", "territories"):
        for rows in PRIOR_ROWS:
            share = ("shrunken_branches", {"prior_rows": rows})
            found[f"{SHRUNKEN}, {groups}, {rows:.0f}"] = dataclasses.replace(branches, share=share, groups=groups)
    return {name: dataclasses.replace(recipe, **RECIPE) for name, recipe in found.items()}


def train_cell(data, recipe, cell, run):
    """The document of a run's validation loss, from its line if it is there."""
    asked = {"fingerprint": data.report["fingerprint"], "recipe": document_of(recipe)}
    if there := cell.known(asked):
        return there
    trained = training.train(data.path, run, recipe, verbose=0)
    stages = trained.document["stages"]
    history = stages[min(stages)]["history"]
    loss = min(epoch["val_loss"] for epoch in history)
    document = {**asked, "validation_loss": loss, "epochs": len(history), "versions": training.versions()}
    cell.write(document)
    return document


def judge_cell(data, recipe, cell, run):
    """The document of a run's test windows, from its line if it is there; a run that is gone is trained again."""
    asked = {"fingerprint": data.report["fingerprint"], "recipe": document_of(recipe)}
    if there := cell.known(asked):
        return there
    trained = training.train(data.path, run, recipe, verbose=0)
    (task,) = data.schema.tasks
    windows = evaluate(trained, baselines=()).document["tasks"][task.name]["territory"]
    document = {**asked, "windows": with_evidence(windows)}
    cell.write(document)
    return document


def pooled_gains(model, baseline):
    """Gains of a model in territories, each estimated with the help of the others.

    The gain of territory i is the mean over its test windows with their positives as weights, `y_i`; its error
    `v_i = s^2 / positives_i`, with `s^2` of all territories' windows around their means. Gains vary by `A` around
    `mu` (DerSimonian and Laird, Meta-Analysis in Clinical Trials, 1986), so that a territory's is

        m_i = mu + A / (A + v_i) (y_i - mu),    variance A v_i / (A + v_i) + (v_i / (A + v_i))^2 var(mu).

    Args:
        model: List over seeds of `{window: {territory: cell}}`.
        baseline: The same for the other model; seeds are averaged.

    Returns:
        `{"mean": mu, "detectable", "territories": {name: {"gain", "low", "high", "adjusted"}}}`, in percent;
        `None` with fewer than two territories that have two windows, or if no two windows differ.
    """
    gains, weights = {}, {}
    for window, cells in model[0].items():
        for name, cell in cells.items():
            ours, theirs = ([of[window].get(name) for of in results] for results in (model, baseline))
            if name == OVERALL or any(of is None or not of["pr_auc"] for of in (*ours, *theirs)):
                continue
            ratio = np.mean([of["pr_auc"] for of in ours]) / np.mean([of["pr_auc"] for of in theirs])
            gains.setdefault(name, []).append(100 * (ratio - 1))
            weights.setdefault(name, []).append(cell["positives"])
    names = [name for name in gains if len(gains[name]) > 1]
    if len(names) < 2:
        return None
    sizes = np.array([sum(weights[name]) for name in names], float)
    y = np.array([np.average(gains[name], weights=weights[name]) for name in names])
    squares = [np.dot(weights[name], np.square(gains[name] - mean)) for name, mean in zip(names, y, strict=True)]
    if not sum(squares):
        return None
    v = sum(squares) / sum(len(gains[name]) - 1 for name in names) / sizes
    between = heterogeneity(y, v)
    mu, mu_variance = np.average(y, weights=1 / (between + v)), 1 / np.sum(1 / (between + v))
    kept = between / (between + v)
    m, deviation = mu + kept * (y - mu), np.sqrt(kept * v + (1 - kept) ** 2 * mu_variance)
    p_values = 2 * stats.norm.sf(np.abs(m) / deviation)
    low, high = m - 1.96 * deviation, m + 1.96 * deviation
    found = zip(names, m, low, high, benjamini_hochberg(p_values.tolist()), strict=True)
    return {
        "mean": float(mu),
        "detectable": float(2.8 * np.sqrt(np.median(v))),
        "territories": {
            name: dict(zip(("gain", "low", "high", "adjusted"), map(float, of), strict=True)) for name, *of in found
        },
    }


def heterogeneity(y, v):
    """DerSimonian and Laird's variance between estimates `y` with the error variances `v`.

    >>> heterogeneity(np.array([0.0, 2.0]), np.array([0.5, 0.5]))
    1.5
    """
    w = 1 / v
    excess = np.dot(w, np.square(y - np.average(y, weights=w))) - (len(y) - 1)
    return float(max(0.0, excess / (w.sum() - np.square(w).sum() / w.sum())))


def main(users, heterogeneities, *, seeds=3, territories=16, world=0, least=300, runs=RUNS, folder=HERE, command=""):
    """Computes the missing cells and writes the page; returns its text."""
    recipes, contender_rows, gain_rows = contenders(), [], []
    for count in users:
        for level in heterogeneities:
            name_of_world = f"world-{world}-{count}-users-heterogeneity-{level:g}"
            here = runs / name_of_world
            data = dataset(here, count, level, territories, world)

            def cell_of(what, within=name_of_world):
                return Cell(folder / RESULTS, f"scale/{within}/{what}")

            losses = {name: [] for name in recipes}
            for seed in range(seeds):
                for name, recipe in recipes.items():
                    seeded = dataclasses.replace(recipe, seed=seed)
                    run = here / stem(name, seed)
                    document = train_cell(data, seeded, cell_of(f"train/{stem(name, seed)}"), run)
                    losses[name].append(document["validation_loss"])
            mean = {name: float(np.mean(values)) for name, values in losses.items()}
            chosen = min((name for name in mean if name.startswith(SHRUNKEN)), key=mean.__getitem__)
            comparator = min(COMPARATORS, key=mean.__getitem__)
            tests = {}
            for name in (*COMPARATORS, OURS, chosen):
                seeded = [dataclasses.replace(recipes[name], seed=seed) for seed in range(seeds)]
                tests[name] = [
                    judge_cell(data, of, cell_of(f"test/{stem(name, seed)}"), here / stem(name, seed))
                    for seed, of in enumerate(seeded)
                ]
            rows = sum(part["rows"] for part in data.report["examples"] if part["split"] == "train")
            size = [f"{count:,}", f"{rows:,}", f"{level:g}"]
            for name in recipes:
                pr_auc = float(np.mean([overall(cell) for cell in tests[name]])) if name in tests else None
                marks = {chosen: " (chosen)", comparator: " (comparator)"}.get(name, "")
                contender_rows.append([*size, name + marks, f"{mean[name]:.4f}", text(pr_auc, ".4f")])
            gain_rows += [
                [*size, name, comparator, *gain_texts(data, tests[name], tests[comparator], least)]
                for name in tests
                if name != comparator
            ]
    page = PAGE.format(
        command=command,
        territories=territories,
        recipe=", ".join(f"{name}={value}" for name, value in RECIPE.items()),
        shrunken=SHRUNKEN,
        comparators=" and ".join(COMPARATORS),
        least=least,
        contenders=table(["users", "rows", "heterogeneity", "model", "validation loss", "test PR-AUC"], contender_rows),
        gains=table(
            ["users", "rows", "heterogeneity", "model", "over", "mean", "least low", "major: gain", "lose", "all: gain",
             "lose", "detectable"],
            gain_rows,
        ),
    ) + notes_of(folder, "scale-notes.md")  # fmt: skip
    (folder / "scale.md").write_text(page, encoding="utf-8")
    return page


def dataset(folder, users, level, territories, world):
    """The prepared `Dataset` of a simulated service, made if it is not there."""
    if not (folder / "data" / "schema.json").exists():
        size = {"num_users": users, "num_territories": territories}
        logs = simulator(folder / "log", **size, heterogeneity=level, seed=world)
        prepare(logs, folder / "data", overwrite=True)
    return Dataset(folder / "data")


def gain_texts(data, model, baseline, least_positives):
    """Cells of a row of the table of gains."""
    found = pooled_gains(
        *(merge_small([cell["windows"] for cell in documents], least_positives) for documents in (model, baseline))
    )
    if found is None:
        return ["n/a"] * 7
    majors = major_territories({name: of["positives"] for name, of in data.report["statistics"]["territories"].items()})
    counts = []
    for names in (majors, found["territories"]):
        of = [found["territories"][name] for name in names if name in found["territories"]]
        significant = [cell["gain"] for cell in of if cell["adjusted"] < 0.05]
        counts += [f"{sum(gain > 0 for gain in significant)} of {len(of)}", str(sum(gain < 0 for gain in significant))]
    least = min(of["low"] for of in found["territories"].values())
    return [f"{found['mean']:+.2f}", f"{least:+.2f}", *counts, f"{found['detectable']:.2f}"]


def merge_small(results, least):
    """Results of all seeds with the territories of few test positives as one, their PR-AUC the mean by positives."""
    positives = {}
    for cells in results[0].values():
        for name, cell in cells.items():
            positives[name] = positives.get(name, 0) + (cell["positives"] or 0)
    small = {name for name, count in positives.items() if count < least and name != OVERALL}

    def merged(cells):
        kept = {name: cell for name, cell in cells.items() if name not in small}
        few = [cell for name, cell in cells.items() if name in small and cell["pr_auc"] is not None]
        if few:
            count = [cell["positives"] for cell in few]
            pr_auc = float(np.average([cell["pr_auc"] for cell in few], weights=count))
            kept["the small ones"] = {"pr_auc": pr_auc, "positives": sum(count)}
        return kept

    return [{window: merged(cells) for window, cells in windows.items()} for windows in results]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[20_000])
    parser.add_argument("--heterogeneity", type=float, nargs="+", default=[0.0, 0.7, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--world", type=int, default=0, help="seed of the simulator")
    parser.add_argument("--territories", type=int, default=16)
    parser.add_argument("--least", type=int, default=300, help="test positives of a territory estimated by itself")
    parser.add_argument("--runs", type=Path, default=RUNS)
    given = parser.parse_args()
    numbers = {name: " ".join(str(n) for n in np.ravel(value)) for name, value in vars(given).items() if name != "runs"}
    words = " ".join(["python studies/territories/scale.py", *(f"--{name} {of}" for name, of in numbers.items())])
    print(
        main(
            given.users,
            given.heterogeneity,
            seeds=given.seeds,
            territories=given.territories,
            world=given.world,
            least=given.least,
            runs=given.runs,
            command=words,
        )
    )

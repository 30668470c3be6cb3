"""Does any way of balancing losses beat their sum? Every balancer on KuaiRand, the best on MovieLens-1M too.

    python studies/balancing/study.py --dataset kuairand --data path/to/KuaiRand-Pure/data --seeds 3
    python studies/balancing/study.py --dataset movielens --data path/to/ml-1m.zip --seeds 3
    python studies/balancing/study.py --report

KuaiRand: click, long view and like over the standard log, split 8:1:1 by time, MMoE with every balancer and with the
head `self_auxiliary`, and M3oE with and without `bilevel`. MovieLens-1M: click and like in three age domains, split by
time, `equal` and the three balancers with the best mean AUC on KuaiRand's validation rows, each with shared bottom,
MMoE and PLE. These three have layer normalisation in all cells. One cell is one balancer with one system and one seed,
a line of `results.jsonl` that is written as soon as it is finished, and not computed again.

One recipe for all and nothing tuned: embeddings of 16, Adam 3e-3 and the options that the balancers' papers have as
defaults (MetaBalance reduces only, FairGrad weighs the tasks' own parameters too), an epoch's steps where they speak of
epochs, fixed weights of 1 over the entropy of the label's mean. The epoch is chosen by the sum of the tasks' log losses
on validation rows. Test rows are read once a cell.

Reported on test rows: AUC of every task, overall, in each scenario with 30 positives and negatives and the mean over
these, the mean of the tasks' AUC and its Welch test against `equal` (Holm over the balancers), and the time of a step
relative to `equal`, side by side in one run of `benchmarks/balancing.py`. The figures show one task's AUC against
another's.

Rows go through `tfmtr.prepare_rows` (`studies/given_rows.py`) and are trained on with `tfmtr.fit`.

Expected: see `studies/balancing/README.md`.
"""

import argparse
import functools
import itertools
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from studies import heads
from studies.cells import RESULTS, normalized, read_cells
from studies.cells import table as markdown
from studies.given_rows import encoded
from studies.heads import value_text
from tfmtr import components
from tfmtr.datasets.kuairand_domains import LIKE, TASKS, kuairand
from tfmtr.datasets.movielens_domains import movielens_domains
from tfmtr.evaluation import compare
from tfmtr.recipe import FORMER_DEFAULTS

RECIPES = {
    "kuairand": {"batch_size": 4096, "learning_rate": 3e-3, "max_epochs": 6, "patience": 1},
    "movielens": {"batch_size": 16_384, "learning_rate": 3e-3, "max_epochs": 6, "patience": 1},
}
PLOTTED = {"kuairand": ("click", "long_view", "like"), "movielens": ("click", "like")}
BEST = 3
HEADS = ("self_auxiliary",)  # compared as balancers are: a head that makes the sum of the losses another one
STEPS = HERE.parents[1] / "benchmarks/results/balancing.json"


def read(dataset, path):
    """Schema and `{split: (x, y)}`."""
    if dataset == "kuairand":
        return encoded(kuairand, path, protocol="time", tasks={**TASKS, **LIKE})
    return encoded(movielens_domains, path, protocol="time")


def options(balance, y, tasks, recipe):
    """What a balancer needs for these data: an epoch's steps, or fixed weights, 1 / the entropy of the label's mean.

    And what its defaults were when the cells were computed.
    """
    if balance in (former := FORMER_DEFAULTS["balance"]):
        return dict(former[balance])
    steps = -(-len(next(iter(y.values()))) // recipe["batch_size"])
    if balance == "dynamic_weight_average":
        return {"period": steps}
    if balance == "stch":
        return {"warmup": steps}
    if balance == "bilevel":
        return {"every": steps}
    if balance != "fixed_weights":
        return {}
    means = {task.name: float(np.nanmean(y[task.column])) for task in tasks}
    entropies = {name: -p * np.log(p) - (1 - p) * np.log(1 - p) for name, p in means.items()}
    scale = np.mean([1 / entropy for entropy in entropies.values()])
    return {"weights": {name: 1 / entropy / scale for name, entropy in entropies.items()}}


def evaluate(model, schema, x, y):
    """AUC of every task, overall and the mean over its scenarios, and `{task: {scenario: AUC}}`."""
    p, found, by_scenario = model.predict(x, batch_size=16_384, verbose=0), {}, {}
    for task in schema.tasks:
        label, score = y[task.column], p[task.name][:, 0]
        found[f"{task.name}_auc"] = float(roc_auc_score(label, score))
        cells = by_scenario[task.name] = {}
        for number, scenario in enumerate(schema.scenario.names, start=1):
            rows = x["scenario"] == number
            if min((label[rows] == 1).sum(), (label[rows] == 0).sum()) >= 30:
                cells[scenario] = float(roc_auc_score(label[rows], score[rows]))
        found[f"{task.name}_scenarios"] = float(np.mean(list(cells.values())))
    return found | {"mean_auc": float(np.mean([found[f"{t.name}_auc"] for t in schema.tasks]))}, by_scenario


def run(schema, parts, name, seed, recipe):
    """Trains and evaluates one system with one balancer and one seed; the name is `<system>+<balancer or head>`."""
    share, _, balance = name.partition("+")
    head, balance = (balance, "equal") if balance in HEADS else ("parallel", balance)
    x, y = parts["validation"]

    def losses(model):
        p = model.predict(x, batch_size=16_384, verbose=0)
        return sum(log_loss(y[t.column], p[t.name][:, 0].astype(float)) for t in schema.tasks)

    chosen = options(balance, parts["train"][1], schema.tasks, recipe)
    what = {"share": normalized(share), "head": head, "balance": (balance, chosen)}
    model, history = heads.fit(what, schema, *parts["train"], recipe, losses, seed=seed)
    test, by_scenario = evaluate(model, schema, *parts["test"])
    return {
        "options": chosen,
        "validation": history,
        "validation_auc": evaluate(model, schema, x, y)[0]["mean_auc"],
        "test": test,
        "by_scenario": by_scenario,
    }


def names_for(dataset, folder):
    """Names of the cells: on MovieLens the best balancers on KuaiRand's validation rows and `equal`."""
    if dataset == "kuairand":
        every = [name for name in components.names("balancing") if name != "bilevel"]
        return [*(f"mmoe+{name}" for name in (*every, *HEADS)), "m3oe+equal", "m3oe+bilevel"]
    found = read_cells(folder / RESULTS, "kuairand/")
    cells = [cell for cell in found.values() if cell["model"].startswith("mmoe+")]
    auc = {}
    for cell in cells:
        auc.setdefault(cell["model"].removeprefix("mmoe+"), []).append(cell["validation_auc"])
    if not auc:
        raise ValueError(f"Compute the cells of KuaiRand first; the best go on. Received: none in {folder}")
    best = sorted((name for name in auc if name != "equal"), key=lambda name: -np.mean(auc[name]))[:BEST]
    return [f"{share}+{name}" for share in ("shared_bottom", "mmoe", "ple") for name in ("equal", *best)]


def main(dataset, path, *, models=None, seeds=3, folder=HERE, **changes):
    """Computes the missing cells and returns all that were asked for."""
    schema, parts = read(dataset, path)
    return heads.compute(
        functools.partial(run, schema, parts),
        models or names_for(dataset, folder),
        seeds=seeds,
        recipe={**RECIPES[dataset], **changes},
        folder=folder,
        prefix=f"{dataset}/",
        kind="model",
    )


def by_model(cells):
    """`{model: its cells}`, best mean AUC on test rows first."""
    found = {}
    for cell in cells:
        found.setdefault(cell["model"], []).append(cell)
    return dict(sorted(found.items(), key=lambda item: -np.mean([c["test"]["mean_auc"] for c in item[1]])))


def table(cells):
    """A row a model: means and deviations over seeds, p of the mean AUC against `equal`, time relative to `equal`."""
    models = by_model(cells)
    baseline = {share: f"{share}+equal" for share in {name.partition("+")[0] for name in models}}
    aucs = {name: [cell["test"]["mean_auc"] for cell in some] for name, some in models.items()}
    p_values = {}
    for name in models:
        other = baseline[name.partition("+")[0]]
        if other in models and name != other:
            p_values[name] = compare.welch(aucs[name], aucs[other])
    known = {name: p for name, p in p_values.items() if p is not None}
    adjusted = dict(zip(known, compare.holm(list(known.values())), strict=True)) if known else {}
    metrics = list(cells[0]["test"])
    steps = json.loads(STEPS.read_text(encoding="utf-8"))["models"] if STEPS.exists() else {}
    rows = []
    for name, some in models.items():
        texts = [value_text([cell["test"][metric] for cell in some]) for metric in metrics]
        ratio = f"{steps[name]['ratio']:.2f}" if name in steps else ""
        p = f"{adjusted[name]:.3f}" if name in adjusted else ""
        rows.append([name, *texts, p, ratio, str(len(some))])
    cell = cells[0]
    versions = ", ".join(f"{name} {version}" for name, version in cell["versions"].items())
    head_row = ["model", *metrics, "p", "time of a step", "seeds"]
    return f"Recipe {cell['recipe']}; {cell['date']}; {versions}.\n\n{markdown(head_row, rows)}\n"


def scenario_tables(cells):
    """A table a task: AUC of every model in each scenario, mean and deviation over the seeds that have it."""
    cells = [cell for cell in cells if "by_scenario" in cell]
    lines = []
    for task in cells[0]["by_scenario"] if cells else ():
        scenarios = list(cells[0]["by_scenario"][task])
        rows = []
        for name, some in by_model(cells).items():
            texts = [value_text([cell["by_scenario"][task][scenario] for cell in some]) for scenario in scenarios]
            rows.append([name, *texts, str(len(some))])
        lines += [f"AUC of {task} by scenario\n", markdown(["model", *scenarios, "seeds"], rows), ""]
    return "\n".join(lines)


def draw(cells, tasks, file):
    """One task's AUC against another's for each pair of tasks: a number for each model, with mean and deviation."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    models = by_model(cells)
    shares = sorted({name.partition("+")[0] for name in models})
    pairs = list(itertools.combinations(tasks, 2))
    figure, panels = plt.subplots(1, len(pairs), figsize=(6.5 * len(pairs), 6), squeeze=False)
    for (first, second), axes in zip(pairs, panels[0], strict=True):
        for number, (name, some) in enumerate(models.items(), start=1):
            share, _, balance = name.partition("+")
            values = np.asarray([[cell["test"][f"{task}_auc"] for task in (first, second)] for cell in some])
            (x, y), (dx, dy) = values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else (0.0, 0.0)
            style = {"color": "black" if balance == "equal" else f"C{shares.index(share)}"}
            axes.errorbar(x, y, dy, dx, alpha=0.25, **style)
            axes.plot(x, y, marker=f"${number}$", markersize=9, linestyle="", label=f"{name}", **style)
        axes.set_xlabel(f"AUC of {first}")
        axes.set_ylabel(f"AUC of {second}")
    panels[0][-1].legend(bbox_to_anchor=(1.02, 1), loc="upper left", fontsize=8)
    seeds = max(map(len, models.values()))
    figure.suptitle(f"Trade-offs, mean and deviation over {seeds} seeds; black: the plain sum", y=0.94)
    figure.savefig(file, dpi=110, bbox_inches="tight")
    plt.close(figure)


def write_report(folder=HERE):
    """Prints and writes the page of all cells that there are, and the figures."""
    parts = ["# Balancing losses\n", "`studies/balancing/study.py` says how.\n"]
    for dataset, tasks in PLOTTED.items():
        cells = list(read_cells(folder / RESULTS, f"{dataset}/").values())
        if cells:
            draw(cells, tasks, folder / f"{dataset}.png")
            parts += [f"## {dataset}\n", table(cells), f"![trade-offs]({dataset}.png)\n", scenario_tables(cells)]
    heads.write_page(parts, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(RECIPES), default="kuairand")
    parser.add_argument("--data", type=Path, help="folder of KuaiRand-Pure's tables, or MovieLens-1M's archive")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", default=None, help="some, such as mmoe+pcgrad,ple+equal")
    parser.add_argument("--report", action="store_true", help="only the page, from the cells that are there")
    arguments = parser.parse_args()
    if not arguments.report:
        if arguments.data is None:
            parser.error("--data is needed, except with --report")
        models_wanted = arguments.models and arguments.models.split(",")
        main(arguments.dataset, arguments.data, models=models_wanted, seeds=arguments.seeds)
    write_report()

"""What the studies of heads and balancers share: cells that are computed once, and tables of means over seeds."""

import json
import time

import keras
import numpy as np
from rich.console import Console

from studies.cells import RESULTS, Cell, notes_of
from studies.cells import table as markdown
from tfmtr import training
from tfmtr.evaluation import compare

BASELINE = "naive_cvr"


def fit(parts, schema, x, y, recipe, loss, *, seed):
    """Trains with a recipe, the epoch chosen by `loss(model)` on validation rows.

    Args:
        parts: Fields of the `Recipe` that say what is trained.
        schema: The `Schema`.
        x: `{input: array}`.
        y: `{label column: array}`.
        recipe: The study's recipe.
        loss: Function of the model.
        seed: Of weights and order.

    Returns:
        The model, and the loss epoch by epoch.
    """
    keras.utils.clear_session()
    budget = {name: recipe[name] for name in ("batch_size", "learning_rate", "patience")}
    whole = training.Recipe(
        form="ranking", unknown_rate=0.0, deterministic=False, seed=seed, epochs=recipe["max_epochs"], **budget, **parts
    )
    model, history = training.fit(whole, schema, (x, y), judge=loss)
    return model, history["judged"]


def predict(model, x, task, before):
    """Probabilities by name, arrays of shape `(rows,)`; `task|before` is the ratio of the two where a head lacks it."""
    p = {name: value[:, 0].astype(float) for name, value in model.predict(x, batch_size=16_384, verbose=0).items()}
    ratio = np.clip(p[task] / np.maximum(p[before], 1e-7), 0.0, 1.0)
    return {f"{task}|{before}": ratio, **p}


def compute(run, names, *, seeds, recipe, folder, prefix="", kind="head"):
    """The cells of some names and seeds; those that are there with the same recipe are not computed again.

    Args:
        run: Function `run(name, seed, recipe)` that returns a dictionary with `test`, the metrics by name.
        names: Names of heads, or of what else is compared.
        seeds: Number of seeds.
        recipe: What decides a result beside name and seed; goes to JSON.
        folder: Of the study, where a cell is written as soon as it is finished.
        prefix: Of the cells' names, `<prefix><name>-seed-<seed>`.
        kind: What the names are of; the key in JSON.
    """
    console, cells = Console(soft_wrap=True), []
    wanted = [(seed, name) for seed in range(seeds) for name in names]
    started, num_computed = time.perf_counter(), 0
    for i, (seed, name) in enumerate(wanted, start=1):
        place = Cell(folder / RESULTS, f"{prefix}{name}-seed-{seed}")
        cell = place.known({"recipe": recipe})
        if cell is None:
            start = time.perf_counter()
            cell = {kind: name, "seed": seed, "recipe": recipe, **run(name, seed, recipe)}
            cell |= {"date": time.strftime("%Y-%m-%d", time.gmtime()), "versions": training.versions()}
            cell["seconds"] = time.perf_counter() - start
            place.write(cell)
            num_computed += 1
        left = (time.perf_counter() - started) / max(num_computed, 1) * (len(wanted) - i) / 60
        figures = ", ".join(f"{metric} {value:.4f}" for metric, value in cell["test"].items())
        line = f"[{i}/{len(wanted)}] {name} seed {seed}: {figures}; {cell['seconds']:.0f} s; about {left:.0f} min left"
        console.print(line, markup=False, highlight=False)
        cells.append(cell)
    return cells


def table(cells, metrics):
    """A row a head, best log loss first: means and deviations over seeds, and p of the log loss against naive CVR.

    Args:
        cells: Cells with one recipe.
        metrics: `{metric: header}`; one of them is `log_loss`.
    """
    by_head = {}
    for cell in cells:
        by_head.setdefault(cell["head"], []).append(cell["test"])
    losses = {head: [test["log_loss"] for test in tests] for head, tests in by_head.items()}
    p_values = {h: compare.welch(losses[h], losses[BASELINE]) for h in by_head if BASELINE in by_head and h != BASELINE}
    known = {head: p for head, p in p_values.items() if p is not None}
    adjusted = dict(zip(known, compare.holm(list(known.values())), strict=True)) if known else {}
    rows = []
    for head, tests in sorted(by_head.items(), key=lambda item: np.mean(losses[item[0]])):
        texts = [value_text([test[metric] for test in tests]) for metric in metrics]
        p = f"{adjusted[head]:.3f}" if head in adjusted else ""
        rows.append([head, *texts, p, str(len(tests))])
    cell = cells[0]
    versions = ", ".join(f"{name} {version}" for name, version in cell["versions"].items())
    head_row = ["head", *metrics.values(), "p", "seeds"]
    return f"Recipe {json.dumps(cell['recipe'])}; {cell['date']}; {versions}.\n\n{markdown(head_row, rows)}\n"


def value_text(values):
    """Mean and, of several, deviation."""
    mean, deviation = compare.mean_and_deviation(values)
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def write_page(parts, folder):
    """Prints and writes `README.md` of a study's folder: the parts, and `notes.md` if there is one."""
    page = "\n".join(parts) + notes_of(folder)
    (folder / "README.md").write_text(page, encoding="utf-8")
    Console(soft_wrap=True).print(page, markup=False, highlight=False)

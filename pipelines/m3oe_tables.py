"""What the M3oE paper published, and the page that puts the cells of `m3oe_study.py` beside it."""

import json
from typing import NamedTuple

import numpy as np
from cells import line, text

from tfmtr.evaluation import compare
from tfmtr.evaluation.metrics import OVERALL

OURS = "M3oE"


class Row(NamedTuple):
    """A row of Table 2: what is trained, and what was published, in percent.

    The published figures are the AUC of (domain 1, task 1), (domain 1, task 2), (domain 2, task 1) ... and the
    overall AUC and log loss.
    """

    name: str
    system: str
    setting: str
    movielens: tuple
    kuairand: tuple


TABLE_2 = (
    Row(
        *("MLP", "mlp", "single"),
        (75.02, 76.40, 76.27, 78.66, 73.21, 74.15, 75.62, 51.51),
        (58.42, 51.50, 69.28, 70.07, 61.82, 61.22, 62.05, 44.68),
    ),
    Row(
        *("ShBot-MTL", "shared_bottom", "MTL"),
        (75.36, 76.25, 75.90, 78.40, 72.51, 73.30, 75.28, 56.39),
        (61.33, 56.13, 68.62, 70.67, 63.99, 63.81, 64.09, 53.37),
    ),
    Row(
        *("PLE-MTL", "ple", "MTL"),
        (75.42, 76.23, 75.87, 78.32, 72.73, 72.49, 75.18, 56.49),
        (58.56, 53.48, 68.08, 69.39, 63.63, 63.32, 62.74, 54.05),
    ),
    Row(
        *("MMoE-MTL", "mmoe", "MTL"),
        (75.35, 76.96, 76.58, 78.73, 73.19, 74.63, 75.90, 51.27),
        (62.03, 60.19, 68.81, 70.91, 64.08, 64.32, 65.05, 44.07),
    ),
    Row(
        *("AdaTT", "adatt", "MTL"),
        (72.54, 74.24, 74.12, 73.01, 69.75, 70.25, 72.32, 58.72),
        (61.92, 60.59, 64.86, 67.28, 61.40, 60.65, 62.78, 44.41),
    ),
    Row(
        *("AdaTT-sp", "adatt_sp", "MTL"),
        (72.49, 73.51, 76.04, 77.59, 73.04, 74.26, 74.49, 54.65),
        (60.01, 58.28, 65.75, 68.06, 61.15, 60.35, 62.27, 48.80),
    ),
    Row(
        *("ShBot-MDL", "shared_bottom", "MDL"),
        (75.70, 76.50, 76.58, 78.10, 73.88, 74.76, 75.92, 51.53),
        (64.29, 63.36, 65.83, 67.22, 65.88, 65.47, 65.34, 44.04),
    ),
    Row(
        *("MMoE-MDL", "mmoe", "MDL"),
        (75.77, 76.50, 76.71, 78.37, 73.92, 75.16, 76.08, 51.48),
        (64.33, 63.00, 66.16, 67.39, 65.52, 65.27, 65.28, 44.28),
    ),
    Row(
        *("PLE-MDL", "ple", "MDL"),
        (75.64, 76.19, 76.48, 78.14, 73.73, 74.85, 75.84, 52.00),
        (64.02, 62.68, 66.13, 67.21, 65.62, 65.33, 65.16, 44.14),
    ),
    Row(
        *("STAR", "star", "MDL"),
        (75.89, 76.85, 76.87, 78.47, 73.68, 74.70, 76.08, 51.11),
        (64.12, 62.96, 64.91, 66.32, 65.73, 64.28, 64.72, 44.68),
    ),
    Row(
        *("ShBot-MDMT", "shared_bottom", "MDMT"),
        (75.94, 77.25, 76.56, 78.63, 73.97, 75.21, 76.26, 50.96),
        (63.32, 63.55, 65.80, 68.04, 64.45, 64.89, 65.01, 44.91),
    ),
    Row(
        *("MMoE-MDMT", "mmoe", "MDMT"),
        (76.07, 77.27, 76.86, 78.67, 73.83, 75.41, 76.35, 51.02),
        (63.50, 64.30, 65.70, 67.88, 65.61, 66.10, 65.52, 44.20),
    ),
    Row(
        *("PLE-MDMT", "ple", "MDMT"),
        (75.83, 76.95, 76.04, 78.48, 73.67, 75.09, 75.68, 51.90),
        (61.86, 61.88, 63.57, 66.09, 64.45, 63.47, 64.07, 44.67),
    ),
    Row(
        *("M2M", "m2m", "MDMT"),
        (74.12, 75.35, 75.08, 77.13, 72.11, 73.78, 74.59, 54.14),
        (61.29, 62.25, 60.44, 63.15, 61.75, 61.57, 61.74, 44.55),
    ),
    Row(
        *(OURS, "m3oe", "MDMT"),
        (76.61, 78.13, 77.51, 79.33, 74.47, 76.09, 77.02, 50.71),
        (64.85, 65.89, 66.03, 68.31, 66.21, 66.91, 66.37, 43.76),
    ),
)


class Ablation(NamedTuple):
    """A row of Table 3: M3oE with other options, and its published overall AUC in percent."""

    name: str
    system: str
    options: dict
    movielens: float
    kuairand: float

    setting = "MDMT"


TABLE_3 = (
    Ablation("w/o AutoML", "m3oe_fixed", {"learn_fusion": False}, 76.37, 65.41),
    Ablation("Concat modules", "m3oe_concat", {"fusion": "concat"}, 76.89, 66.08),
    Ablation("Fully gated modules", "m3oe_gated", {"fusion": "gated"}, 76.92, 65.87),
    Ablation("w/o domain module", "m3oe_no_domain", {"domain_module": False}, 76.89, 65.86),
    Ablation("w/o task module", "m3oe_no_task", {"task_module": False}, 76.85, 65.92),
    Ablation("w/o domain&task module", "m3oe_common", {"domain_module": False, "task_module": False}, 76.80, 65.80),
    Ablation(OURS, "m3oe", {}, 77.02, 66.37),
)


def figures(cell):
    """The figures of a cell that the report shows, in percent: `{column: value or None}`.

    Columns are `d1 click` and so on; `overall`, their unweighted mean, and `pooled`; the same of log loss; and the
    overall AUC on test rows of users seen in training (`warm`) and of new ones (`cold`).
    """

    def table(rows, metric):
        return {
            (domain, task): values[metric] for task, by in cell["test"][rows].items() for domain, values in by.items()
        }

    def mean(values, *, pooled=False):
        values = [value for (domain, _), value in values.items() if (domain == OVERALL) == pooled]
        return None if not values or None in values else float(100 * np.mean(values))

    auc, log_loss = table("all", "roc_auc"), table("all", "log_loss")
    tasks = list(cell["test"]["all"])
    domains = [domain for domain in cell["test"]["all"][tasks[0]] if domain != OVERALL]
    columns = {
        f"d{domain} {task}": None if auc[domain, task] is None else 100 * auc[domain, task]
        for domain in domains
        for task in tasks
    }
    return {
        **columns,
        "overall": mean(auc),
        "pooled": mean(auc, pooled=True),
        "log loss": mean(log_loss),
        "pooled log loss": mean(log_loss, pooled=True),
        "warm": mean(table("warm", "roc_auc")),
        "cold": mean(table("cold", "roc_auc")),
    }


def relative_improvement(auc, best):
    """Gain in percent over the best baseline, of what an AUC has above chance; both AUCs in percent.

    >>> round(relative_improvement(76.61, 76.07), 2)
    2.07
    """
    return 100 * ((auc - 50) / (best - 50) - 1)


def report(cells):
    """The page: one table for each data set, protocol and budget of epochs, from the cells that there are."""
    groups = {}
    for cell in cells:
        recipe = cell["recipe"]
        groups.setdefault((cell["dataset"], recipe["protocol"], recipe["max_epochs"]), []).append(cell)
    sections = []
    for key, group in sorted(groups.items()):
        together = [cell for cell in group if "mode" not in cell["recipe"]]
        if together:
            sections.append(section(*key, together))
        if any(cell["recipe"]["system"] in {row.system for row in TABLE_3 if row.name != OURS} for cell in together):
            sections.append(ablations(*key, together))
        if len(together) < len(group):
            sections.append(modes(*key, group))
    return "\n".join(["# Tables 2 and 3 of the M3oE paper\n", LEGEND, *sections])


LEGEND = """AUC and log loss in percent, means over the seeds; `pipelines/m3oe_study.py` has the recipe, the protocols
and the definitions. In brackets: the published figure, and the difference to it. A dagger marks a published overall AUC
that is not the mean of its published cells. Overall is the mean over domains and tasks; pooled is over the rows of all
domains, mean over tasks; warm and cold are the overall AUC for users with and without a training row. Epochs: the one
restored, of each model. In the line RelaImpr the published gain is in brackets.
"""


def section(dataset, protocol, max_epochs, cells):
    """One table."""
    rows = {}
    for row in TABLE_2:
        of_row = [c for c in cells if (c["recipe"]["system"], c["recipe"]["setting"]) == (row.system, row.setting)]
        if of_row:
            rows[row] = sorted(of_row, key=lambda cell: cell["recipe"]["seed"])
    seeds = {row: [figures(cell) for cell in of_row] for row, of_row in rows.items()}
    means = {
        row: {column: compare.mean_and_deviation([values[column] for values in of_row])[0] for column in of_row[0]}
        for row, of_row in seeds.items()
    }
    columns = list(next(iter(means.values())))
    compared = columns[: columns.index("overall") + 1]
    with_published = {column: i for i, column in enumerate([*compared, "log loss"])}
    lines = [line(["model", "setting", *columns, "epochs", "seeds"]), line(["---"] * (len(columns) + 4))]
    for row, values in means.items():
        published = getattr(row, dataset)
        texts = [
            beside(
                values[column], published[with_published[column]], mark=column == "overall" and not adds_up(published)
            )
            if column in with_published
            else text(values[column], ".2f")
            for column in columns
        ]
        epochs = " ".join(str(epoch) for cell in rows[row] for epoch in cell["best_epochs"])
        lines.append(line([row.name, row.setting, *texts, epochs, str(len(rows[row]))]))
    lines += comparison(means, seeds, dataset, compared, len(columns))
    any_cell = cells[0]
    recipes = sorted({json.dumps(common(cell["recipe"])) for cell in cells})
    versions = ", ".join(f"{name} {version}" for name, version in any_cell["versions"].items())
    test_rows = any_cell["test"]["all"]
    task = next(iter(test_rows))
    return "\n".join(
        [
            f"## {dataset}, split by {protocol}, at most {max_epochs} epochs\n",
            f"{test_rows[task][OVERALL]['rows']:,} test rows; data {any_cell['fingerprint'][:12]}; "
            f"recipe {' and '.join(recipes)}; {versions}.\n",
            *lines,
            "",
        ]
    )


def ablations(dataset, protocol, max_epochs, cells):
    """Table 3: overall AUC of M3oE without its parts."""
    lines = [line(["variant", "overall", "difference to M3oE", "published", "seeds"]), line(["---"] * 5)]
    overall = {}
    for cell in cells:
        if cell["recipe"]["setting"] == Ablation.setting:
            overall.setdefault(cell["recipe"]["system"], []).append(figures(cell)["overall"])
    means = {system: compare.mean_and_deviation(values)[0] for system, values in overall.items()}
    whole = TABLE_3[-1]
    for row in TABLE_3:
        if row.system in means:
            published = getattr(row, dataset)
            ours, theirs = means.get(whole.system), getattr(whole, dataset)
            difference = "n/a" if ours is None else f"{means[row.system] - ours:+.2f} ({published - theirs:+.2f})"
            number = str(len(overall[row.system]))
            lines.append(line([row.name, beside(means[row.system], published), difference, f"{published:.2f}", number]))
    return "\n".join(
        [
            f"### Components of M3oE on {dataset}, split by {protocol}, at most {max_epochs} epochs (Table 3)\n",
            *lines,
            "",
        ]
    )


def modes(dataset, protocol, max_epochs, cells):
    """M3oE with its fusion weights trained with the others and in turns, and what they learnt."""
    by_mode = {}
    for cell in cells:
        recipe = cell["recipe"]
        if recipe["system"] == "m3oe" and recipe["setting"] == Ablation.setting:
            by_mode.setdefault(recipe.get("mode", "with all others"), []).append(cell)
    names = sorted(
        {name for of_mode in by_mode.values() for cell in of_mode for name in cell.get("fusion_weights", ())}
    )
    lines = [line(["fusion weights trained", "overall", *names, "seeds"]), line(["---"] * (len(names) + 3))]
    for mode, of_mode in sorted(by_mode.items()):
        mean, deviation = compare.mean_and_deviation([figures(cell)["overall"] for cell in of_mode])
        learnt = []
        for name in names:
            found = [cell["fusion_weights"][name] for cell in of_mode if name in cell.get("fusion_weights", ())]
            learnt.append(" ".join(f"{value:.3f}" for value in np.mean(found, axis=0)) if found else "n/a")
        overall = f"{text(mean, '.2f')} ({text(deviation, '.2f')})"
        lines.append(line([mode, overall, *learnt, str(len(of_mode))]))
    return "\n".join(
        [
            f"### Bi-level optimisation on {dataset}, split by {protocol}, at most {max_epochs} epochs\n",
            "Overall AUC, its deviation over seeds, and the learnt weights of each domain or task, means over seeds; "
            "all start at .5.\n",
            *lines,
            "",
        ]
    )


def comparison(means, seeds, dataset, compared, num_columns):
    """Lines that compare M3oE with the best baseline of each column."""
    baselines = {row: values for row, values in means.items() if row.name != OURS}
    ours = next((row for row in means if row.name == OURS), None)
    if ours is None or not baselines:
        return []
    published = dict(zip(compared, zip(*(getattr(row, dataset) for row in TABLE_2), strict=True), strict=False))
    gains, p_values, names = [], [], []
    for column in compared:
        there = [row for row in baselines if baselines[row][column] is not None]
        if not there or means[ours][column] is None:
            gains.append("n/a")
            names.append("")
            continue
        best = max(there, key=lambda row: baselines[row][column])
        gain = relative_improvement(means[ours][column], baselines[best][column])
        *others, own = published[column]
        gains.append(f"{gain:+.2f} ({relative_improvement(own, max(others)):+.2f})")
        names.append(best.name)
        p_values.append(compare.welch(*([values[column] for values in seeds[row]] for row in (ours, best))))
    blank = [""] * (num_columns - len(compared) + 2)
    lines = [
        line(["best baseline", "", *names, *blank]),
        line(["RelaImpr", "", *gains, *blank]),
    ]
    if p_values and None not in p_values:
        adjusted = [text(value, ".3f") for value in compare.holm(p_values)]
        lines.append(line(["p (Welch, Holm)", "", *adjusted, *[""] * (len(compared) - len(adjusted)), *blank]))
    return lines


def common(recipe):
    """What a recipe shares with those of the other rows."""
    return {key: value for key, value in recipe.items() if key not in ("system", "setting", "seed", "options")}


def adds_up(published):
    """Whether the published overall AUC is the mean of the published cells, but for rounding."""
    *cells, overall, _ = published
    return abs(np.mean(cells) - overall) < 0.02


def beside(value, published, *, mark=False):
    """A figure, the published one and the difference."""
    difference = "" if value is None else f" {value - published:+.2f}"
    return f"{text(value, '.2f')} ({published:.2f}{'†' if mark else ''}{difference})"

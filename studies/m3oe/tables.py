"""The page that puts the cells of `study.py` beside what the M3oE paper published."""

import json

import numpy as np

from studies.cells import p_text, table, text
from studies.m3oe.candidates import READINGS
from studies.m3oe.claims import claims
from studies.m3oe.published import M3OE, TABLE_2, TABLE_3, Ablation
from tfmtr.evaluation import compare
from tfmtr.evaluation.metrics import OVERALL

OURS = "ours"  # the system that `search.py` has found
# Rows that the README has beside Table 2's: name, setting, and the published overall AUC.
BESIDE_TABLE_2 = [("m3oe_code", "MDMT", TABLE_2[-1].movielens[-2]), (OURS, "MDMT", None)]


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


def over_seeds(values):
    """`{column: (mean, deviation)}` of the `figures` of a row's cells."""
    return {column: compare.mean_and_deviation([of_seed[column] for of_seed in values]) for column in values[0]}


def relative_improvement(auc, best):
    """Gain in percent over the best baseline, of what an AUC has above chance; both AUCs in percent.

    >>> round(relative_improvement(76.61, 76.07), 2)
    2.07
    """
    return 100 * ((auc - 50) / (best - 50) - 1)


def report(cells):
    """The tables: one for each data set, protocol and budget, from the cells that there are."""
    groups = {}
    for cell in cells:
        recipe = cell["recipe"]
        groups.setdefault((cell["dataset"], recipe["protocol"], budget(recipe)), []).append(cell)
    sections = []
    for (dataset, protocol, trained), group in sorted(groups.items()):
        where = f"{dataset}, split by {protocol}, {trained}"
        together = [cell for cell in group if "mode" not in cell["recipe"]]
        by_row = {}
        for cell in together:
            by_row.setdefault(row_name(cell), []).append(cell)
        if by_row.keys() & {row.name for row in TABLE_2}:
            sections.append(section(dataset, where, together))
        overall = overall_auc(by_row)
        if overall.keys() & {row.name for row in TABLE_3 if row.name != M3OE}:
            sections.append(ablations(dataset, where, overall))
        if len(together) < len(group):
            sections.append(modes(where, group))
        sections.append(readings(dataset, where, by_row))
        sections.append(others(where, by_row))
        sections.append(differences(where, by_row, overall))
        sections.append(said(dataset, where, overall))
    return "\n".join([LEGEND, *filter(None, sections)])


def part(title, *texts, level=3):
    """A part of the page under its title; a blank line comes after it."""
    return "\n".join([f"{'#' * level} {title}\n", *texts, ""])


def in_short(movielens, kuairand):
    """The README's table: overall AUC of Table 2's rows, of M3oE as its published code has it, and of ours.

    Args:
        movielens: Cells of MovieLens, of one protocol and recipe.
        kuairand: Cells of KuaiRand, of one protocol and recipe.
    """
    columns = ["model", "setting", "MovieLens", "published", "difference", "seeds", "KuaiRand, 14 days"]
    rows = []
    for name, setting, of_paper in [*((row.name, row.setting, row.movielens[-2]) for row in TABLE_2), *BESIDE_TABLE_2]:
        here, there = (
            [figures(cell)["overall"] for cell in cells if row_name(cell) == name] for cells in (movielens, kuairand)
        )
        difference = f"{np.mean(here) - of_paper:+.2f}" if here and of_paper else ""
        published = f"{of_paper:.2f}" if of_paper else ""
        rows.append(
            [name, setting, with_deviation(here), published, difference, str(len(here) or ""), with_deviation(there)]
        )
    return table(columns, rows)


def with_deviation(values):
    """Mean over seeds and, of two or more, its deviation; empty without any."""
    mean, deviation = compare.mean_and_deviation(values)
    return "" if mean is None else text(mean, ".2f") + (f" ({deviation:.2f})" if deviation is not None else "")


def of_systems(cells):
    """`{system: mean overall AUC}` of cells of one protocol and recipe; in MDMT, or in the setting nearest to it."""
    values = {}
    for cell in cells:
        system, setting = cell["recipe"]["system"], cell["recipe"]["setting"]
        values.setdefault(system, {}).setdefault(setting, []).append(figures(cell)["overall"])
    joint_first = ("MDMT", "MDL", "MTL", "single")
    return {
        system: float(np.mean(next(by_setting[setting] for setting in joint_first if setting in by_setting)))
        for system, by_setting in values.items()
    }


def budget(recipe):
    """How long each model of a recipe was trained at most, and its L2."""
    l2 = f", L2 of {recipe['l2']:g}" if "l2" in recipe else ""
    return f"at most {recipe['max_updates']} updates a model{l2}"


def row_name(cell):
    """Name of a cell's row in Table 2 or 3, or its system's."""
    names = {(row.system, row.setting): row.name for row in (*TABLE_2, *TABLE_3)}
    return names.get((cell["recipe"]["system"], cell["recipe"]["setting"]), cell["recipe"]["system"])


def readings(dataset, where, by_row):
    """M3oE by the paper's equations and by its published code, beside the figures published for it."""
    names = [name for name in (M3OE, *READINGS) if name in by_row]
    if not by_row.keys() & READINGS.keys():
        return None
    published = getattr(TABLE_2[-1], dataset)
    rows = []
    for name in names:
        cells = by_row[name]
        statistics = over_seeds([figures(cell) for cell in cells])
        columns = list(statistics)
        columns = columns[: columns.index("overall") + 1]
        texts = [beside(statistics[column][0], published[i]) for i, column in enumerate(columns)]
        learnt = np.mean([np.concatenate(list(cell["fusion_weights"].values())) for cell in cells], axis=0)
        weights = f"{learnt.min():.2f} to {learnt.max():.2f}"
        rows.append([name, *texts, text(statistics["overall"][1], ".2f"), weights, str(len(cells))])
    title = f"M3oE as the paper and as its published code have it, on {where}"
    return part(title, table(["reading", *columns, "std", "fusion weights", "seeds"], rows))


def others(where, by_row):
    """The rows that the paper's tables do not have."""
    rows = []
    for name in sorted(by_row.keys() - READINGS.keys() - {row.name for row in (*TABLE_2, *TABLE_3)}):
        statistics = over_seeds([figures(cell) for cell in by_row[name]])
        cells = [statistics[column] for column in ("overall", "pooled", "warm", "cold")]
        texts = [f"{text(mean, '.2f')} {text(deviation, '.2f')}" for mean, deviation in cells]
        rows.append([name, *texts, str(len(by_row[name]))])
    if not rows:
        return None
    columns = ["system", "overall ± std", "pooled ± std", "warm ± std", "cold ± std", "seeds"]
    return part(f"Systems that the paper's tables do not have, on {where}", table(columns, rows))


def differences(where, by_row, overall):
    """M3oE and the package's own choice against every row: overall AUC, over seeds and over test users."""
    rows = []
    for one in (OURS, M3OE):
        for other in overall:
            if other not in (OURS, one) and one in overall:
                values = [overall[one], overall[other]]
                (mean, deviation), (others_mean, others_deviation) = map(compare.mean_and_deviation, values)
                low, high = user_interval(by_row[one], by_row[other])
                rows.append(
                    [
                        f"{one} over {other}",
                        f"{text(mean, '.2f')} {text(deviation, '.2f')}",
                        f"{text(others_mean, '.2f')} {text(others_deviation, '.2f')}",
                        f"{mean - others_mean:+.2f}",
                        f"{text(low, '+.2f')} to {text(high, '+.2f')}",
                        p_text(compare.welch(*values)),
                        f"{len(values[0])} and {len(values[1])}",
                    ]
                )
    if not rows:
        return None
    columns = ["pair", "AUC ± std", "other's ± std", "difference", "95 % over test users", "p (Welch, seeds)", "seeds"]
    return part(f"Differences of overall AUC on {where}", table(columns, rows))


def overall_auc(by_row):
    """Each row's overall AUC by cell, in percent; rows of which a cell has none are left out."""
    overall = {row: [figures(cell)["overall"] for cell in cells] for row, cells in by_row.items()}
    return {row: values for row, values in overall.items() if None not in values}


def user_interval(cells, others):
    """95 % interval of the difference of two rows' mean overall AUC over test users, in percent, or two `None`."""
    if not all("bootstrap" in cell for cell in (*cells, *others)):
        return None, None
    one, other = (np.mean([np.asarray(cell["bootstrap"], float) for cell in row], axis=0) for row in (cells, others))
    samples = 100 * (one - other)
    return compare.percentile_interval(samples[~np.isnan(samples)])


def tried(documents):
    """Every candidate of the search for a better system, best first; empty if there is none."""
    if not documents:
        return ""
    best_first = sorted(documents, key=lambda document: -document["val_auc"])
    columns = ["candidate", "validation AUC", "updates at most", "epochs", "parameters"]
    rows = [
        [
            *(document["candidate"], f"{100 * document['val_auc']:.2f}", str(document["recipe"]["max_updates"])),
            *(str(len(document["history"]["loss"])), f"{document['parameters']:,}"),
        ]
        for document in best_first
    ]
    note = (
        f"All {len(rows)} that were tried, by `search.py` on validation rows only, one seed each, with the recipe "
        "of all. The first one is `ours` above.\n"
    )
    return part("Looking for a better system", note, table(columns, rows), level=2)


def said(dataset, where, overall):
    """The paper's sentences about its tables, held against them and against the cells."""
    tables = claims(dataset, overall)
    if not tables:
        return None
    note = (
        "Numbers of pairs of rows whose overall AUC is in the order that the sentence says, in the published table and "
        "here; significant at 5 % by Welch's test over seeds with Holm's correction over all pairs.\n"
    )
    return part(f"What sections 3.4 and 3.6 say, on {where}", note, tables)


LEGEND = """AUC and log loss in percent, means over the seeds; `studies/m3oe/study.py` has the recipe, the protocols
and the definitions. In brackets: the published figure, and the difference to it. A dagger marks a published overall AUC
that is not the mean of its published cells. Overall is the mean over domains and tasks; pooled is over the rows of all
domains, mean over tasks; warm and cold are the overall AUC for users with and without a training row. Std: deviation of
the overall AUC over seeds. Epochs: the one restored, of each model. In the line RelaImpr the published gain is in
brackets.
"""


def section(dataset, where, cells):
    """One table."""
    rows = {}
    for row in TABLE_2:
        of_row = [c for c in cells if (c["recipe"]["system"], c["recipe"]["setting"]) == (row.system, row.setting)]
        if of_row:
            rows[row] = sorted(of_row, key=lambda cell: cell["recipe"]["seed"])
    seeds = {row: [figures(cell) for cell in of_row] for row, of_row in rows.items()}
    statistics = {row: over_seeds(of_row) for row, of_row in seeds.items()}
    means = {row: {column: mean for column, (mean, _) in of_row.items()} for row, of_row in statistics.items()}
    columns = list(next(iter(means.values())))
    compared = columns[: columns.index("overall") + 1]
    with_published = {column: i for i, column in enumerate([*compared, "log loss"])}
    table_rows = []
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
        _, deviation = statistics[row]["overall"]
        table_rows.append([row.name, row.setting, *texts, text(deviation, ".2f"), epochs, str(len(rows[row]))])
    table_rows += comparison(means, seeds, dataset, compared, len(columns))
    any_cell = cells[0]
    recipes = sorted({json.dumps(common(cell["recipe"])) for cell in cells})
    versions = ", ".join(f"{name} {version}" for name, version in any_cell["versions"].items())
    test_rows = any_cell["test"]["all"]
    task = next(iter(test_rows))
    hours = sum(cell["seconds"] for cell in cells) / 3600
    facts = (
        f"{test_rows[task][OVERALL]['rows']:,} test rows; data {any_cell['fingerprint'][:12]}; "
        f"recipe {' and '.join(recipes)}; {versions}; {len(cells)} cells, {hours:.1f} hours.\n"
    )
    tables = table(["model", "setting", *columns, "std", "epochs", "seeds"], table_rows)
    return part(where, facts, tables, level=2)


def ablations(dataset, where, overall):
    """Table 3: overall AUC of M3oE without its parts."""
    rows = []
    statistics = {name: compare.mean_and_deviation(values) for name, values in overall.items()}
    whole = TABLE_3[-1]
    for row in TABLE_3:
        if row.name in statistics:
            (mean, deviation), published = statistics[row.name], getattr(row, dataset)
            difference = p = ""
            if row is not whole and whole.name in statistics:
                gain = mean - statistics[whole.name][0]
                difference = f"{gain:+.2f} ({published - getattr(whole, dataset):+.2f})"
                p = p_text(compare.welch(overall[row.name], overall[whole.name]))
            number = str(len(overall[row.name]))
            rows.append([row.name, beside(mean, published), text(deviation, ".2f"), difference, p, number])
    columns = ["variant", "overall", "std", "difference to M3oE", "p (Welch)", "seeds"]
    return part(f"Components of M3oE on {where} (Table 3)", table(columns, rows))


def modes(where, cells):
    """M3oE with its fusion weights trained with the others and in turns, and what they learnt."""
    by_mode = {}
    for cell in cells:
        recipe = cell["recipe"]
        if recipe["system"] == "m3oe" and recipe["setting"] == Ablation.setting:
            by_mode.setdefault(recipe.get("mode", "with all others"), []).append(cell)
    names = sorted(
        {name for of_mode in by_mode.values() for cell in of_mode for name in cell.get("fusion_weights", ())}
    )
    rows = []
    for mode, of_mode in sorted(by_mode.items()):
        learnt = []
        for name in names:
            found = [cell["fusion_weights"][name] for cell in of_mode if name in cell.get("fusion_weights", ())]
            learnt.append(" ".join(f"{value:.3f}" for value in np.mean(found, axis=0)) if found else "n/a")
        overall = with_deviation([figures(cell)["overall"] for cell in of_mode])
        rows.append([mode, overall, *learnt, str(len(of_mode))])
    note = (
        "Overall AUC, its deviation over seeds, and the learnt weights of each domain or task, means over seeds; "
        "all start at .5.\n"
    )
    tables = table(["fusion weights trained", "overall", *names, "seeds"], rows)
    return part(f"Bi-level optimisation on {where}", note, tables)


def comparison(means, seeds, dataset, compared, num_columns):
    """Rows that compare M3oE with the best baseline of each column."""
    baselines = {row: values for row, values in means.items() if row.name != M3OE}
    ours = next((row for row in means if row.name == M3OE), None)
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
    blank = [""] * (num_columns - len(compared) + 3)
    rows = [["best baseline", "", *names, *blank], ["RelaImpr", "", *gains, *blank]]
    if p_values and None not in p_values:
        adjusted = [text(value, ".3f") for value in compare.holm(p_values)]
        rows.append(["p (Welch, Holm)", "", *adjusted, *[""] * (len(compared) - len(adjusted)), *blank])
    return rows


def common(recipe):
    """What a recipe shares with those of the other rows."""
    own = ("system", "setting", "seed", "options", "beside", "adam")
    return {key: value for key, value in recipe.items() if key not in own}


def adds_up(published):
    """Whether the published overall AUC is the mean of the published cells, but for rounding."""
    *cells, overall, _ = published
    return abs(np.mean(cells) - overall) < 0.02


def beside(value, published, *, mark=False):
    """A figure, the published one and the difference."""
    difference = "" if value is None else f" {value - published:+.2f}"
    return f"{text(value, '.2f')} ({published:.2f}{'†' if mark else ''}{difference})"

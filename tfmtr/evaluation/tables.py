"""Terminal tables of metrics and data statistics; the caller prints them."""

import textwrap

from rich import box
from rich.table import Table
from rich.text import Text

from tfmtr.evaluation.compare import check_same_rows, mean_and_deviation, relative_gain
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.schema import check_choice

# With these, three models and two gains fit 100 columns. Text is broken here, between words where possible,
# because rich would take the missing width from the names until nothing is left of them.
NAME_WIDTH = 14
NUMBER_WIDTH = 10
FALLBACKS = {
    "cold_user": "A cold user: what is popular in the territory.",
    "default_branch": "No group has the user's territory: the default branch.",
    "unknown_territory": "The catalogue does not know the territory: what most of the others have.",
}


def pr_auc_table(results, *, baseline=None):
    """PR-AUC of several models per territory, with prevalence and relative gains, as means over test windows.

    Territories are sorted by their positives over all windows, most first; the pooled row comes last.
    Windows that are n/a are left out of a mean; what is n/a in every window is dim. In 100 columns there
    is room for three models and two gains.

    Args:
        results: `{model: {window: {slice: cell}}}` with the cells of `evaluate_task` for a binary task,
            all on the same rows. The gains are those of the last model.
        baseline: Name of the model, or list of names, that the last model is compared with; by default
            all the others.

    Returns:
        `rich.table.Table`.

    Raises:
        ValueError: If a baseline is no other model of `results`, or the models were not evaluated on the
            same rows.

    Example:
    >>> from rich.console import Console
    >>> cells = [{"pr_auc": pr_auc, "prevalence": 0.1, "rows": 900, "positives": 90} for pr_auc in (0.2, 0.25)]
    >>> table = pr_auc_table({"none": {1: {"overall": cells[0]}}, "branches": {1: {"overall": cells[1]}}})
    >>> Console(width=100).print(table)
                                      PR-AUC    PR-AUC  gain over
    territory  positives  prevalence    none  branches       none
    ─────────────────────────────────────────────────────────────
    overall           90       10.0%  0.2000    0.2500     +25.0%
    Means over the test windows 1; positives are their sum.
    """
    *others, model = results
    baselines = others if baseline is None else [baseline] if isinstance(baseline, str) else list(baseline)
    for name in baselines:
        check_choice("baseline", name, others)
    for name in others:
        check_same_rows(results[model], results[name])
    gains = [relative_gain(results[model], results[name])["average"] for name in baselines]
    windows = {name: list(result.values()) for name, result in results.items()}
    positives = {}
    for cells in windows[model]:
        for name, cell in cells.items():
            positives[name] = positives.get(name, 0) + cell["positives"]

    table = _table(f"Means over the test windows {', '.join(map(str, results[model]))}; positives are their sum.")
    table.add_column("territory", vertical="bottom", no_wrap=True)
    for header in ("positives", "prevalence", *(f"PR-AUC {name}" for name in results)):
        _add_number_column(table, header)
    for name in baselines:
        _add_number_column(table, f"gain over {name}")
    for name in sorted(positives, key=lambda name: (name == OVERALL, -positives[name], name)):
        if name == OVERALL:
            table.add_section()
        table.add_row(
            Text(textwrap.fill(name, NAME_WIDTH)),
            f"{positives[name]:,}",
            _number(_mean(windows[model], name, "prevalence"), "{:.1%}"),
            *(_number(_mean(windows[other], name, "pr_auc"), "{:.4f}") for other in results),
            *(_number(gain[name], "{:+.1f}%") for gain in gains),
        )
    return table


def statistics_table(report):
    """Users, events and positives of a prepared data set per territory, most positives first, and their sum.

    Args:
        report: The document `prepare.json`, with `report["statistics"]["territories"]` =
            `{territory: {"group": text, "users": int, "events": int, "positives": int}}`.

    Returns:
        `rich.table.Table`.

    Raises:
        ValueError: If the report has no statistics of territories.

    Example:
    >>> cells = {"DE": {"group": "west", "users": 10, "events": 90, "positives": 30}}
    >>> statistics_table({"statistics": {"territories": cells}}).row_count
    2
    """
    territories = report.get("statistics", {}).get("territories")
    if not territories:
        raise ValueError(
            '`report` must have report["statistics"]["territories"], as `tfmtr prepare` writes it; run it again. '
            f"Received: keys {sorted(report)}"
        )
    counts = ("users", "events", "positives")
    total = {count: sum(row[count] for row in territories.values()) for count in counts}

    table = _table()
    table.add_column("territory", vertical="bottom")
    table.add_column("group", vertical="bottom")
    for header in (*counts, "share of positives"):
        _add_number_column(table, header)
    ranked = sorted(territories.items(), key=lambda item: (-item[1]["positives"], item[0]))
    for name, row in [*ranked, (OVERALL, {"group": "", **total})]:
        if name == OVERALL:
            table.add_section()
        share = row["positives"] / total["positives"] if total["positives"] else None
        table.add_row(
            Text(name), Text(row["group"] or ""), *(f"{row[count]:,}" for count in counts), _number(share, "{:.1%}")
        )
    return table


def calibration_table(document):
    """Expected calibration errors before and after, all rows first, then the groups with the most rows.

    Args:
        document: What `tfmtr.calibration.calibrate` returns.

    Returns:
        `rich.table.Table`.

    Example:
    >>> document = {"by": "territory", "method": "platt", "maps": {"click": {}}}
    >>> document["error"] = {"click": {"": {"rows": 50, "before": 0.2, "after": 0.01}}}
    >>> calibration_table(document).row_count
    1
    """
    table = _table("After: each half of the validation users by maps of the other half.")
    table.title = Text(f"Expected calibration error, {document['method']} by {document['by']}")
    for name in ("task", document["by"], "map"):
        table.add_column(name)
    for name in ("rows", "before", "after"):
        _add_number_column(table, name)
    for task, groups in document["error"].items():
        for group, cell in sorted(groups.items(), key=lambda item: (item[0] != "", -item[1]["rows"])):
            own = "own" if group in document["maps"][task] else "of all"
            figures = (f"{cell['rows']:,}", f"{cell['before']:.4f}", f"{cell['after']:.4f}")
            table.add_row(task, Text(group or "all"), own if group else "", *figures)
    return table


def recommendation_table(user, answer):
    """One user's recommendations, best first.

    Args:
        user: The user's id.
        answer: What `tfmtr.serving.recommend.recommend` returns.

    Returns:
        `rich.table.Table`.

    Example:
    >>> titles = [{"title": "7", "name": "Heat (1995)", "score": 1.5}]
    >>> recommendation_table("42", {"territory": "DE", "is_known": True, "fallback": [], "titles": titles}).row_count
    1
    """
    notes = [] if answer["is_known"] else ["Not in the users table."]
    notes += [FALLBACKS[name] for name in answer["fallback"]]
    table = _table(" ".join(notes) or None)
    table.title = Text(f"Titles for user {user} in {answer['territory']}")
    _add_number_column(table, "rank")
    table.add_column("title")
    table.add_column("name")
    _add_number_column(table, "score")
    for rank, row in enumerate(answer["titles"], start=1):
        table.add_row(str(rank), Text(row["title"]), Text(row["name"] or ""), f"{row['score']:.4f}")
    return table


def _table(caption=None):
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption=caption,
        caption_justify="left",
    )


def _add_number_column(table, header):
    table.add_column(Text(textwrap.fill(header, NUMBER_WIDTH)), justify="right", vertical="bottom", no_wrap=True)


def _mean(windows, name, metric):
    return mean_and_deviation([cells[name][metric] for cells in windows if name in cells])[0]


def _number(value, template):
    return Text("n/a", style="dim") if value is None else Text(template.format(value))

"""Terminal tables of metrics and data statistics, whole at any width; the caller prints them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from tfmtr.checks import check_choice
from tfmtr.datasets.funnel import FATES, NO_EXAMPLES, NO_TIMES, STAGES, stages
from tfmtr.datasets.report import counted
from tfmtr.evaluation.compare import check_same_rows, mean_and_deviation, relative_gain
from tfmtr.evaluation.evidence import LEAST_USERS, short_interval
from tfmtr.evaluation.fitting_table import FittingTable
from tfmtr.evaluation.list_scores import FIRST_STAGE, MODEL
from tfmtr.evaluation.metrics import OVERALL, Windows
from tfmtr.evaluation.ranking import mean_over_lists
from tfmtr.evaluation.splits import shown

FALLBACKS = {
    "cold_user": "A cold user: what is popular in the territory.",
    "default_branch": "No group has the scenario, such as the user's territory: the default branch.",
    "no_history": "No history of the user: the seen titles stand for it.",
    "unknown_context": "A category of the context is not known, or not given: the model's place for unknown ones.",
    "unknown_territory": "The catalogue does not know the territory: what most of the others have.",
}


def pr_auc_table(
    results: Mapping[str, Windows], *, baseline: str | Sequence[str] | None = None, column: str = "territory"
) -> FittingTable:
    """PR-AUC of several models per territory (or other slice), with prevalence and gains, as means over test windows.

    Territories are sorted by their positives over all windows, most first; the pooled row comes last.
    Windows that are n/a are left out of a mean; what is n/a in every window is dim.

    Args:
        results: `{model: {window: {slice: cell}}}` with the cells of `evaluate_task` for a binary task,
            all on the same rows. The gains are those of the last model.
        baseline: Name of the model, or list of names, that the last model is compared with; by default
            all the others.
        column: What the slices are of.

    Returns:
        A `FittingTable`.

    Raises:
        ValueError: If a baseline is no other model of `results`, or the models were not evaluated on the
            same rows.

    Example:
    >>> from rich.console import Console
    >>> cells = [{"pr_auc": pr_auc, "prevalence": 0.1, "rows": 900, "positives": 90} for pr_auc in (0.2, 0.25)]
    >>> table = pr_auc_table({"none": {1: {"overall": cells[0]}}, "branches": {1: {"overall": cells[1]}}})
    >>> Console(width=80).print(table)
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

    windows_text = ", ".join(map(str, results[model]))
    table = FittingTable(caption=f"Means over the test windows {windows_text}; positives are their sum.")
    table.add(column)
    for header in ("positives", "prevalence", *(f"PR-AUC {name}" for name in results)):
        table.add(header, is_number=True)
    for name in baselines:
        table.add(f"gain over {name}", is_number=True)
    for name in sorted(positives, key=lambda name: (name == OVERALL, -positives[name], name)):
        if name == OVERALL:
            table.add_section()
        table.add_row(
            shown(name),
            f"{positives[name]:,}",
            _number(_mean(windows[model], name, "prevalence"), "{:.1%}"),
            *(_number(_mean(windows[other], name, "pr_auc"), "{:.4f}") for other in results),
            *(_number(gain[name], "{:+.1f}%") for gain in gains),
        )
    return table


def lists_table(
    results: Mapping[str, Mapping[str, Any]], between: Mapping[str, Mapping[str, Any]] | None = None
) -> FittingTable:
    """What the lists of models and baselines are worth, the best one first, and the last model's ratio to each.

    Args:
        results: `{model: document of tfmtr.evaluation.evaluate.evaluate}`; baselines are those of the last model.
        between: `{model: result of compare_lists}` of the other models.

    Returns:
        A `FittingTable`; figures are means over all lists, whatever their window, as those of the ratios are.

    Example:
    >>> cell = {"ndcg": 0.5, "recall": 0.4, "capped_recall": 0.5, "hit_rate": 0.8, "lists": 30, "users": 30}
    >>> result = {"k": 10, "lists": {"ranking": {"1": {}}}, "means": {"new": {"model": cell}}}
    >>> lists_table({"branches": {**result, "baselines": None, "left_out": {}}}).row_count
    1
    """
    *_, last = results
    document, between = results[last], between or {}
    baselines, among = document.get("baselines") or {}, document.get("ranked_among")
    rows = {
        name: (*_beside(result, MODEL), result.get("among", {}), between.get(name)) for name, result in results.items()
    }
    if first := document.get("first_stage"):
        rows[FIRST_STAGE] = (*_beside(document, FIRST_STAGE), {}, first["compared"])
    compared = baselines.get("compared", {})
    for name in baselines.get("ranking", {}):
        shown = f"{name} *" if name == baselines["best"] and baselines["validation"]["user_windows"] else name
        rows[shown] = (*_beside(document, name), baselines.get("among", {}).get(name, {}), compared.get(name))

    table = FittingTable(
        title=f"Lists of {document['k']} titles that the user did not have before the window",
        caption=_lists_caption(document, baselines),
    )
    table.add("lists of")
    for header in ("NDCG", f"{last} / this", "95 % interval", "detectable ratio", "recall"):
        table.add(header, is_number=True)
    headers = [f"hit rate among {among}", f"NDCG among {among}"] if among else []
    for header in ("recall over min(n, k)", "hit rate", "NDCG, repeats allowed", *headers):
        table.add(header, is_number=True)

    order = {name: new.get("ndcg") for name, (new, *_) in rows.items()}
    for name in sorted(rows, key=lambda name: (order[name] is None, -(order[name] or 0.0))):
        new, repeats, ranked, ratio = rows[name]
        ratio = ratio or dict.fromkeys(("ratio", "low", "high", "detectable"))
        interval = None if ratio["low"] is None else short_interval(ratio)
        table.add_row(
            Text(name, style="bold") if name in results else name,
            _number(order[name], "{:.4f}"),
            *([""] * 3 if name == last else (
                _number(ratio["ratio"], "{:.3f}"), _number(interval, "{}"), _number(ratio["detectable"], "{:.3f}")
            )),
            *(_number(new.get(metric), "{:.4f}") for metric in ("recall", "capped_recall", "hit_rate")),
            _number(repeats.get("ndcg"), "{:.4f}"),
            *(_number(mean_over_lists(ranked, kind), "{:.4f}") for kind in ("hit_rate", "ndcg") if among),
        )  # fmt: skip
    return table


def _beside(document: Mapping[str, Any], name: str) -> tuple[dict[str, Any], ...]:
    """Means of the lists of a contender, without what users had before and with it."""
    return tuple(document.get("means", {}).get(kind, {}).get(name, {}) for kind in ("new", "repeats"))


def _lists_caption(document: Mapping[str, Any], baselines: Mapping[str, Any]) -> str:
    """What the lists are of, which baseline was chosen, and which ones are missing."""
    means = document.get("means", {}).get("new", {}).get(MODEL)
    if not means:
        return "There are no lists: no test users, a model without an index, or data that do not tell what users had."
    windows = len(document["lists"]["ranking"])
    few = "" if means["users"] >= LEAST_USERS else ", too few for figures"
    lists = f"{means['lists']:,} lists of {means['users']:,} users in {counted(windows, 'test windows')}"
    texts = [f"{lists}{few}."]
    if not document.get("times", True):
        texts.append(NO_TIMES)
    if first := document.get("first_stage"):
        by = f"chosen by {first['weight']['lists']:,} lists of validation users"
        by = by if first["weight"]["tries"] else "not chosen: too few validation users have a list"
        texts.append(f"The first stage's score counts {first['weight']['weight']:g} times ({by}).")
    if left := sum(row["users"] for row in document.get("left_out", {}).values()):
        texts.append(f"{left:,} users had all their positives before and are in none.")
    if baselines.get("best") and not baselines["validation"]["user_windows"]:
        texts.append("Baselines are not tuned: no validation user has a list.")
    elif baselines.get("best"):
        texts.append(f"* The best baseline by {baselines['validation']['user_windows']:,} lists of validation users.")
    texts += [f"{row['reason']}." for row in baselines.get("tuned", {}).values() if row["reason"]]
    return " ".join(texts)


def segments_table(results: Mapping[str, Mapping[str, Any]]) -> FittingTable:
    """Lists of new and known users, and how often new and known titles that were wanted are in a list.

    Args:
        results: `{model: document of evaluate}`; baselines are those of the last model.

    Returns:
        A `FittingTable`, without rows where there are no lists.

    Example:
    >>> kinds = {kind: {"ndcg": 0.5, "user_windows": 3} for kind in ("new users", "known users")}
    >>> kinds |= {kind: {"recall": 0.5, "positives": 3} for kind in ("new titles", "known titles")}
    >>> segments_table({"branches": {"k": 10, "segments": {"model": kinds, "ease": kinds}}}).row_count
    2
    """
    *_, last = results
    rows = {name: (result.get("segments") or {}).get("model") for name, result in results.items()}
    rows |= {name: cells for name, cells in (results[last].get("segments") or {}).items() if name != "model"}
    rows = {name: cells for name, cells in rows.items() if cells}
    table = FittingTable(title="New and known users (NDCG of their lists) and titles (share of positives in a list)")
    table.add("lists of")
    kinds = {"new users": "ndcg", "known users": "ndcg", "new titles": "recall", "known titles": "recall"}
    counts = next(iter(rows.values()), {})
    for kind, metric in kinds.items():
        count = counts[kind]["user_windows" if metric == "ndcg" else "positives"] if counts else 0
        table.add(f"{count:,} {kind}" if metric == "ndcg" else f"{count:,} of {kind}", is_number=True)
    for name, cells in rows.items():
        figures = (_number(cells[kind][metric], "{:.4f}") for kind, metric in kinds.items())
        table.add_row(Text(name, style="bold") if name in results else name, *figures)
    return table


def statistics_table(report: Mapping[str, Any]) -> FittingTable:
    """Users, events and positives of a prepared data set per territory, most positives first, and their sum.

    Args:
        report: The document `prepare.json`, with `report["statistics"]["territories"]` =
            `{territory: {"group": text, "users": int, "events": int, "positives": int}}`.

    Returns:
        A `FittingTable`.

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

    table = FittingTable(caption=_without_times(report))
    table.add("territory")
    table.add("group")
    for header in (*counts, "share of positives"):
        table.add(header, is_number=True)
    ranked = sorted(territories.items(), key=lambda item: (-item[1]["positives"], item[0]))
    for name, row in [*ranked, (OVERALL, {"group": "", **total})]:
        if name == OVERALL:
            table.add_section()
        share = row["positives"] / total["positives"] if total["positives"] else None
        table.add_row(name, row["group"] or "", *(f"{row[count]:,}" for count in counts), _number(share, "{:.1%}"))
    return table


def funnel_table(report: Mapping[str, Any]) -> FittingTable:
    """What became of the rows of a prepared log, over all windows: from the log to the positives of each split.

    A row that begins with - is what is lost on the way to the next stage, and why.

    Args:
        report: The document `prepare.json`.

    Returns:
        A `FittingTable`.

    Example:
    >>> window = {"window": 0, "rows": 4, **dict.fromkeys(FATES, 0), "positives": 3, "later": 1}
    >>> table = funnel_table({"funnel": [window]})
    >>> table.row_count
    4
    """
    table = FittingTable(caption=_without_times(report))
    table.add("rows of the log")
    table.add("rows", is_number=True)
    table.add("share", is_number=True)
    first, *later_stages = stages(report["funnel"])

    def add(text: str, count: int) -> None:
        table.add_row(text, f"{count:,}", _number(count / first["rows"], "{:.1%}"))

    splits = report.get("splits", [])
    table.add_row("all", f"{first['rows']:,}", "")
    for stage in later_stages:
        lost = [(fate, count) for fate, count in stage["lost"].items() if count]
        for fate, count in lost:
            reasons = {name: sum(row[name] for row in splits) for name in NO_EXAMPLES} if fate == "no_examples" else {}
            if sum(reasons.values()) != count:
                reasons = {fate: count}
            for name, part in reasons.items():
                if part:
                    add(f"- {(FATES | NO_EXAMPLES)[name]}", part)
        if lost or stage["stage"] == "positives":
            add(STAGES[stage["stage"]][0], stage["rows"])
    for row in splits:
        if row["positives"]:
            windows = "" if row["windows"] == "training" or row["split"] == "test" else ", in the test windows"
            sampling = f", {row['sampling']} users" if row["split"] == "train" else ""
            add(f"  {row['split']}{sampling}{windows}", row["positives"])
    return table


def calibration_table(document: Mapping[str, Any]) -> FittingTable:
    """Expected calibration errors before and after, all rows first, then the groups with the most rows.

    Where the model's own probabilities are served, the map is `none` and the table says why; the last row of a task is
    what groups get that no validation row is of.

    Args:
        document: What `tfmtr.calibration.calibrate` returns.

    Returns:
        A `FittingTable`.

    Example:
    >>> document = {"by": "territory", "method": "platt", "maps": {"click": {}}}
    >>> document["error"] = {"click": {"": {"rows": 50, "before": 0.2, "after": 0.01}}}
    >>> calibration_table(document).row_count
    1
    """
    table = FittingTable(
        num_keys=2,
        title=f"Expected calibration error, {document['method']} by {document['by']}",
        caption="After: as served, each half of the validation users by maps of the other half.",
    )
    for name in ("task", document["by"], "map"):
        table.add(name)
    for name in ("rows", "before", "after"):
        table.add(name, is_number=True)
    table.add("why none")
    for task, groups in document["error"].items():
        for group, cell in sorted(groups.items(), key=lambda item: (item[0] != "", -item[1]["rows"])):
            # Earlier versions wrote no `map` and gave every group one.
            kind = cell.get("map", "own" if group in document["maps"][task] else "of all")
            figures = (f"{cell['rows']:,}", f"{cell['before']:.4f}", f"{cell['after']:.4f}")
            table.add_row(task, group or "all", _map_name(kind) if group else "", *figures, cell.get("why") or "")
        if unknown := document.get("unknown", {}).get(task):
            table.add_row(task, "unknown ones", _map_name(unknown["map"]), "", "", "", unknown["why"] or "")
    return table


def _map_name(kind: str) -> str:
    return "none" if kind == "identity" else kind


def recommendation_table(user: str, answer: Mapping[str, Any]) -> FittingTable:
    """One user's recommendations, best first.

    Args:
        user: The user's id.
        answer: What `tfmtr.serving.recommendations.recommend` returns.

    Returns:
        A `FittingTable`.

    Example:
    >>> titles = [{"title": "7", "name": "Heat (1995)", "score": 1.5}]
    >>> recommendation_table("42", {"territory": "DE", "is_known": True, "fallback": [], "titles": titles}).row_count
    1
    """
    notes = [] if answer["is_known"] else ["Not in the users table."]
    notes += [FALLBACKS[name] for name in answer["fallback"]]
    table = FittingTable(title=f"Titles for user {user} in {answer['territory']}", caption=" ".join(notes) or None)
    table.add("rank", is_number=True)
    table.add("title")
    table.add("name")
    table.add("score", is_number=True)
    for rank, row in enumerate(answer["titles"], start=1):
        table.add_row(str(rank), row["title"], row["name"] or "", f"{row['score']:.4f}")
    return table


def _mean(windows: Iterable[Mapping[str, Mapping[str, Any]]], name: str, metric: str) -> float | None:
    return mean_and_deviation([cells[name][metric] for cells in windows if name in cells])[0]


def _without_times(report: Mapping[str, Any]) -> str | None:
    """What a table says below if the log has no times, or `None`."""
    return NO_TIMES if report.get("times") is False else None


def _number(value: float | str | None, template: str) -> Text:
    return Text("n/a", style="dim") if value is None else Text(template.format(value))

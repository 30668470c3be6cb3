"""The terminal's table of lists by task and scenario."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from tfmtr.evaluation.evidence import short_interval
from tfmtr.evaluation.fitting_table import FittingTable
from tfmtr.evaluation.list_scores import MODEL
from tfmtr.evaluation.stage_gains import (
    ALL,
    BEST,
    SHOWN,
    best_of,
    gain_rows,
    has_figures,
    split_of,
    steps,
    verdict,
    without_figures,
)


def tasks_table(name: str, document: Mapping[str, Any]) -> FittingTable:
    """What the lists are worth to each task, pooled and by scenario, and what each stage gains.

    Args:
        name: The model's.
        document: What `tfmtr.evaluation.evaluate.evaluate` wrote.

    Returns:
        A `FittingTable`, without rows where there are no lists.

    Example:
    >>> cell = {"lists": 40, "users": 40, "reason": None, "compared": {}, "first_stage": {}}
    >>> cell["means"] = {"model": {"ndcg": 0.5, "recall": 0.4, "mrr": 0.3}}
    >>> document = {"k": 10, "by_task": {"click": {"overall": {"overall": cell}, "tab": {"home": cell}}}}
    >>> tasks_table("branches", {**document, "scenario_split": "tab", "baselines": None}).row_count
    2
    """
    split, rows = split_of(document), list(gain_rows(document))
    names = {MODEL: name, BEST: best_of(document) or ""}
    texts = ["A positive counts in its own scenario, and a list is made for it.", "An interval with 1 shows nothing."]
    if any(step.theirs == BEST for step in steps(document)):
        texts.append(f"The best baseline is {names[BEST]}, whatever the task.")
    texts += [f"{text}." for text in without_figures(rows, split)]
    table = FittingTable(
        num_keys=2, title=f"Lists of {document['k']} titles by task and {split}", caption=" ".join(texts)
    )
    table.add("task")
    table.add(split)
    for header in ("lists", "NDCG", "recall", "MRR"):
        table.add(header, is_number=True)
    for step in steps(document):
        table.add(f"{names.get(step.ours, step.ours)} / {names.get(step.theirs, step.theirs)}", is_number=True)
        table.add("95 % interval", is_number=True)
    for row in filter(has_figures, rows):
        if row.scenario == ALL and table.row_count:
            table.add_section()
        means = row.cell["means"][MODEL]
        cells: list[str | Text] = [
            f"{row.cell['lists']:,}",
            *(f"{means[metric]:.4f}" for metric in ("ndcg", "recall", "mrr")),
        ]
        for gain in row.gains:
            known = gain if gain is not None and gain["ratio"] is not None else None
            style = "bold" if verdict(known) in SHOWN else "dim"
            cells.append(Text(f"{known['ratio']:.3f}" if known else "n/a", style=style))
            cells.append(short_interval(known) if known else "")
        table.add_row(Text(row.task, style="bold") if row.scenario == ALL else row.task, row.scenario, *cells)
    return table

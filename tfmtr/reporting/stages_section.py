"""What each stage gains by task and scenario: the table on a page's first screen, and the same by slice."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmtr.evaluation.evidence import interval_text
from tfmtr.evaluation.list_scores import FIRST_STAGE, MODEL
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.evaluation.stage_gains import (
    BEST,
    SHOWN,
    GainRow,
    best_of,
    gain_rows,
    has_figures,
    split_of,
    steps,
    verdict,
    without_figures,
)
from tfmtr.reporting.runs import Model

FIGURES = ("ratio", "low", "detectable")


class StageRow(NamedTuple):
    """The lists of a task in a scenario.

    Attributes:
        task, scenario: Their names; of all scenarios together, "all".
        lists: Number of lists.
        gains: `{"verdict", "is_shown", "ratio", "low", "interval", "detectable"}` for each of the table's steps.
        ndcg: Of each of the table's contenders.
        recall, mrr: Of the model.
    """

    task: str
    scenario: str
    lists: int
    gains: list[dict[str, Any]]
    ndcg: list[float | None]
    recall: float | None
    mrr: float | None


class StageGains(NamedTuple):
    """A table of what each stage gains.

    Attributes:
        split: What the scenarios are of, such as "tab".
        caption: Of the table.
        steps: `(ours, theirs)` of each comparison.
        contenders: Whose NDCG is shown.
        rows: `StageRow`s, all scenarios of a task together first.
        note: What stands below.
    """

    split: str
    caption: str
    steps: list[tuple[str, str]]
    contenders: list[str]
    rows: list[StageRow]
    note: str


def describe_stages(model: Model, split: str | None = None) -> StageGains:
    """The `StageGains` of a page's model: of its last run.

    Args:
        model: The `Model`.
        split: Column of `tfmtr.evaluation.splits.split_columns`; by default what tells scenarios apart.
    """
    document = model.runs[-1].evaluation
    split = split_of(document) if split is None else split
    found, best, is_two = list(gain_rows(document, split)), best_of(document), bool(document.get("first_stage"))
    names = {MODEL: model.name, FIRST_STAGE: f"{FIRST_STAGE} alone" if is_two else None, BEST: best}
    shown_names = {key: name for key, name in names.items() if name is not None}
    texts = [f"A user has a list for each {split} of their positives. Where an interval has 1, no difference is shown."]
    if best is not None:
        texts.append(f"{best} is the best baseline by validation users' lists of the first task, whatever the task.")
    if is_two:
        texts.append(f"{model.name} is of both stages.")
    if len(model.runs) > 1:
        texts.append(f"Figures are those of the run with seed {model.runs[-1].recipe.seed}.")
    texts += [f"{text}." for text in without_figures(found, split)]
    keys = [{BEST: str(best)}.get(key, key) for key in shown_names]
    return StageGains(
        split=split,
        caption=f"What {'each stage gains' if is_two else 'the lists gain'}, by task and {split}",
        steps=[(shown_names[step.ours], shown_names[step.theirs]) for step in steps(document)],
        contenders=list(shown_names.values()),
        rows=[stage_row(row, keys) for row in found if has_figures(row)],
        note=" ".join(texts),
    )


def stage_row(row: GainRow, contenders: Sequence[str]) -> StageRow:
    """A `GainRow` as a page shows it."""
    means = row.cell["means"]
    gains = []
    for gain in row.gains:
        word = verdict(gain)
        known: dict[str, Any] = gain if gain is not None and gain["ratio"] is not None else dict.fromkeys(FIGURES)
        gains.append(
            {
                "verdict": word,
                "is_shown": word in SHOWN,
                "interval": interval_text(known) if known["low"] is not None else None,
                **{name: known[name] for name in FIGURES},
            }
        )
    ndcg = [means.get(name, {}).get("ndcg") for name in contenders]
    own = means[MODEL]
    return StageRow(row.task, row.scenario, row.cell["lists"], gains, ndcg, own.get("recall"), own.get("mrr"))


def slice_tables(model: Model) -> list[StageGains]:
    """The `StageGains` of each slice that tells no scenarios apart and has more than one value with figures."""
    document = model.runs[-1].evaluation
    splits = dict.fromkeys(name for splits in document.get("by_task", {}).values() for name in splits)
    tables = [describe_stages(model, name) for name in splits if name not in (split_of(document), OVERALL)]
    return [table for table in tables if len({row.scenario for row in table.rows}) > 2]

"""What each stage gains by task and scenario: the rows of the terminal's table and of a report's first screen."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tfmtr.evaluation.list_scores import FIRST_STAGE, MODEL
from tfmtr.evaluation.metrics import MIN_POSITIVES, MIN_USERS, OVERALL
from tfmtr.evaluation.splits import SCENARIO, shown

METRIC = "ndcg"
MOST_NAMED = 5  # values without figures
ALL = "all"  # scenarios together
HIGHER, LOWER, NOT_SHOWN = "higher", "lower", "not shown"
SHOWN = (HIGHER, LOWER)


class Step(NamedTuple):
    """What is held against what.

    Attributes:
        ours, theirs: Contenders, or `"best"` for the best baseline.
    """

    ours: str
    theirs: str


BEST = "best"
TWO_STAGES = (Step(FIRST_STAGE, BEST), Step(MODEL, FIRST_STAGE))
ONE_STAGE = (Step(MODEL, BEST),)


class GainRow(NamedTuple):
    """A task's lists, pooled or of one scenario (or of one value of a slice).

    Attributes:
        task: Its name.
        scenario: The scenario's (or the value's) name, or `ALL`.
        cell: The cell of `tfmtr.evaluation.task_lists.by_task`.
        gains: Result of `compare_lists` for each of the document's `steps`, `None` where there is none.
    """

    task: str
    scenario: str
    cell: Mapping[str, Any]
    gains: tuple[dict[str, Any] | None, ...]


def steps(document: Mapping[str, Any]) -> tuple[Step, ...]:
    """The comparisons that an evaluation's lists allow: of each stage with what is before it."""
    found = TWO_STAGES if document.get("first_stage") else ONE_STAGE
    return tuple(step for step in found if step.theirs != BEST or best_of(document) is not None)


def best_of(document: Mapping[str, Any]) -> str | None:
    """Name of the best baseline of an evaluation; `None` without baselines."""
    return (document.get("baselines") or {}).get("best")


def gain_rows(document: Mapping[str, Any], split: str | None = None) -> Iterator[GainRow]:
    """Yields a row for each task, and for each scenario of it.

    Args:
        document: What `evaluate` wrote.
        split: Column of `tfmtr.evaluation.splits.split_columns`; by default what tells scenarios apart.
    """
    split = split_of(document) if split is None else split
    for task, splits in document.get("by_task", {}).items():
        cells = [(ALL, splits[OVERALL][OVERALL])]
        cells += [(shown(value), cell) for value, cell in splits.get(split, {}).items()]
        for scenario, cell in cells:
            yield GainRow(task, scenario, cell, tuple(gain(cell, step, document) for step in steps(document)))


def split_of(document: Mapping[str, Any]) -> str:
    """What tells scenarios apart; see `tfmtr.evaluation.splits.scenario_split`."""
    return document.get("scenario_split", SCENARIO)


def gain(cell: Mapping[str, Any], step: Step, document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of `compare_lists` of a step in a cell; `None` where there is none."""
    if step.ours == FIRST_STAGE:
        return cell["first_stage"].get(METRIC)
    other = best_of(document) if step.theirs == BEST else step.theirs
    return cell["compared"].get(METRIC, {}).get(other)


def verdict(gain: Mapping[str, Any] | None) -> str:
    """What a ratio shows, by its interval.

    >>> [verdict({"ratio": 1.1, "low": low, "high": high}) for low, high in ((0.9, 1.3), (1.05, None), (0.7, 0.9))]
    ['not shown', 'higher', 'lower']
    >>> verdict(None)
    'n/a'
    """
    if gain is None or gain["ratio"] is None:
        return "n/a"
    if gain["low"] > 1:
        return HIGHER
    return LOWER if gain["high"] is not None and gain["high"] < 1 else NOT_SHOWN


def has_figures(row: GainRow) -> bool:
    """Whether a row has the evidence for figures."""
    return row.cell["reason"] is None


def without_figures(rows: list[GainRow], split: str) -> list[str]:
    """What is said of rows that are n/a: texts, one a task."""
    texts = []
    for task in dict.fromkeys(row.task for row in rows):
        own = [row for row in rows if row.task == task and not has_figures(row)]
        if any(row.scenario == ALL for row in own):
            texts.append(f"{task}: n/a, {next(row for row in own if row.scenario == ALL).cell['reason']}")
        elif own:
            few = ", ".join(row.scenario for row in own[:MOST_NAMED])
            more = f" and {len(own) - MOST_NAMED} more" if len(own) > MOST_NAMED else ""
            evidence = f"under {MIN_POSITIVES} positives or {MIN_USERS} users"
            texts.append(f"{task}: n/a in {split} {few}{more}, {evidence}")
    return texts

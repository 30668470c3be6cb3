"""What an evaluation found, as an object."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tfmtr.evaluation.fitting_table import text_of
from tfmtr.evaluation.list_scores import MODEL, NEW, between_runs
from tfmtr.evaluation.tables import lists_table, pr_auc_table, segments_table
from tfmtr.evaluation.task_tables import tasks_table


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `tfmtr evaluate` found about a run.

    Args:
        document: What `evaluation.json` holds; `tfmtr.evaluation.evaluate` describes it.
        path: The run directory.
    """

    document: Mapping[str, Any] = dataclasses.field(repr=False, hash=False)
    path: Path

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.resolve().name

    @property
    def lists(self) -> dict[str, dict[str, Any]]:
        """`{"model" or baseline: {metric: mean over all lists}}` of titles that users did not have before."""
        return self.document.get("means", {}).get(NEW, {})

    @property
    def ratios(self) -> dict[str, dict[str, Any]]:
        """`{baseline: ratio of the model's NDCG to it, with its interval}`, see `tfmtr.evaluation.evidence`."""
        return (self.document.get("baselines") or {}).get("compared", {})

    @property
    def ndcg(self) -> float | None:
        """Mean NDCG of the model's lists; `None` where there are too few."""
        return self.lists.get(MODEL, {}).get("ndcg")

    @property
    def warnings(self) -> list[str]:
        """What the evaluation warns of."""
        return list(self.document.get("warnings", ()))

    def table(self) -> str:
        """The tables that the command prints, as text."""
        return tables({self.name: self})

    def to_json(self) -> str:
        """The document."""
        return json.dumps(self.document, indent=1)


def tables(evaluations: Mapping[str, Evaluation]) -> str:
    """The tables of several evaluations as text; the last one's gains are over the others."""
    return text_of(lambda console: print_tables(evaluations, console))


def print_tables(evaluations: Mapping[str, Evaluation], console: Console) -> None:
    """Prints a table of PR-AUC per slice for each binary task, and of the lists of models and baselines, by task too.

    The last model's gains are over the others.

    Args:
        evaluations: `{model: Evaluation}`.
        console: `rich.console.Console`.
    """
    results = {name: evaluation.document for name, evaluation in evaluations.items()}
    runs = {name: evaluation.path for name, evaluation in evaluations.items()}
    *_, last = results.values()
    for task, slices in last["tasks"].items():
        for column, windows in slices.items():
            if any("pr_auc" in cell for cells in windows.values() for cell in cells.values()):
                console.print(Text.assemble("\n", (task, "bold"), f" per {column}"))
                cells = {name: result["tasks"][task][column] for name, result in results.items()}
                console.print(pr_auc_table(cells, column=column))
    console.print()
    console.print(lists_table(results, between_runs(runs)))
    *_, name = results
    by_task = tasks_table(name, results[name])
    if by_task.row_count > 1:
        console.print()
        console.print(by_task)
    segments = segments_table(results)
    if segments.row_count:
        console.print()
        console.print(segments)
    for name, result in results.items():
        for warning in result.get("warnings", ()):
            console.print(Text(f"warning: {name}: {warning}"), soft_wrap=True)

"""The second stage's part of a service's day: the ranking model goes on, is judged and calibrated beside the first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from tfmtr import training
from tfmtr.calibration import calibrate
from tfmtr.candidates import NoListsError, prepare_candidates
from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import read_json, write_json
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.operations.gating import gate
from tfmtr.operations.late_rows import SAMPLINGS, late_files
from tfmtr.operations.service import stages_of
from tfmtr.run import Run
from tfmtr.version import RANKING

if TYPE_CHECKING:
    from tfmtr.operations.day_steps import DaySteps

CANDIDATES, LATE_CANDIDATES, GATE = "candidates", "late-candidates", "gate-ranking.json"  # names in a day's folder
OF_TRAINING = (RANKING, LATE_CANDIDATES, CANDIDATES)  # what comes of the training, the last step of it first
FIRST, SECOND = "first stage", "second stage"


class RankingSteps:
    """What a day does with the ranking model of a service of two stages.

    Args:
        day: The `DaySteps`, whose record gets `"ranking"`: see `tfmtr.operations.record`.
    """

    def __init__(self, day: DaySteps) -> None:
        self.day, self.folder, self.settings = day, day.folder, day.settings[RANKING]

    def rows(self, data: Dataset) -> Dataset:
        """What the ranking model is trained and judged on: the day's own examples, or the first stage's candidates.

        Raises:
            NoListsError: If no training user of the day took a candidate.
        """
        if self.settings["lists"] is None:
            return data
        out = self.folder / CANDIDATES
        if not (out / "prepare.json").is_file():
            # A service's first window is no log's: what came before it is known.
            prepare_candidates(self.folder / "run", out, **self.settings["lists"], earlier=0)
        return Dataset(out)

    def train(self, data: Dataset, late: Sequence[Path], epochs: int) -> None:
        """The live ranking model goes on: on the day's candidates and late ones, or on its examples and late rows."""
        day, before, run = self.day, Run(self.day.live[RANKING]), self.folder / RANKING
        record = day.record[RANKING] = {"run": str(run)}
        try:
            rows = self.rows(data)
        except NoListsError as error:
            day.record |= {"reasons": [f"{SECOND}: {error}"], "refused_by": [RANKING]}
            return
        if rows.has_candidates:
            lists, date = self.settings["lists"], day.day.isoformat()
            out = self.folder / LATE_CANDIDATES
            late = late_files(day.service, rows, out, date, day.settings, alpha=lists["negatives"])
            record |= {"late_rows": count_rows(late), CANDIDATES: rows.report[CANDIDATES]}
        files = files_of(before, rows, late)
        if not files:
            text = "no training user of the day took a title of the first stage's lists"
            day.record |= {"reasons": [f"{SECOND}: {text}"], "refused_by": [RANKING]}
            return
        grown = training.go_on(before.path, rows.path, files, run, epochs=epochs, verbose=0)
        day.tell(f"trained the {SECOND} on {count_rows(files)} rows; {len(grown)} variables grew")
        record |= {"grown": grown}
        record["fitted"] = {"rows": count_rows(files), "epochs": epochs, "stages": Run(run).document["stages"]}

    def of_lists(self) -> dict[str, Any]:
        """What `gate` needs for lists of both stages."""
        return {"ranking": (self.day.live[RANKING], self.folder / RANKING), **stages_of(self.day.settings)}

    def judge(self, data: Dataset, bounds: Mapping[str, Any]) -> dict[str, Any]:
        """What `gate` says of the new ranking model against the live one, on the same rows."""
        verdict = read_json(self.folder / GATE)
        if verdict is None:
            verdict = gate(self.day.live[RANKING], self.folder / RANKING, self.rows(data).path, **bounds)
            write_json(self.folder / GATE, verdict)
        self.day.record[RANKING]["gate"] = over_all_rows(verdict)
        return verdict

    def calibrated(self, data: Dataset) -> dict[str, Any]:
        """Calibrates the new ranking model as the live one is; returns what `export` needs for the second stage."""
        calibrate_like(self.day.live[RANKING], self.folder / RANKING, self.rows(data))
        return {"ranking": self.folder / RANKING, **stages_of(self.day.settings)}


def files_of(run: Run, data: Dataset, late: Sequence[Path]) -> list[Path]:
    """Files that a run goes on from: of the last window, and of late rows, of the users that its recipe asks for.

    Late rows are examples; a model of impressions goes on from the day's own alone.
    """
    sampling, form = SAMPLINGS if run.recipe.upsample else SAMPLINGS[:1], run.recipe.form
    files = data.rows_for(form, "train", windows=[0], sampling=sampling)
    is_of_examples = data.rows_for(form, "train") == data.examples("train")
    return files + [file for file in late if file.stem in sampling and is_of_examples]


def said_of_stages(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """`(reasons, notes, refused_by)` of a service of two stages, each text with the stage that it is of.

    Args:
        first: What `gate` says of the first stage, and of the lists of both.
        second: What it says of the second one.

    >>> first = {"reasons": ["click is down", "lists are below"], "list_reasons": ["lists are below"], "notes": []}
    >>> said_of_stages(first, {"reasons": [], "notes": ["few rows"]})[::2]
    (['first stage: click is down', 'both stages: lists are below'], ['retrieval', 'lists'])
    """
    of_lists = first["list_reasons"]
    own = [reason for reason in first["reasons"] if reason not in of_lists]
    reasons = [f"{FIRST}: {reason}" for reason in own] + [f"{SECOND}: {reason}" for reason in second["reasons"]]
    reasons += [f"both stages: {reason}" for reason in of_lists]
    notes = [*first["notes"], *(f"{SECOND}: {note}" for note in second["notes"])]
    refused_by = {"retrieval": own, RANKING: second["reasons"], "lists": of_lists}
    return reasons, notes, [name for name, texts in refused_by.items() if texts]


def calibrate_like(live: str | os.PathLike, run: str | os.PathLike, data: Dataset) -> None:
    """Calibrates a run as the live one is, by territory if that is not."""
    before = read_json(Path(live) / "calibration.json") or {"by": "territory", "method": "platt"}
    calibrate(run, data.path, by=before["by"], method=before["method"])


def over_all_rows(found: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """`{part: {task: {"live", "candidate", "change"}}}`, the gate's figures over all rows; log loss as a task's own."""
    names, parts = ("live", "candidate", "change"), {}
    for part, tasks in found["parts"].items():
        figures = parts[part] = {}
        for task, slices in tasks.items():
            cell = next(iter(slices.values()))[OVERALL]
            figures[task] = {name: cell[name] for name in names}
            if "log_loss" in cell:
                figures[f"log loss of {task}"] = {name: cell["log_loss"][name] for name in names}
    return parts


def count_rows(files: Iterable[Path]) -> int:
    """How many rows Parquet files have."""
    return sum(pq.read_metadata(file).num_rows for file in files)

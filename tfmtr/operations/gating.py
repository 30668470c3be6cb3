"""Whether a new model may take the live one's place: both are judged on rows of users that neither learnt from."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.compare import LEVEL, holm, paired_bootstrap
from tfmtr.evaluation.evaluate import predict
from tfmtr.evaluation.metrics import CLIP, OVERALL, evaluate_task
from tfmtr.evaluation.splits import shown, split_columns
from tfmtr.evaluation.two_stage_lists import MIDDLE, Second
from tfmtr.models import JointModel, TwoTower
from tfmtr.operations.list_gate import judge_lists
from tfmtr.retrieval.second_stage import CANDIDATES
from tfmtr.run import Run
from tfmtr.schema import Schema

METRICS = {"binary": ("pr_auc", 1), "regression": ("mse", -1)}  # metric, and whether more of it is better


def gate(
    live: str | os.PathLike,
    candidate: str | os.PathLike,
    data: str | os.PathLike,
    *,
    max_drop: float = 0.05,
    max_shift: float = 0.3,
    num_samples: int = 500,
    earlier: Sequence[Mapping[str, Any]] = (),
    ranking: Sequence[str | os.PathLike] | None = None,
    candidates: int = CANDIDATES,
    first_weight: float = MIDDLE,
) -> dict[str, Any]:
    """Compares a new model with the live one on validation users' rows of the last window, and of those before it.

    The gate closes, with a reason each, if

    * the new model's answers are not finite, or there are no or too few rows to judge its first task (of another task
      that is a note);
    * a task is down by more than `max_drop` beyond chance (a paired bootstrap over users; within chance that is a
      note), or by more than `max_shift` in any case, on the rows of the last window or on those of the windows before:
      labels that are wrong in the last window alone cannot show there;
    * it is down by more than `max_drop` in a territory (or another slice, or a scenario) beyond chance, corrected by
      Holm for the number of territories;
    * the live model is worse on the last window than on those before by more than `max_shift`: then the window's data
      differ from all it has learnt from, and a person should look;
    * the new model's lists are below those of popularity beyond chance and the live model's are not; where the last
      window has too few users, those of earlier days count with them; see `tfmtr.operations.list_gate.judge_lists`.

    Ranking models make no lists by themselves, and none are judged. Their probabilities are what a final score is made
    of, so log loss is held to `max_drop`, too, on all rows of a part, as PR-AUC is. With `ranking` the lists are those
    of both stages, and rows are those of `live` and `candidate` alone.

    Args:
        live: Run directory of the live model.
        candidate: Run directory of the new model.
        data: Directory made by `tfmtr prepare`, with the new model's rows in window 0.
        max_drop: Largest relative loss of PR-AUC (of a binary task), or growth of squared error (of a regression).
        max_shift: Largest relative loss of the live model's figure from the windows before to the last one, and of the
            new model's on all rows even if that is within chance.
        num_samples: Bootstrap samples, at least; more where there are many territories, and for lists.
        earlier: `"list_values"` of the days before, the last one first.
        ranking: Run directories of the live and the new ranking model, which order what `live` and `candidate` find.
        candidates: How many titles these find for them.
        first_weight: Of the first stage's score in the final one.

    Returns:
        `{"is_open", "reasons", "list_reasons", "notes", "parts": {"last" or "before": {task: {column: {slice:
        cell}}}}, "lists", "list_values"}` with cells `{"live", "candidate", "change", "p_value"}`, of all rows of a
        ranking model's binary task with a cell `"log_loss"` beside them; figures are `None` where a cell has too little
        evidence. `"list_reasons"` are those of `"reasons"` that are of lists. `"lists"` and `"list_values"` are those
        of `judge_lists`.

    Raises:
        ValueError: If a limit is not positive.
    """
    check_bounds(max_drop=max_drop, max_shift=max_shift)
    data = Dataset(data)
    last = data.next_window - 1
    before = [window["window"] for window in data.report["windows"] if window["window"] < last]
    runs = [(run.model, run.schema) for run in (Run(live), Run(candidate))]
    parts, reasons, notes = {}, [], []
    for part, windows in (("last", [last]), ("before", before)):
        files = data.rows_for(Run(candidate).recipe.form, "validation", windows=windows)
        if part == "last" and not files:
            reasons.append(
                "no row of a validation user in the last window: it has too few events, or the --validation-fraction "
                "that the service's data were prepared with is too small to judge a window by"
            )
        if files:
            parts[part], verdict, unsure = _compare(runs, files, data, (max_drop, max_shift), num_samples)
            place = "in the last window" if part == "last" else "before it"
            reasons += [f"{reason}, {place}" for reason in verdict]
            notes += [f"{text}, {place}" for text in unsure]
    for task in runs[1][1].tasks:
        cells = [parts.get(part, {}).get(task.name) for part in ("last", "before")]
        if not all(cells):  # no rows before, or answers that are not finite
            continue
        now, then = (next(iter(slices.values()))[OVERALL]["live"] for slices in cells)
        better = METRICS[task.kind][1]
        if now is not None and then and better * (now / then - 1) < -max_shift:
            reasons.append(
                f"{task.name}: the last window is unlike those before, the live model's own figure went from "
                f"{then:.4f} to {now:.4f}"
            )
    of_lists = {"lists": None, "list_values": None, "reasons": [], "notes": []}
    if all(isinstance(model, TwoTower) for model, _ in runs):
        seconds = [None, None]
        if ranking is not None:
            second = (Run(run) for run in ranking)
            seconds = [Second(run.load(form="ranking"), run.schema, candidates, first_weight) for run in second]
        orders = [Run(run).list_model for run in (live, candidate)]
        of_lists = judge_lists(runs, data, orders=orders, seconds=seconds, earlier=earlier)
    reasons, notes = reasons + of_lists["reasons"], notes + of_lists["notes"]
    verdict = {"is_open": not reasons, "reasons": reasons, "list_reasons": of_lists["reasons"], "notes": notes}
    return verdict | {"parts": parts} | {name: of_lists[name] for name in ("lists", "list_values")}


def check_bounds(**bounds: float) -> None:
    """Raises a `ValueError` that names the bound which is not positive."""
    for name, value in bounds.items():
        if not value > 0:
            raise ValueError(f"`{name}` must be positive, such as 0.05 for 5 %. Received: {name}={value}")


def _compare(
    runs: Sequence[tuple[JointModel, Schema]],
    files: Sequence[Path],
    data: Dataset,
    limits: tuple[float, float],
    num_samples: int,
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Cells of one part, and the reasons and notes in it."""
    max_drop, max_shift = limits
    (old, _, _), (new, users, _) = (
        predict(model, files, schema, data, columns=split_columns(schema)) for model, schema in runs
    )
    cells, reasons, notes = {}, [], []
    for task in runs[1][1].tasks:
        metric, better = METRICS[task.kind]
        labels, scores = new[task.column], [values[f"{task.name} score"] for values in (old, new)]
        if not np.isfinite(scores[1]).all():
            reasons.append(f"{task.name}: {np.sum(~np.isfinite(scores[1]))} answers are not finite")
            continue
        cells[task.name] = {}
        for column in split_columns(runs[1][1]):
            two = [evaluate_task(labels, s, new[column], users, kind=task.kind) for s in scores]
            found = cells[task.name][column] = {
                name: {"live": two[0][name][metric], "candidate": cell[metric], "change": None, "p_value": None}
                for name, cell in two[1].items()
            }
            for cell in found.values():
                if cell["live"] and cell["candidate"] is not None:
                    cell["change"] = better * (cell["candidate"] / cell["live"] - 1)
            overall = found[OVERALL]
            if overall["change"] is None:
                text = f"{task.name}: too few rows to judge ({two[1][OVERALL]['reason']})"
                (reasons if task is runs[1][1].tasks[0] else notes).append(text)
            elif overall["change"] < -max_drop:
                overall["p_value"] = p = _p_value(labels, scores, users, task.kind, num_samples)
                text = f"{task.name} is down by {-overall['change']:.1%} overall"
                if p is None or p < LEVEL or overall["change"] < -max_shift:
                    reasons.append(text)
                else:
                    notes.append(f"{text}, within chance (p {p:.3f})")
            if task.kind == "binary" and not isinstance(runs[1][0], TwoTower):
                cells_of_both = [one[OVERALL] for one in two]
                overall["log_loss"] = cell = _log_loss(cells_of_both, labels, scores, users, max_drop, num_samples)
                if cell["p_value"] is not None:
                    text = f"{task.name}: log loss is up by {-cell['change']:.1%} overall"
                    if cell["p_value"] < LEVEL or cell["change"] < -max_shift:
                        reasons.append(text)
                    else:
                        notes.append(f"{text}, within chance (p {cell['p_value']:.3f})")
            # Territories that are not down stand for p = 1: the correction is for all that were looked at.
            judged = [name for name, cell in found.items() if name != OVERALL and cell["change"] is not None]
            down = [name for name in judged if found[name]["change"] < -max_drop]
            samples = max(num_samples, 4 * round(len(judged) / LEVEL))  # or no p-value could survive the correction
            for name in down:
                rows = new[column].astype(str) == name
                found[name]["p_value"] = _p_value(
                    labels[rows], [s[rows] for s in scores], users[rows], task.kind, samples
                )
            corrected = holm([1.0 if found[name]["p_value"] is None else found[name]["p_value"] for name in judged])
            for name, p in zip(judged, corrected, strict=True):
                if p < LEVEL:
                    reasons.append(
                        f"{task.name} is down by {-found[name]['change']:.1%} in {column} {shown(name)} (p {p:.3f})"
                    )
    return cells, list(dict.fromkeys(reasons)), list(dict.fromkeys(notes))


def _p_value(
    labels: np.ndarray, scores: Sequence[np.ndarray], users: np.ndarray, kind: str, num_samples: int
) -> float | None:
    """Two-sided p-value of the difference between the two models, over users."""
    if kind == "binary":
        return paired_bootstrap(labels, scores[1], scores[0], users, num_samples=num_samples)["p_value"]
    return _p_of_errors((scores[1] - labels) ** 2 - (scores[0] - labels) ** 2, users, num_samples)


def _log_loss(
    cells: Sequence[Mapping[str, Any]],
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    users: np.ndarray,
    max_drop: float,
    num_samples: int,
) -> dict[str, Any]:
    """A cell of log loss over all rows, with a p-value where it is up by more than `max_drop`."""
    live, candidate = (cell["log_loss"] for cell in cells)
    found = {"live": live, "candidate": candidate, "change": None, "p_value": None}
    if live and candidate is not None:
        found["change"] = 1 - candidate / live
        if found["change"] < -max_drop:
            of_label = (np.where(labels == 1, p, 1 - p) for p in (np.clip(s, CLIP, 1 - CLIP) for s in scores))
            losses = [np.where(np.isnan(labels), np.nan, -np.log(p)) for p in of_label]
            found["p_value"] = _p_of_errors(losses[1] - losses[0], users, num_samples)
    return found


def _p_of_errors(differences: np.ndarray, users: np.ndarray, num_samples: int) -> float:
    """Two-sided p-value of rows' differences, NaN where there is no label, over users."""
    is_labelled = ~np.isnan(differences)
    _, places = np.unique(users[is_labelled], return_inverse=True)
    sums = np.bincount(places, differences[is_labelled])  # one number a user: their rows go together
    drawn = np.random.default_rng(0).integers(len(sums), size=(num_samples, len(sums)))
    totals = sums[drawn].sum(axis=1)
    tail = min(np.sum(totals <= 0), np.sum(totals >= 0))
    return float(min(1.0, 2 * (tail + 1) / (num_samples + 1)))

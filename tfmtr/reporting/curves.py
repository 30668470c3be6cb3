"""The lines of the charts: one a model, seeds and test windows taken together."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfmtr.evaluation.compare import mean_and_deviation
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.reporting.pairs import Pairs
from tfmtr.reporting.runs import EvaluatedRun, Model

NUM_BINS = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """One line of a chart.

    Args:
        name: Of the model.
        x, y: Float arrays of one length; NaN is n/a.
    """

    name: str
    x: np.ndarray
    y: np.ndarray


def exposure_lines(models: Iterable[Model]) -> list[Line]:
    """Cumulative share of the recommendations over cumulative share of popularity, least popular titles first."""
    lines = []
    for model in models:
        cells = [cell for cell in pooled(model, "exposure_curve") if cell["exposure"] is not None]
        if cells:
            x, y = (np.mean([cell[name] for cell in cells], axis=0) for name in ("popularity", "exposure"))
            lines.append(Line(model.name, *(np.append(0.0, np.cumsum(values)) for values in (x, y))))
    return lines


def hit_rate_lines(models: Iterable[Model]) -> list[Line]:
    """Hit rate of liked titles by decile of popularity, 1 the least popular titles."""
    lines = []
    for model in models:
        if deciles := pooled(model, "hit_rate_by_popularity"):
            means = [
                mean_and_deviation([cell["hit_rate"] for cell in cells])[0] for cells in zip(*deciles, strict=True)
            ]
            lines.append(Line(model.name, np.arange(1.0, len(means) + 1), np.array(means, np.float64)))
    return lines


def pooled(model: Model, metric: str) -> list[Any]:
    """The pooled cells of a list metric, one for each run and window."""
    lists = [run.evaluation["lists"].get(metric, {}) for run in model.runs]
    return [cells[OVERALL] for windows in lists for cells in windows.values()]


def calibration_lines(models: Sequence[Model], pairs: Pairs, rows: np.ndarray) -> list[Line]:
    """Observed rate over mean score in ten bins of equal numbers of rows.

    Args:
        models: List of `Model`.
        pairs: Their `Pairs`.
        rows: Boolean array of shape `(rows,)`, of those that count.
    """
    rows = np.flatnonzero(rows & ~np.isnan(pairs.labels))
    lines = []
    for model in models if len(rows) >= NUM_BINS else ():
        scores = pairs.of(model)[:, rows]
        labels = np.tile(pairs.labels[rows], len(scores))
        bins = np.array_split(np.argsort(scores.ravel(), kind="stable"), NUM_BINS)
        x, y = (np.array([values[own].mean() for own in bins]) for values in (scores.ravel(), labels))
        lines.append(Line(model.name, x, y))
    return lines


def loss_lines(run: EvaluatedRun) -> list[Line]:
    """Loss of a run by epoch, the windows one after the other: `[training]`, or `[training, validation]`."""
    history = [epoch for stage in run.document["stages"].values() for epoch in stage["history"]]
    lines = []
    for name, key in (("training", "loss"), ("validation", "val_loss")):
        values = np.array([epoch.get(key, np.nan) for epoch in history], np.float64)
        if not np.isnan(values).all():
            lines.append(Line(name, np.arange(1.0, len(values) + 1), values))
    return lines

"""Every metric of every model: means over the test windows, with deviation over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfmtr.evaluation.compare import mean_and_deviation
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.reporting.runs import Model


class Metric(NamedTuple):
    """Where a figure stands in `evaluation.json`.

    Attributes:
        key: Of the cells.
        path: Keys down to `{window: {slice: cell}}`; `"{task}"` stands for the task's name, `"{column}"` for that of
            a slice, or `"scenario"`.
        slice: Slice of the cells, for the classes of titles; `None` for the territory that is asked for.
    """

    key: str
    path: tuple[str, ...]
    slice: str | None = None


TASK, LISTS = ("tasks", "{task}", "{column}"), "lists"
METRICS = {
    "pr_auc": Metric("pr_auc", TASK),
    "roc_auc": Metric("roc_auc", TASK),
    "gauc": Metric("gauc", ("gauc", "{task}", "{column}")),
    "log_loss": Metric("log_loss", TASK),
    "normalized_entropy": Metric("normalized_entropy", TASK),
    "calibration_error": Metric("calibration_error", TASK),
    "local_calibration_error": Metric("calibration_error", ("title_classes", "{task}"), "local"),
    "global_calibration_error": Metric("calibration_error", ("title_classes", "{task}"), "global"),
    "local_pr_auc": Metric("pr_auc", ("title_classes", "{task}"), "local"),
    "global_pr_auc": Metric("pr_auc", ("title_classes", "{task}"), "global"),
    "recall": Metric("recall", (LISTS, "ranking")),
    "capped_recall": Metric("capped_recall", (LISTS, "ranking")),
    "ndcg": Metric("ndcg", (LISTS, "ranking")),
    "mrr": Metric("mrr", (LISTS, "ranking")),
    "hit_rate": Metric("hit_rate", (LISTS, "ranking")),
    "coverage": Metric("coverage", (LISTS, "exposure")),
    "gini": Metric("gini", (LISTS, "exposure")),
    "entropy": Metric("entropy", (LISTS, "exposure")),
    "average_popularity": Metric("average_popularity", (LISTS, "exposure")),
    "popularity_lift": Metric("popularity_lift", (LISTS, "popularity_lift")),
    "local_recommended": Metric("recommended", (LISTS, "local_share")),
    "local_truth": Metric("truth", (LISTS, "local_share")),
    "local_gap": Metric("gap", (LISTS, "local_share")),
    "opportunity_gap": Metric("gap", (LISTS, "equal_opportunity")),
}
BY_TERRITORY = [name for name, metric in METRICS.items() if metric.slice is None]
OF_ROWS = [name for name, metric in METRICS.items() if "{column}" in metric.path]  # what any slice has
TERRITORY = "territory"


class Figure(NamedTuple):
    """A figure of a model.

    Attributes:
        mean: Over seeds, of means over windows; `None` is n/a.
        deviation: Over seeds; `None` with fewer than two.
    """

    mean: float | None
    deviation: float | None


def overview(
    models: Sequence[Model], task: str, territory: str = OVERALL, column: str = TERRITORY
) -> dict[str, dict[str, Figure]]:
    """`{metric: {model: Figure}}` of a territory, or pooled over all.

    Args:
        models: List of `Model`.
        task: Name of the task.
        territory: Its name; metrics of title classes are pooled only, and the same for each.
        column: What the name is of, if it is another slice, or a scenario: then only metrics of rows are of it.
    """
    return {
        name: {model.name: figure(model, metric, task, territory, column) for model in models}
        for name, metric in METRICS.items()
        if column == TERRITORY or name in OF_ROWS
    }


def figure(model: Model, metric: Metric, task: str, territory: str, column: str = TERRITORY) -> Figure:
    """The `Figure` of a model; windows that are n/a are left out of a run's mean."""
    return Figure(*mean_and_deviation([value(run.evaluation, metric, task, territory, column) for run in model.runs]))


def value(
    evaluation: Mapping[str, Any], metric: Metric, task: str, territory: str, column: str = TERRITORY
) -> float | None:
    """Mean over windows of one metric of one run; n/a where an earlier version did not have it."""
    windows, named = evaluation, {"{task}": task, "{column}": column}
    for key in metric.path:
        windows = windows.get(named.get(key, key), {})
    cells = [cells.get(metric.slice or territory) for cells in windows.values()]
    return mean_and_deviation([cell.get(metric.key) for cell in cells if cell is not None])[0]

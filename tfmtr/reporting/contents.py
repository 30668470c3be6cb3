"""What the templates of a page show."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from tfmtr.datasets.dataset import IMPRESSIONS, Dataset
from tfmtr.datasets.funnel import NO_TIMES
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.evaluation.splits import shown
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.reporting.figures import draw
from tfmtr.reporting.gains import compare_models, major_territories
from tfmtr.reporting.lists_section import describe_lists
from tfmtr.reporting.overview import BY_TERRITORY, OF_ROWS, TERRITORY, Figure, overview
from tfmtr.reporting.pairs import read_pairs
from tfmtr.reporting.reproduce import differences, evaluate_command, records, versions
from tfmtr.reporting.runs import Model
from tfmtr.reporting.stages_section import describe_stages, slice_tables
from tfmtr.reporting.titles_section import Title, choose_titles, describe_titles, shift_by_class

TITLES_IN_FIGURE = 2  # of a class


def contents(models: Sequence[Model], data: Dataset, task: str, *, compare: bool, num_samples: int) -> dict[str, Any]:
    """What the templates show, by name; `"charts"` are by theirs, `None` where there is too little evidence."""
    evaluation = models[-1].runs[-1].evaluation
    pairs, facts = read_pairs(data, models, task), title_facts(data, local_share=evaluation["local_share"])
    statistics = data.report["statistics"]["territories"]
    positives = {name: facts.territories.get(name, 0) for name in statistics}
    majors = major_territories({name: of["positives"] for name, of in statistics.items()})
    territories = describe_territories(statistics, positives, majors)
    comparisons = []
    if len(models) > 1:
        comparisons = compare_models(models, pairs, positives, majors, task, num_samples=num_samples)
    ranked = [row["territory"] for row in territories]
    titles = describe_titles(choose_titles(pairs, facts), models, pairs, facts, data)
    in_figure = [title for kind in (True, False) for title in of_class(titles, kind)[:TITLES_IN_FIGURE]]
    with_vectors = [model for model in (models if compare else models[-1:]) if has_vectors(model)]
    by_territory = {name: overview(models, task, name) for name in (*ranked, OVERALL)}
    return {
        "model": models[-1].name,
        "model_names": [model.name for model in models],
        "has_seeds": any(len(model.runs) > 1 for model in models),
        "task": task,
        "windows": data.test_windows,
        "num_samples": num_samples,
        "k": evaluation["k"],
        "local_share": evaluation["local_share"],
        "num_titles": evaluation["titles"],
        "lists": describe_lists(models, num_samples=num_samples),
        "no_times": NO_TIMES if data.report.get("times") is False else None,
        "comparisons": comparisons,
        "titles": titles,
        "figure_titles": in_figure,
        "class_shifts": shift_by_class(models, pairs, facts),
        "overview": overview(models, task),
        "territory_metrics": BY_TERRITORY,
        "row_metrics": OF_ROWS,
        "by_split": by_split(models, task),
        "stages": describe_stages(models[-1]),
        "slice_gains": slice_tables(models[-1]),
        "by_territory": {name: figures for name, figures in by_territory.items() if has_figures(figures)},
        "vector_models": [model.name for model in with_vectors],
        "territories": territories,
        "num_territories": len(territories),
        "num_major": sum(row["is_major"] for row in territories),
        "fingerprint": data.report["fingerprint"],
        "examples": sum_examples(data.report.get(IMPRESSIONS) or data.report["examples"]),
        **{name: data.report[name] for name in ("warnings", "logs", "options")},
        "calendar": data.report["windows"],
        "records": records(models),
        "evaluate_command": evaluate_command(models),
        "versions": versions(models, data),
        "differences": differences(models),
        "charts": draw(models, pairs, facts, comparisons, in_figure, with_vectors, data),
    }


def has_vectors(model: Model) -> bool:
    """Whether a model makes vectors of users."""
    return model.runs[-1].recipe.form == "two_tower"


def of_class(titles: Iterable[Title], is_local: bool) -> list[Title]:
    """Those of some `Title`s that are local, or those that are global."""
    return [title for title in titles if title.is_local == is_local]


def has_figures(metrics: Mapping[str, Mapping[str, Figure]]) -> bool:
    """Whether any model has any metric of the territory's own."""
    return any(figure.mean is not None for name in BY_TERRITORY for figure in metrics[name].values())


def by_split(models: Sequence[Model], task: str) -> list[dict[str, Any]]:
    """`{"column", "rows": {value: {metric: {model: Figure}}}}` of each slice beside the territory, and of scenarios."""
    found = []
    for column, windows in models[-1].runs[-1].evaluation["tasks"][task].items():
        if column != TERRITORY:
            values = dict.fromkeys(name for cells in windows.values() for name in cells)
            rows = {shown(name): overview(models, task, name, column) for name in values}
            found.append({"column": column, "rows": rows})
    return found


def describe_territories(
    statistics: Mapping[str, Mapping[str, Any]], positives: Mapping[str, int], majors: Collection[str]
) -> list[dict[str, Any]]:
    """The data's territories as dictionaries, most training positives first.

    Args:
        statistics: `{territory: {"group":, "users":, "events":, "positives":}}` of `prepare.json`.
        positives: `{territory: positives in the training rows}`.
        majors: Names of the major territories.
    """
    total = sum(positives.values())
    return [
        {
            "territory": name,
            "is_major": name in majors,
            "training_positives": positives[name],
            "share": positives[name] / total,
            **statistics[name],
        }
        for name in sorted(positives, key=lambda name: (-positives[name], name))
    ]


def sum_examples(examples: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows and positives of each split and sampling, the training windows together."""
    sums = {}
    for part in examples:
        windows = "training" if part["window"] <= 0 else f"test {part['window']}"
        row = sums.setdefault((part["split"], part["sampling"], windows), {"rows": 0, "positives": 0})
        row["rows"] += part["rows"]
        row["positives"] += part["positives"]
    return [{"split": key[0], "sampling": key[1], "windows": key[2], **row} for key, row in sums.items()]

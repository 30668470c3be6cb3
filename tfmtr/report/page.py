"""`report`: evaluated runs in, one HTML page and its figures out."""

import datetime
import functools
import shlex
from importlib import metadata
from pathlib import Path

import numpy as np

from tfmtr.datasets.prepared import Prepared
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.report.charts import gains_chart, histogram_chart, lines_chart
from tfmtr.report.curves import calibration_lines, exposure_lines, hit_rate_lines, loss_lines
from tfmtr.report.gains import compare_models, major_territories
from tfmtr.report.overview import BY_TERRITORY, overview
from tfmtr.report.pairs import read_pairs
from tfmtr.report.reproduce import differences, evaluate_command, records, versions
from tfmtr.report.runs import read_models
from tfmtr.report.titles import choose_titles, describe_titles, score_histograms, shift_by_class
from tfmtr.report.tsne import tsne_chart
from tfmtr.report.vectors import user_vectors
from tfmtr.schema import check_choice

TITLES_IN_FIGURE = 2  # of a class


def report(runs, out=Path("report.html"), *, data=None, compare=False, task=None, num_samples=1000):
    """Writes a page about evaluated runs: one HTML file that needs no other, and its figures as PNG beside it.

    The last run's model is what the page is about: its gains are over each other model. Runs that differ in their
    seed only are one model, with mean and deviation.

    Args:
        runs: Run directories, each evaluated by `tfmtr evaluate` on the same data.
        out: HTML file to write; figures go to `<out without its ending>_files/`.
        data: Directory made by `tfmtr prepare` on which the runs were evaluated; by default where it was then.
        compare: Whether to show exactly two runs side by side, as they are, whatever their seeds.
        task: Name of a binary task; the first one by default.
        num_samples: Bootstrap samples of the intervals.

    Returns:
        `out` as a `Path`.

    Raises:
        ValueError: If there is no run, a run was not evaluated, runs were evaluated on different data, `data` is
            other data, `task` is no binary task, or `compare` is asked for with other than two runs.
        ImportError: If the extra `plots` is not installed.
    """
    if compare and len(runs) != 2:
        raise ValueError(f"`compare` shows two runs side by side. Received: {len(runs)} runs")
    if not runs:
        raise ValueError("`runs` must name at least one run directory. Received: none")
    environment, out = template_environment(), Path(out)
    models = read_models(runs, is_merged=not compare)
    data = open_data(data, models[-1].runs[-1].evaluation)
    task = binary_task(data.schema, task)
    content = contents(models, data, task, compare=compare, num_samples=num_samples)
    arguments = ["--compare", *map(str, runs)] if compare else list(map(str, runs))
    page = environment.get_template("compare.html" if compare else "report.html").render(
        content,
        date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        command=shlex.join(["tfmtr", "report", *arguments, "--out", str(out)]),
        version=metadata.version("tfmtr"),
        files=f"{out.stem}_files",
    )
    folder = out.with_name(f"{out.stem}_files")
    folder.mkdir(parents=True, exist_ok=True)
    for chart in content["charts"].values():
        if chart is not None:
            (folder / f"{chart.name}.png").write_bytes(chart.png)
    out.write_text(page, encoding="utf-8")
    return out


def template_environment():
    """Jinja's environment of the page's templates, all of which escape what they are given."""
    try:
        import jinja2
    except ImportError as error:
        raise ImportError("Reports need Jinja: pip install 'tfmtr[plots]'") from error
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tfmtr.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip


def open_data(path, evaluation):
    """The `Prepared` directory that runs were evaluated on; by default where it was then."""
    path = Path(path or evaluation["data"])
    if not (path / "prepare.json").is_file():
        raise ValueError(
            "`data` must be the directory made by `tfmtr prepare` that the runs were evaluated on; say where it is "
            f"with --data. Received: {path}, which has no prepare.json"
        )
    data = Prepared(path)
    found = {"fingerprint": data.report["fingerprint"], "forgotten": data.report.get("forgotten", 0)}
    for key, value in found.items():
        if evaluation[key] != value:
            raise ValueError(
                f"`data` must be what the runs were evaluated on; name another directory, or evaluate them again. "
                f"Received: {path} with {key} {value}, not {evaluation[key]}"
            )
    return data


def binary_task(schema, name):
    """Name of the task that a page is about."""
    tasks = [task.name for task in schema.tasks if task.kind == "binary"]
    if not tasks:
        raise ValueError("`task` must be a binary task, and the data have none: PR-AUC needs one.")
    if name is not None:
        check_choice("task", name, tasks)
    return name or tasks[0]


def contents(models, data, task, *, compare, num_samples):
    """What the templates show, by name; `"charts"` are by theirs, `None` where there is too little evidence."""
    evaluation = models[-1].runs[-1].evaluation
    pairs, facts = read_pairs(data, models, task), title_facts(data, local_share=evaluation["local_share"])
    comparisons = compare_models(models, pairs, facts, task, num_samples=num_samples) if len(models) > 1 else []
    titles = describe_titles(choose_titles(pairs, facts), models, pairs, facts, data)
    in_figure = [title for kind in (True, False) for title in of_class(titles, kind)[:TITLES_IN_FIGURE]]
    territories = describe_territories(data, facts)
    with_vectors = models if compare else models[-1:]
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
        "comparisons": comparisons,
        "titles": titles,
        "figure_titles": in_figure,
        "class_shifts": shift_by_class(models, pairs, facts),
        "overview": overview(models, task),
        "territory_metrics": BY_TERRITORY,
        "by_territory": {
            name: overview(models, task, name) for name in [*(row["territory"] for row in territories), OVERALL]
        },
        "vector_models": [model.name for model in with_vectors],
        "territories": territories,
        "num_territories": len(territories),
        "num_major": sum(row["is_major"] for row in territories),
        "fingerprint": data.report["fingerprint"],
        "examples": sum_examples(data.report["examples"]),
        **{name: data.report[name] for name in ("warnings", "logs", "options")},
        "calendar": data.report["windows"],
        "records": records(models),
        "evaluate_command": evaluate_command(models),
        "versions": versions(models, data),
        "differences": differences(models),
        "charts": draw(models, pairs, facts, comparisons, in_figure, with_vectors, data),
    }


def of_class(titles, is_local):
    """Those of some `Title`s that are local, or those that are global."""
    return [title for title in titles if title.is_local == is_local]


def describe_territories(data, facts):
    """The data's territories, most training positives first, as dictionaries."""
    statistics = data.report["statistics"]["territories"]
    positives = {name: facts.territories.get(name, 0) for name in statistics}
    major, total = major_territories(positives), sum(positives.values())
    return [
        {
            "territory": name,
            "is_major": name in major,
            "training_positives": positives[name],
            "share": positives[name] / total,
            **statistics[name],
        }
        for name in sorted(positives, key=lambda name: (-positives[name], name))
    ]


def sum_examples(examples):
    """Rows and positives of each split and sampling, the training windows together."""
    sums = {}
    for part in examples:
        windows = "training" if part["window"] <= 0 else f"test {part['window']}"
        row = sums.setdefault((part["split"], part["sampling"], windows), {"rows": 0, "positives": 0})
        row["rows"] += part["rows"]
        row["positives"] += part["positives"]
    return [{"split": key[0], "sampling": key[1], "windows": key[2], **row} for key, row in sums.items()]


def draw(models, pairs, facts, comparisons, titles, with_vectors, data):
    """All charts of a page by name, `None` where there is too little evidence."""
    charts = {f"gains-{i}": functools.partial(gains_chart, comparison=of) for i, of in enumerate(comparisons, start=1)}
    for histogram in score_histograms(titles, models, pairs):
        charts[f"scores-{histogram.title.row}"] = functools.partial(histogram_chart, histogram=histogram)
    popularity = {"x": "share of popularity", "y": "share of recommendations", "diagonal": True}
    charts["exposure"] = functools.partial(lines_chart, lines=exposure_lines(models), **popularity)
    deciles = {"x": "decile of popularity", "y": "hit rate", "places": (1, 10)}
    charts["hit-rate"] = functools.partial(lines_chart, lines=hit_rate_lines(models), **deciles)
    is_local, axes = facts.local[pairs.titles], {"x": "mean score", "y": "observed rate", "diagonal": True}
    for name, rows in (("all", np.ones_like(is_local)), ("local", is_local), ("global", ~is_local)):
        lines = calibration_lines(models, pairs, rows)
        charts[f"calibration-{name}"] = functools.partial(lines_chart, lines=lines, **axes)
    for i, model in enumerate(models, start=1):
        lines = loss_lines(model.runs[0])
        charts[f"loss-{i}"] = functools.partial(
            lines_chart, lines=lines, x="epoch", y="loss", places=(1, len(lines[0].x))
        )
    for i, model in enumerate(with_vectors, start=1):
        for stage, groups in user_vectors(model.runs[0].path, data.path).items():
            charts[f"vectors-{i}-{stage}"] = functools.partial(tsne_chart, groups=groups)
    return {name: chart(name) for name, chart in charts.items()}

"""`report`: evaluated runs in, one HTML page and its figures out."""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmtr.checks import check_choice, check_integer, check_path
from tfmtr.datasets.dataset import Dataset
from tfmtr.folders import as_path
from tfmtr.reporting.contents import contents
from tfmtr.reporting.runs import read_models
from tfmtr.schema import Schema

if TYPE_CHECKING:
    import jinja2


def report(
    runs: str | os.PathLike | Sequence[str | os.PathLike],
    out: str | os.PathLike = "report.html",
    *,
    data: str | os.PathLike | None = None,
    compare: bool = False,
    task: str | None = None,
    num_samples: int = 1000,
) -> Path:
    """Writes a page about evaluated runs: one HTML file that needs no other, and its figures as PNG beside it.

    The last run's model is what the page is about: its gains are over each other model. Runs that differ in their
    seed only are one model, with mean and deviation.

    Args:
        runs: Run directories, or one, each evaluated by `tfmtr evaluate` on the same data.
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
    if not isinstance(runs, str | os.PathLike | Iterable):
        raise ValueError(f"`runs` must be run directories, or one. Received: runs={runs!r}")
    runs, out = [runs] if isinstance(runs, (str, os.PathLike)) else list(runs), check_path("out", out)
    check_integer("num_samples", num_samples, least=2)
    if compare and len(runs) != 2:
        raise ValueError(f"`compare` shows two runs side by side. Received: {len(runs)} runs")
    if not runs:
        raise ValueError("`runs` must name at least one run directory. Received: none")
    environment = template_environment()
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


def template_environment() -> jinja2.Environment:
    """Jinja's environment of the page's templates, all of which escape what they are given."""
    try:
        import jinja2
    except ImportError as error:
        raise ImportError("Reports need Jinja: pip install 'tfmtr[plots]'") from error
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tfmtr.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip


def open_data(path: str | os.PathLike | None, evaluation: Mapping[str, Any]) -> Dataset:
    """The `Dataset` directory that runs were evaluated on; by default where it was then."""
    path = as_path("data", evaluation["data"] if path is None else path)
    if not (path / "prepare.json").is_file():
        raise ValueError(
            "`data` must be the directory made by `tfmtr prepare` that the runs were evaluated on; say where it is "
            f"with --data. Received: {path}, which has no prepare.json"
        )
    data = Dataset(path)
    facts = {"fingerprint": data.report["fingerprint"], "forgotten": data.report.get("forgotten", 0)}
    for key, value in facts.items():
        if evaluation[key] != value:
            raise ValueError(
                f"`data` must be what the runs were evaluated on; name another directory, or evaluate them again. "
                f"Received: {path} with {key} {value}, not {evaluation[key]}"
            )
    return data


def binary_task(schema: Schema, name: str | None) -> str:
    """Name of the task that a page is about."""
    tasks = [task.name for task in schema.tasks if task.kind == "binary"]
    if not tasks:
        raise ValueError("`task` must be a binary task, and the data have none: PR-AUC needs one.")
    if name is not None:
        check_choice("task", name, tasks)
    return name or tasks[0]

"""`tfmtr evaluate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tfmtr.cli.common_options import RunDirectories, check_typed

if TYPE_CHECKING:
    from tfmtr.evaluation.evaluation import Evaluation


def evaluate(
    runs: RunDirectories,
    data: Annotated[
        Path | None, typer.Option(help="Directory made by `tfmtr prepare`; what each run was trained on by default.")
    ] = None,
    k: Annotated[int, typer.Option(help="Titles for recall@k.")] = 10,
    local_share: Annotated[
        float, typer.Option(help="A title is local in at most this share of the territories.")
    ] = 0.3,
    baselines: Annotated[
        str | None,
        typer.Option(help="Baselines to compare with, such as ease,als, or none; by default all that can be had."),
    ] = None,
    among: Annotated[
        int | None,
        typer.Option(help="Rank each positive among so many titles, too, as many papers do; 100 has 99 random others."),
    ] = None,
    retrieval: Annotated[
        Path | None,
        typer.Option(
            help="Run of two towers that finds the titles which ranking models order; by default the two-tower run "
            "among the runs, if there is one."
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(help="How many titles it finds for each user.")] = 500,
    metric: Annotated[
        list[str] | None, typer.Option(help="A further metric of lists, package.module:function; repeat.")
    ] = None,
) -> None:
    """Evaluate runs on the test windows, per territory, beside what people have without them.

    Writes evaluation.json into each run. Popularity, nearest neighbours, ALS, EASE and a blend see what the model may
    see, are tuned on validation users and fitted anew before each window. Lists are as they are served: titles that a
    user had before the window are in none. Those of a ranking model are of both stages.
    """
    names = [run.resolve().name for run in runs]
    names = [str(run) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]
    if len(set(names)) < len(names):
        raise ValueError(f"`runs` must name each run once. Received: {', '.join(map(str, runs))}")
    check_typed(runs=runs, data=data, metrics=metric)
    forms = {run: form_of(run) for run in runs}
    if retrieval is not None and "ranking" not in forms.values():
        raise ValueError(
            f"`--retrieval` is for ranking models. Received: runs of the forms {sorted(map(str, forms.values()))}"
        )
    towers = [run for run, form in forms.items() if form == "two_tower"]
    first = retrieval if retrieval is not None else towers[0] if len(towers) == 1 else None
    from tfmtr.evaluation.evaluate import evaluate as evaluate_run
    from tfmtr.evaluation.evaluation import print_tables

    chosen = None
    if baselines is not None:
        chosen = [] if baselines == "none" else [name.strip() for name in baselines.split(",")]
    options = {"k": k, "local_share": local_share, "baselines": chosen, "among": among, "metrics": metric or ()}
    stages = {run: {"retrieval": first, "candidates": candidates} for run in runs if forms[run] == "ranking"}
    found = {
        name: evaluate_run(run, data, **options, **stages.get(run, {})) for name, run in zip(names, runs, strict=True)
    }
    for together in by_data(found):
        print_tables(together, Console())


def by_data(found: Mapping[str, "Evaluation"]) -> list[dict[str, "Evaluation"]]:
    """Evaluations of the same rows side by side: those of a model of candidates are not those of its first stage."""
    groups: dict[str, dict[str, Evaluation]] = {}
    for name, evaluation in found.items():
        groups.setdefault(evaluation.document["fingerprint"], {})[name] = evaluation
    return list(groups.values())


def form_of(run: Path) -> str | None:
    """The form of a run's model; `None` of what is no run, which its evaluation says."""
    from tfmtr.run import Run

    try:
        return Run(run).recipe.form
    except ValueError:
        return None

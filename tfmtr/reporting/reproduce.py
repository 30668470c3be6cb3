"""What is needed to make the runs of a report again."""

import dataclasses
import datetime
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.baselines.table import BASELINES
from tfmtr.recipe import STORED_AS_TABLES as PARTS
from tfmtr.recipe import Recipe, as_toml
from tfmtr.reporting.runs import EvaluatedRun, Model


class Record(NamedTuple):
    """How one run came about.

    Attributes:
        model: Name of its model.
        seed: Its seed.
        run_id: Its id.
        started: Date and time, UTC.
        seconds: Of training.
        epochs: Number of epochs, all windows together.
        evaluated: Date.
        command: That trains it again.
        recipe: Its recipe, all fields.
    """

    model: str
    seed: int
    run_id: str
    started: str
    seconds: float
    epochs: int
    evaluated: str
    command: str
    recipe: dict[str, Any]


def records(models: Iterable[Model]) -> list[Record]:
    """A `Record` of every run, by model."""
    return [record(model.name, run) for model in models for run in model.runs]


def record(name: str, run: EvaluatedRun) -> Record:
    """The `Record` of a run of a model of this name."""
    stages = run.document["stages"].values()
    started = datetime.datetime.strptime(run.document["run_id"].partition("-")[0], "%Y%m%dT%H%M%S")
    return Record(
        model=name,
        seed=run.recipe.seed,
        run_id=run.document["run_id"],
        started=f"{started:%Y-%m-%d %H:%M}",
        seconds=sum(stage["seconds"] for stage in stages),
        epochs=sum(len(stage["history"]) for stage in stages),
        evaluated=run.evaluation["date"],
        command=train_command(run),
        recipe=run.recipe.document(),
    )


def train_command(run: EvaluatedRun) -> str:
    r"""The `tfmtr train` of a run.

    Example:
    >>> from tfmtr.reporting.runs import EvaluatedRun
    >>> recipe = Recipe(share=("ple", {"num_experts": 2}), upsample=False, units=(64, 32), seed=3).document()
    >>> train_command(EvaluatedRun("runs/a b", {"format": 3, "recipe": recipe, "data": "runs/data"}, {}))
    "tfmtr train --data runs/data --share ple --set share.num_experts=2 --no-upsample --units 64,32 --seed 3
     --out 'runs/a b'"
    >>> recipe = Recipe(groups={"DE": "own"}).document()
    >>> train_command(EvaluatedRun("runs/a", {"recipe": recipe, "data": "runs/data"}, {}))
    'tfmtr train --data runs/data --share territory_branches --set \'groups={DE = "own"}\' --seed 0 --out runs/a'
    """
    options, recipe = [], run.recipe
    for field in dataclasses.fields(Recipe):
        value, flag = getattr(recipe, field.name), field.name.replace("_", "-")
        if value == field.default and field.name not in ("share", "seed"):
            continue
        if isinstance(value, dict):
            options += ["--set", f"{field.name}={as_toml(value)}"]
        elif isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        elif field.name in PARTS and isinstance(value, tuple):
            options += [f"--{flag}", value[0]]
            for name, of_part in value[1].items():
                options += ["--set", f"{field.name}.{name}={as_toml(of_part)}"]
        else:
            options += [f"--{flag}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return shlex.join(["tfmtr", "train", "--data", run.document["data"], *options, "--out", str(run.path)])


def versions(models: Iterable[Model], data: Dataset) -> dict[str, str]:
    """`{package: {versions}}` of the runs and of the data, as sorted text; more than one where they differ."""
    by_package = {}
    documents = [data.report, *(of for model in models for run in model.runs for of in (run.document, run.evaluation))]
    for document in documents:
        for package, version in document["versions"].items():
            by_package.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(of)) for package, of in sorted(by_package.items())}


def differences(models: Iterable[Model]) -> dict[str, dict[str, Any]]:
    """`{field: {model: value}}` of the recipes' fields that are not the same in all models."""
    recipes = {model.name: dataclasses.asdict(model.runs[0].recipe) for model in models}
    return {
        field.name: {name: recipe[field.name] for name, recipe in recipes.items()}
        for field in dataclasses.fields(Recipe)
        if len({str(recipe[field.name]) for recipe in recipes.values()}) > 1
    }


def evaluate_command(models: Sequence[Model]) -> str:
    """The `tfmtr evaluate` of all runs."""
    evaluation = models[-1].runs[-1].evaluation
    paths = [str(run.path) for model in models for run in model.runs]
    options = [
        "--data",
        evaluation["data"],
        "--k",
        str(evaluation["k"]),
        "--local-share",
        str(evaluation["local_share"]),
    ]
    if evaluation.get("ranked_among") is not None:
        options += ["--among", str(evaluation["ranked_among"])]
    baselines = evaluation.get("baselines")
    if baselines is None and evaluation["lists"] and "baselines" in evaluation:
        options += ["--baselines", "none"]
    elif baselines is not None and set(baselines["tuned"]) != set(BASELINES):
        options += ["--baselines", ",".join(baselines["tuned"])]
    return shlex.join(["tfmtr", "evaluate", *paths, *options])

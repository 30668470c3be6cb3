"""Evaluated runs, put together by model: seeds of one recipe are one model."""

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfmtr.documents import read_json
from tfmtr.evaluation.metrics import Windows
from tfmtr.recipe import Recipe
from tfmtr.run import Run, recipe_of

SAME = {  # what runs must share to stand in one table, and what to do where they do not
    "fingerprint": "evaluate them on the same prepared directory",
    "forgotten": "evaluate all of them again, a user was forgotten since",
    "k": "evaluate them with the same --k",
    "local_share": "evaluate them with the same --local-share",
}


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """An evaluated run.

    Args:
        path: The run directory.
        document: Its `run.json`.
        evaluation: Its `evaluation.json`.
    """

    path: Path
    document: dict[str, Any]
    evaluation: dict[str, Any]

    @property
    def recipe(self) -> Recipe:
        """The `Recipe`."""
        return recipe_of(self.document)

    @property
    def scores(self) -> Path:
        """The file with the score of every test row."""
        return self.path / "scores.parquet"


class Model(NamedTuple):
    """Runs that differ in nothing but their seed.

    Attributes:
        name: For the reader: the run directory's, without a seed at its end.
        runs: `EvaluatedRun`s, one a seed, in the order they were named.
    """

    name: str
    runs: tuple[EvaluatedRun, ...]

    def results(self, task: str) -> list[Windows]:
        """`{window: {territory: cell}}` of a task, one for each run."""
        return [run.evaluation["tasks"][task]["territory"] for run in self.runs]


def read_models(paths: Iterable[str | os.PathLike], *, is_merged: bool = True) -> list[Model]:
    """Reads run directories.

    Args:
        paths: Run directories, each evaluated by `tfmtr evaluate`.
        is_merged: Whether runs whose recipes differ in the seed only are one model.

    Returns:
        List of `Model`, in the order in which each one's last run is named, so that the last run's model is the last.

    Raises:
        ValueError: If a directory is no run or was not evaluated, two runs are the same, or they were evaluated on
            different data or in different ways.
    """
    runs = [read_run(Path(path)) for path in paths]
    check_same(runs)
    members = {}
    for run in runs:
        recipe = run.recipe
        key = dataclasses.replace(recipe, seed=0) if is_merged else run.path
        same = members.pop(key, [])  # to the end, so that the last run's model is the last
        if others := [other.path for other in same if other.recipe.seed == recipe.seed]:
            raise ValueError(
                "Runs of one model must differ in their seed, or chance would look smaller than it is; name one of "
                f"them. Received: {run.path} and {others[0]}, both with seed {recipe.seed}"
            )
        members[key] = [*same, run]
    names = names_of([of[0].path for of in members.values()], has_seeds=not is_merged)
    return [Model(name, tuple(of)) for name, of in zip(names, members.values(), strict=True)]


def read_run(path: Path) -> EvaluatedRun:
    """An `EvaluatedRun`, or a `ValueError` that says which command is missing."""
    document, evaluation = Run(path).document, read_json(path / "evaluation.json")
    if evaluation is None or "lists" not in evaluation or not (path / "scores.parquet").is_file():
        what = "has no evaluation.json" if evaluation is None else "was evaluated by an earlier version"
        raise ValueError(
            f"`{path}` must be evaluated before a report: it {what}. Run `tfmtr evaluate {path} --data DATA`."
        )
    return EvaluatedRun(path, document, evaluation)


def check_same(runs: Sequence[EvaluatedRun]) -> None:
    """Raises a `ValueError` unless all runs were evaluated on the same data in the same way."""
    first = runs[0]
    for run in runs[1:]:
        for key, remedy in SAME.items():
            ours, theirs = first.evaluation[key], run.evaluation[key]
            if ours != theirs:
                raise ValueError(
                    f"Runs of one report must have the same {key.replace('_', ' ')}; {remedy}. "
                    f"Received: {first.path} with {ours}, {run.path} with {theirs}"
                )


def names_of(paths: Sequence[Path], *, has_seeds: bool = False) -> list[str]:
    """A short and different name for each path: its last parts, as few as needed.

    Args:
        paths: Run directories.
        has_seeds: Whether a seed at the end stays in a name; it does where names would be the same without.

    Example:
    >>> names_of([Path("runs/a/baseline-seed-0"), Path("runs/a/multi-task-seed-0")])
    ['baseline', 'multi-task']
    >>> names_of([Path("runs/a/baseline"), Path("runs/b/baseline")])
    ['a/baseline', 'b/baseline']
    """
    parts = [path.absolute().parts[1:] for path in paths]
    nothing, seed = r"(?!)", r"[-_. /]*seed[-_. ]*\d+$"
    for end in (nothing,) if has_seeds else (seed, nothing):
        for count in range(1, max(map(len, parts)) + 1):
            names = {re.sub(end, "", "/".join(part[-count:])): None for part in parts}
            if len(names) == len(paths) and "" not in names:
                return list(names)
    return [str(path) for path in paths]

"""What a run directory says of itself, whose run it is, and what is left of an earlier one."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmtr import precision, replicas
from tfmtr.datasets.dataset import Dataset
from tfmtr.diagnosis import warn
from tfmtr.documents import write_json
from tfmtr.folders import FORMATS
from tfmtr.recipe import Recipe
from tfmtr.run import LIST_MODEL, Run, precision_of, recipe_of, versions, weights_of, windows_of
from tfmtr.schema import Schema
from tfmtr.scratch import remove

if TYPE_CHECKING:
    pass

LEFT_BEHIND = ("run.tmp", "listwise.tmp", "weights/*.tmp", "checkpoint/*/*.tmp")  # by a kill in the middle of a write
OF_A_RUN = ("weights", "checkpoint", "logs", LIST_MODEL, "evaluation.json", "scores.parquet", "calibration.json")


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run is of, the same for all its stages.

    Args:
        workdir: Run directory.
        data: The `Dataset`.
        recipe: The `Recipe`.
        schema: The data's `Schema` as the recipe adapts it.
        policy: Name of the dtype policy.
        facts: What else its document says, such as the run that it goes on from.
    """

    workdir: Path
    data: Dataset
    recipe: Recipe
    schema: Schema
    policy: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def finished_windows(workdir: Path, data: Dataset) -> list[int]:
    """The test windows that a run has weights for, in order.

    Raises:
        ValueError: If those of an earlier window are lost, on which the later ones were trained.
    """
    finished = [window for window in data.test_windows if weights_of(workdir, window).exists()]
    if finished != data.test_windows[: len(finished)]:
        raise ValueError(
            "`out` must have the weights of every window before its last one; bring the lost file back, or remove the "
            f"later ones to train anew from the first that is lost. Received: {workdir} with those of {finished}, of "
            f"the windows {data.test_windows}"
        )
    return finished


def find_run(job: Job) -> dict[str, Any] | None:
    """The document of the same run that the job's directory holds; `None` where it holds none, or one that failed.

    Raises:
        ValueError: If it holds another run.
    """
    workdir, fingerprint = job.workdir, job.data.report["fingerprint"]
    document = {"recipe": job.recipe.document(), "fingerprint": fingerprint, **job.facts}
    if not (workdir / "run.json").exists():
        if windows_of(workdir) or (workdir / "checkpoint").exists():
            raise ValueError(
                "`out` must be new, or hold the same run to resume; choose another directory. Received: "
                f"{workdir}, which has weights or a checkpoint, but no run.json that says whose"
            )
        return None
    run = Run(workdir).document
    stored = {**run, "recipe": recipe_of(run).document()}
    different = [key for key, value in document.items() if stored.get(key) != value]
    if "failed" in run:
        is_same = not different and precision_of(run) == job.policy and Schema.load(workdir) == job.schema
        return run if is_same else None
    if Schema.load(workdir) != job.schema:
        different.append("schema")
    if different:
        raise ValueError(
            f"`out` must be new, or hold the same run to resume; choose another directory. "
            f"Received: {workdir}, whose {' and '.join(sorted(different))} differ"
        )
    precision.check_policy(precision_of(run), workdir, job.policy)
    return run


def open_run(run: dict[str, Any] | None, job: Job, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Writes the document of a new run, in the place of one that failed, or tidies up after the same one was killed.

    What fails before this leaves the directory as it was.
    """
    for text in warnings:
        warn(text)
    replicas.wait()  # until all workers have read what there is
    if run is None:
        run = new_run(job, warnings)
        if replicas.is_chief():
            _write_anew(job.workdir, job.schema, run)
    else:
        run.pop("failed", None)  # in the file it stays until a stage has ended better
        if replicas.is_chief():
            tidy(job.workdir)
    replicas.wait()  # until the chief has done so
    return run


def new_run(job: Job, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """The document of a run that begins."""
    fingerprint = job.data.report["fingerprint"]
    return {
        "format": FORMATS["run"],
        "recipe": job.recipe.document(),
        "fingerprint": fingerprint,
        **job.facts,
        "run_id": f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{fingerprint[:8]}-{job.recipe.seed}",
        "data": str(job.data.path.absolute()),
        "windows": [job.data.next_window] if "start" in job.facts else job.data.test_windows,
        "versions": versions(),
        "dtype_policy": job.policy,
        "warnings": list(warnings),
        "stages": {},
    }


def _write_anew(workdir: Path, schema: Schema, run: Mapping[str, Any]) -> None:
    """Writes a new run's documents, when nothing is left of one that failed; a kill in between leaves none or that."""
    workdir.mkdir(parents=True, exist_ok=True)
    if (workdir / "run.json").exists():
        for name in OF_A_RUN:
            remove(workdir / name)
        (workdir / "run.json").unlink()
    schema.save(workdir)
    write_json(workdir / "run.json", run)


def tidy(workdir: Path) -> None:
    """Removes what a kill in the middle of a write, or right after the last one, left behind."""
    for pattern in LEFT_BEHIND:
        for file in workdir.glob(pattern):
            file.unlink()
    for folder in workdir.glob("checkpoint/window-*"):
        if weights_of(workdir, folder.name.removeprefix("window-")).exists():
            shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # one of a stage in progress is in it
        (workdir / "checkpoint").rmdir()

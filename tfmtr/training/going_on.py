"""A run that goes on from another one's newest model: what a service does every day."""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfmtr import inputs, precision, replicas
from tfmtr.checks import check_integer, check_path
from tfmtr.datasets.dataset import Dataset
from tfmtr.folders import check_out
from tfmtr.growth import grow_schema, warm_start
from tfmtr.private_names import op_determinism
from tfmtr.run import LIST_MODEL, Run, precision_of, weights_of
from tfmtr.training.callbacks import lines_of
from tfmtr.training.run_document import Job, find_run, open_run
from tfmtr.training.stages import Stage, end_stage, fit_stage

if TYPE_CHECKING:
    pass


def go_on(
    run: str | os.PathLike,
    data: str | os.PathLike,
    files: Sequence[Path],
    out: str | os.PathLike,
    *,
    epochs: int = 1,
    verbose: str | int = "auto",
) -> list[str]:
    """Trains a run's newest model on more data, as a run of its own: what a service does every day.

    The model starts with the weights and the optimizer's state of `run`; vocabularies and territory groups may have
    grown, see `tfmtr.growth`. A run that was killed goes on where it was; a finished one is left as it is.

    Args:
        run: Run directory of the model so far.
        data: Directory made by `tfmtr prepare`, of the new data.
        files: Example files to train on.
        out: Run directory; made if it does not exist.
        epochs: Times that each row is seen.
        verbose: As for Keras `fit`.

    Returns:
        Names of the variables that grew or are new, sorted.

    Raises:
        ValueError: If `data` does not fit the model, `files` is empty, the list model of `run` is damaged, or `out`
            holds another run, unless that failed; if no epoch's losses and variables are finite.
    """
    epochs = check_integer("epochs", epochs, least=1)
    data, workdir, before = Dataset(data), check_path("out", out), Run(run)
    check_out(workdir, "run")
    recipe, window, policy = before.recipe, data.next_window, precision_of(before.document)
    old = before.schema
    schema = grow_schema(old, recipe.adapt(data.schema))
    job = Job(workdir, data, recipe, schema, policy, {"start": before.run_id})
    document = find_run(job)
    if document and weights_of(workdir, window).exists():
        return open_run(document, job)["grown"]
    inputs.check_rows(data, files, "training")
    with op_determinism(recipe.deterministic), precision.use(policy):
        model = recipe.build(schema)
        grown = warm_start(model, schema, old, before.weights())
        document = open_run(document, job)
        document["grown"] = grown
        started = time.perf_counter()
        keep = fit_stage(model, job, Stage(window, files, epochs=epochs), verbose=lines_of(verbose))
        has_list_model = before.list_model is not None
        document["listwise"] = {"reason": None if has_list_model else "the run that this one goes on from has none"}
        if has_list_model and replicas.is_chief():
            shutil.copyfile(before.path / LIST_MODEL, workdir / "listwise.tmp")
            (workdir / "listwise.tmp").rename(workdir / LIST_MODEL)
        end_stage(job, document, model, keep, window=window, started=started)
    return grown

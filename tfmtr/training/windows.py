"""A run, window by window: the training window, then the slice of each further one."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmtr import inputs, precision, replicas
from tfmtr.checkpoints import restore
from tfmtr.checks import check_path
from tfmtr.datasets.dataset import Dataset
from tfmtr.diagnosis import losses_of, uneven_losses
from tfmtr.documents import write_json
from tfmtr.folders import check_out
from tfmtr.models import JointModel
from tfmtr.private_names import op_determinism
from tfmtr.recipe import Recipe
from tfmtr.run import LIST_MODEL, Run, weights_of
from tfmtr.schema import Schema
from tfmtr.training.callbacks import lines_of
from tfmtr.training.run_document import Job, find_run, finished_windows, open_run
from tfmtr.training.stages import Stage, end_stage, fit_stage, samplings_of

if TYPE_CHECKING:
    pass


def train(
    data: str | os.PathLike, out: str | os.PathLike, recipe: Recipe | None = None, *, verbose: str | int = "auto"
) -> Run:
    """Trains a model, window by window, and leaves everything in `out`.

    The training window is fitted with early stopping on validation users. Then, for each further test
    window i, the model is trained for one epoch on the slice of window i - 1 (users disjoint from all test
    users), as in Gampa et al. 2023, section 4.2. A run that was killed goes on where it was: finished
    windows are kept, the interrupted epoch starts again with the same order.

    In the scope of a `tf.distribute` strategy (see `tfmtr.replicas`) the replicas share each batch: `batch_size` is
    that of all. Workers read their own part of the files, and the first one writes `out`, which all must see.

    Args:
        data: Directory made by `tfmtr prepare`.
        out: Run directory; made if it does not exist.
        recipe: The `Recipe`; a run that is resumed must have the same one.
        verbose: As for Keras `fit`.

    Returns:
        The `Run`, whose `model` is as of the last test window.

    Raises:
        ValueError: If `out` holds a run of another recipe, of other data or of another dtype policy, unless that
            run failed, or of which weights are lost; if `out` is a folder of another kind; if the recipe does not fit
            the data, or has a balancer and there are several replicas: then nothing is written. If a stage has no
            epoch whose losses and variables are finite: that run has failed, and any recipe may take its place.
    """
    if not isinstance(recipe, Recipe | None):
        raise ValueError(f"`recipe` must be a `Recipe`; `Recipe.load(file)` reads a file. Received: recipe={recipe!r}")
    recipe, data, workdir = recipe or Recipe(), Dataset(data), check_path("out", out)
    check_out(workdir, "run")
    schema, policy = recipe.adapt(data.schema), recipe.precision or precision.current()
    _check_rows(data, recipe)
    job = Job(workdir, data, recipe, schema, policy)
    run = find_run(job)
    finished_windows(workdir, data)
    with op_determinism(recipe.deterministic), precision.use(policy):
        model = recipe.build(schema)
        warnings = [] if run else starting_warnings(model, data, schema, recipe)
        run = open_run(run, job, warnings)
        _train_windows(model, job, run, lines_of(verbose))
        if recipe.listwise and not (workdir / LIST_MODEL).exists():
            _order_lists(model, job, run)
    trained = Run(workdir)
    trained.model = model
    return trained


def train_first_window(
    data: Dataset, out: str | os.PathLike, recipe: Recipe, *, of: Dataset, callbacks: Sequence[Any] = ()
) -> JointModel:
    """Trains the model of the first test window, as `train` does, and nothing after it: what a search tries.

    What is left in `out` is a run that `train` goes on with.

    Args:
        data: The `Dataset` whose training windows are read.
        out: Run directory, which does not exist.
        recipe: The `Recipe`.
        of: The `Dataset` that the run is said to be of; only its `prepare.json` is read.
        callbacks: Keras callbacks of one's own.

    Returns:
        The model as of its best epoch.

    Raises:
        ValueError: If the recipe does not fit the data, or no epoch is finite.
    """
    schema, policy, workdir = recipe.adapt(data.schema), recipe.precision or precision.current(), Path(out)
    with op_determinism(recipe.deterministic), precision.use(policy):
        model = recipe.build(schema)
        run = open_run(None, Job(workdir, of, recipe, schema, policy))
        window, started = of.test_windows[0], time.perf_counter()
        job, files = (
            Job(workdir, data, recipe, schema, policy),
            data.rows_for(recipe.form, "train", sampling=samplings_of(recipe)),
        )
        stage = Stage(window, files, data.rows_for(recipe.form, "validation"))
        keep = fit_stage(model, job, stage, verbose=0, callbacks=callbacks)
        end_stage(job, run, model, keep, window=window, started=started)
    return model


def _check_rows(data: Dataset, recipe: Recipe) -> None:
    """Raises a `ValueError` unless there is something to train on, to validate with and to train for."""
    if not data.test_windows:
        raise ValueError(
            "`data` must have a test window, which a model is trained for; prepare with --test-windows 1 or more. "
            f"Received: {data.path} without one"
        )
    if recipe.debias is not None and replicas.number() > 1:
        raise ValueError(
            "`debias` must be left out with several replicas: popularity is counted, and titles are compared, in one. "
            f"Received: debias={recipe.debias!r}, {replicas.number()} replicas"
        )
    files = data.rows_for(recipe.form, "train", sampling=samplings_of(recipe))
    inputs.check_rows(data, files, "training")
    if recipe.row_weights is not None:
        inputs.check_row_weights(files, recipe.row_weights)
    inputs.check_rows(data, data.rows_for(recipe.form, "validation"), "validation")


def starting_warnings(model: JointModel, data: Dataset, schema: Schema, recipe: Recipe) -> list[str]:
    """What can be said before the first step; reads the first rows, so that those which do not fit fail here."""
    found = []
    if left_out := [feature.name for feature in data.schema.counters if feature not in schema.counters]:
        found.append(
            "a two-tower model knows no counter of a title, or of a user's side and a title: an index has one vector "
            f"of a title for all. A ranking model reads them. Left out: {left_out[0]} and {len(left_out) - 1} more"
        )
    if replicas.number() > 1:
        return found
    files = data.rows_for(recipe.form, "train", sampling=samplings_of(recipe))
    losses = losses_of(model, data, files, schema, batch_size=recipe.batch_size)
    text = uneven_losses(losses, schema.tasks) if recipe.balance is None else None
    return [*found, text] if text else found


def _train_windows(model: JointModel, job: Job, run: dict[str, Any], verbose: str | int) -> None:
    """Trains what `run` still lacks, window by window."""
    data, workdir, form = job.data, job.workdir, job.recipe.form
    validation = data.rows_for(form, "validation")
    finished = finished_windows(workdir, data)
    if finished:
        restore(model, weights_of(workdir, finished[-1]))
    for window in data.test_windows[len(finished) :]:
        first = window == data.test_windows[0]
        windows = None if first else [window - 1]  # the whole training window, or the slice of the day before
        files = data.rows_for(form, "train", windows=windows, sampling=samplings_of(job.recipe))
        started, keep = time.perf_counter(), None
        if first or inputs.num_rows(files):
            keep = fit_stage(model, job, Stage(window, files, validation if first else None), verbose=verbose)
        end_stage(job, run, model, keep, window=window, started=started)


def _order_lists(model: JointModel, job: Job, run: dict[str, Any]) -> None:
    """Fits the run's list model beside the towers as they were for the first test window."""
    from tfmtr.listwise.fit import fit_list_model, why_not

    data, workdir = job.data, job.workdir
    reason, started = why_not(data, job.recipe.form), time.perf_counter()
    if reason is None and data.has_given_rows:
        reason = "the data are rows that were given (`tfmtr prepare rows`): what users had before them is not known"
    if job.recipe.debias is not None:
        reason = "`debias` is to make lists less popular, and a list model orders them by popularity, too"
    run["listwise"] = {"reason": reason}
    if reason is None and replicas.is_chief():
        restore(model, weights_of(workdir, data.test_windows[0]))
        list_model, document = replicas.alone(lambda: fit_list_model(model, data, job.schema, seed=job.recipe.seed))
        restore(model, weights_of(workdir, data.test_windows[-1]))
        run["listwise"] |= {**document, "seconds": round(time.perf_counter() - started, 2)}
        list_model.save(workdir / "listwise.tmp")
        (workdir / "listwise.tmp").rename(workdir / LIST_MODEL)
    if replicas.is_chief():
        write_json(workdir / "run.json", run)
    replicas.wait()

"""Training: Keras `fit` that survives a kill, with the paper's incremental daily training. See `tfmtr.run`."""

import contextlib
import dataclasses  # noqa: F401 - scripts say `training.dataclasses.replace(recipe, ...)`
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from tfmtr import inputs, precision, replicas
from tfmtr.at_hand import chosen_by_sampling, rows_at_hand
from tfmtr.checkpoints import KeepState, restore, save
from tfmtr.checks import check_integer, check_path
from tfmtr.datasets.dataset import Dataset
from tfmtr.diagnosis import describe, losses_of, not_finite, not_finite_error, uneven_losses, warn
from tfmtr.documents import write_json
from tfmtr.folders import FORMATS, check_out
from tfmtr.growth import grow_schema, warm_start
from tfmtr.models import JointModel
from tfmtr.private_names import moving_averages, op_determinism
from tfmtr.recipe import Recipe, optimizer_of
from tfmtr.run import LIST_MODEL, Run, precision_of, recipe_of, versions, weights_of, windows_of
from tfmtr.schema import Schema
from tfmtr.scratch import remove

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "CONTROLS",
    "PAPER",
    "Fitted",
    "Recipe",
    "fit",
    "go_on",
    "optimizer_of",
    "restore",
    "save",
    "train",
    "train_first_window",
]

LEFT_BEHIND = ("run.tmp", "listwise.tmp", "weights/*.tmp", "checkpoint/*/*.tmp")  # by a kill in the middle of a write
OF_A_RUN = ("weights", "checkpoint", "logs", LIST_MODEL, "evaluation.json", "scores.parquet", "calibration.json")
# The three models of Gampa et al. 2023, section 4.2, and the controls that a gain of branches is compared with.
PAPER = {
    "baseline": Recipe(share="none", upsample=False),
    "baseline + upsampling": Recipe(share="none"),
    "multi-task": Recipe(share="territory_branches"),
}
CONTROLS = {
    "one group": Recipe(share="territory_branches", groups="one"),
    "random groups": Recipe(share="territory_branches", groups="random"),
}


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
    run = _find_run(workdir, recipe, schema, data, policy)
    _finished(workdir, data)
    with op_determinism(recipe.deterministic), precision.use(policy):
        model = recipe.build(schema)
        warnings = [] if run else _starting_warnings(model, data, schema, recipe)
        run = _open_run(run, workdir, recipe, schema, data, policy, warnings=warnings)
        _train(model, data, workdir, recipe, schema, run, _lines(verbose))
        if recipe.listwise and not (workdir / LIST_MODEL).exists():
            _order_lists(model, data, workdir, recipe, schema, run)
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
        run = _open_run(None, workdir, recipe, schema, of, policy)
        window, started = of.test_windows[0], time.perf_counter()
        keep = _fit_stage(
            model, data, data.examples("train", sampling=_samplings(recipe)), schema, recipe, workdir, window=window,
            validation=data.examples("validation"), verbose=0, callbacks=callbacks,
        )  # fmt: skip
        _end_stage(run, model, keep, recipe, workdir, window, started)
    return model


class Fitted(NamedTuple):
    """What `fit` returns.

    Attributes:
        model: The `JointModel` as of the best epoch.
        history: `{figure: [one float an epoch]}`, as Keras has it; `judged` where there is a judge.
    """

    model: Any
    history: dict[str, list[float]]


class Judge(keras.callbacks.Callback):
    """Adds a figure to an epoch's: `judge(model)`, under the name `judged`."""

    def __init__(self, judge: Callable[[Any], float]) -> None:
        super().__init__()
        self.judge = judge

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Judges the model."""
        logs["judged"] = float(self.judge(self.model))


def fit(
    recipe: Recipe,
    schema: Schema,
    train: Any,
    validation: Any = None,
    *,
    judge: Callable[[Any], float] | None = None,
    callbacks: Sequence[Any] = (),
    verbose: str | int = 0,
) -> Fitted:
    """Trains a recipe's model on rows that are at hand, without a run directory: what studies and notebooks do.

    Args:
        recipe: The `Recipe`. With `row_weights` the rows must have weights; without `upsample` they must tell which are
            of active users.
        schema: The `Schema` of the rows.
        train: `(x, y)` or `(x, y, weights of rows)`, arrays encoded with `recipe.adapt(schema)`, see
            `tfmtr.inputs.encode_frame`; a DataFrame, whose column `row_weights` are the weights, and whose column
            `sampling` may tell `"random"` and `"active"` users' rows apart; or a `tf.data.Dataset` of such batches that
            knows how many they are. Arrays are shuffled anew in each epoch, by the recipe's seed.
        validation: The same, or `None`; its rows are all used.
        judge: Function of the model whose value is the better the lower it is; by default the loss of `validation`.
            It decides which epoch is kept, and with the recipe's patience when training ends. Without it and without
            `validation` the last epoch is kept.
        callbacks: Keras callbacks of one's own, called before the judge; what they add to an epoch's `logs` is in the
            history.
        verbose: As for Keras `fit`.

    Returns:
        A `Fitted`.

    Raises:
        ValueError: If an argument is of another kind, the recipe does not fit the schema, the rows lack what the recipe
            asks of them, arrays are not encoded, a dataset does not know how many batches it has, or no epoch has a
            finite figure to be judged by.

    Example:
    >>> from tfmtr.schema import Feature, Scenario, Task
    >>> schema = Schema([Feature("age", "user", "number")], [Task("click")], Scenario(["land"], {("DE",): "west"}))
    >>> x = {"age": np.linspace(-1, 1, 64, dtype="float32"), "scenario": np.ones(64, "int32")}
    >>> recipe = Recipe(form="ranking", share="none", epochs=5, batch_size=16, learning_rate=0.1)
    >>> losses = fit(recipe, schema, (x, {"click": (x["age"] > 0).astype("float32")})).history["loss"]
    >>> losses[-1] < losses[0]
    True
    """
    for name, value, kind in (("recipe", recipe, Recipe), ("schema", schema, Schema)):
        if not isinstance(value, kind):
            raise ValueError(f"`{name}` must be a {kind.__name__}. Received: a {type(value).__name__}")
    if judge is not None and not callable(judge):
        raise ValueError(f"`judge` must be a function from a model to a number. Received: judge={judge!r}")
    schema = recipe.adapt(schema)
    train = rows_at_hand("train", chosen_by_sampling(train, recipe), schema, recipe)
    if validation is not None:
        validation = rows_at_hand("validation", validation, schema, recipe)
    batches = hasattr(train, "cardinality")
    if not batches and not (isinstance(train, tuple) and len(train) in (2, 3) and isinstance(train[0], Mapping)):
        raise ValueError(
            "`train` must be (x, y) or (x, y, weights) of arrays by name, a DataFrame, or a `tf.data.Dataset` of "
            f"batches. Received: a {type(train).__name__}"
        )
    if batches:
        steps, arguments = int(train.cardinality()), {"x": train}  # pyright: ignore[reportAttributeAccessIssue]
    else:
        x, y = inputs.as_arrays(train[0], train[1], schema)
        steps = -(-len(x["scenario"]) // recipe.batch_size)
        arguments = {"x": x, "y": y, "sample_weight": (*train, None)[2]}
    if steps < 1:
        raise ValueError(
            "`train` must be a dataset that knows how many batches it has "
            f"(`tf.data.experimental.assert_cardinality`). Received: {steps} batches"
        )
    with op_determinism(recipe.deterministic), precision.use(recipe.precision or precision.current()):
        model = recipe.build(schema)
        chain: list[Any] = [*averages_of(model), *callbacks, *([] if judge is None else [Judge(judge)])]
        monitor = "judged" if judge is not None else None if validation is None else "val_loss"
        if monitor is not None:
            patience = recipe.patience_of(steps)
            stop = keras.callbacks.EarlyStopping(monitor, mode="min", patience=patience, restore_best_weights=True)
            chain.append(stop)
        if recipe.updates is not None:
            chain.append(StopAfter(recipe.updates))
        history = model.fit(
            **arguments,
            batch_size=None if batches else recipe.batch_size,
            shuffle=not batches,  # a dataset has its own order
            epochs=recipe.epochs_of(steps),
            validation_data=validation,
            validation_batch_size=recipe.batch_size,  # a loss is a mean of batches' means
            callbacks=chain,
            verbose=verbose,
        ).history
    if not np.isfinite(history[monitor or "loss"]).any():
        raise ValueError(
            f"No epoch has a finite {monitor or 'loss'}: lower `learning_rate`, or look at the data. Received: "
            f"{history[monitor or 'loss']}"
        )
    return Fitted(model, history)


def averages_of(model: JointModel) -> list[keras.callbacks.Callback]:
    """Callbacks by which each epoch is judged and kept with the moving averages of the weights, if there are any."""
    return [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if getattr(model.optimizer, "use_ema", False) else []


def _lines(verbose: str | int) -> str | int:
    """A progress bar is for a terminal; elsewhere an epoch is one plain line."""
    return verbose if verbose != "auto" else 1 if sys.stdout.isatty() else 2


def _samplings(recipe: Recipe) -> tuple[str, ...]:
    return ("random", "active") if recipe.upsample else ("random",)


def _check_rows(data: Dataset, recipe: Recipe) -> None:
    """Raises a `ValueError` unless there is something to train on, to validate with and to train for."""
    if not data.test_windows:
        raise ValueError(
            "`data` must have a test window, which a model is trained for; prepare with --test-windows 1 or more. "
            f"Received: {data.path} without one"
        )
    files = data.examples("train", sampling=_samplings(recipe))
    inputs.check_rows(data, files, "training")
    if recipe.row_weights is not None:
        inputs.check_row_weights(files, recipe.row_weights)
    inputs.check_rows(data, data.examples("validation"), "validation")


def _starting_warnings(model: JointModel, data: Dataset, schema: Schema, recipe: Recipe) -> list[str]:
    """What can be said before the first step; reads the first rows, so that those which do not fit fail here."""
    if replicas.number() > 1:
        return []
    files = data.examples("train", sampling=_samplings(recipe))
    losses = losses_of(model, data, files, schema, batch_size=recipe.batch_size)
    text = uneven_losses(losses, schema.tasks) if recipe.balance is None else None
    return [text] if text else []


def _train(
    model: JointModel,
    data: Dataset,
    workdir: Path,
    recipe: Recipe,
    schema: Schema,
    run: dict[str, Any],
    verbose: str | int,
) -> None:
    """Trains what `run` still lacks, window by window."""
    validation = data.examples("validation")
    finished = _finished(workdir, data)
    if finished:
        restore(model, weights_of(workdir, finished[-1]))
    for window in data.test_windows[len(finished) :]:
        first = window == data.test_windows[0]
        windows = None if first else [window - 1]  # the whole training window, or the slice of the day before
        files = data.examples("train", windows=windows, sampling=_samplings(recipe))
        started, keep = time.perf_counter(), None
        if first or inputs.num_rows(files):
            keep = _fit_stage(
                model, data, files, schema, recipe, workdir, window=window,
                validation=validation if first else None, verbose=verbose,
            )  # fmt: skip
        _end_stage(run, model, keep, recipe, workdir, window, started)


def _order_lists(
    model: JointModel, data: Dataset, workdir: Path, recipe: Recipe, schema: Schema, run: dict[str, Any]
) -> None:
    """Fits the run's list model beside the towers as they were for the first test window."""
    from tfmtr.listwise.fit import fit_list_model, why_not

    reason, started = why_not(data, recipe.form), time.perf_counter()
    run["listwise"] = {"reason": reason}
    if reason is None and replicas.is_chief():
        restore(model, weights_of(workdir, data.test_windows[0]))
        found, document = replicas.alone(lambda: fit_list_model(model, data, schema, seed=recipe.seed))
        restore(model, weights_of(workdir, data.test_windows[-1]))
        run["listwise"] |= {**document, "seconds": round(time.perf_counter() - started, 2)}
        found.save(workdir / "listwise.tmp")
        (workdir / "listwise.tmp").rename(workdir / LIST_MODEL)
    if replicas.is_chief():
        write_json(workdir / "run.json", run)
    replicas.wait()


def _finished(workdir: Path, data: Dataset) -> list[int]:
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


def _end_stage(
    run: dict[str, Any],
    model: JointModel,
    keep: KeepState | None,
    recipe: Recipe,
    workdir: Path,
    window: int,
    started: float,
) -> None:
    """Writes what is known after a stage, and drops its checkpoint.

    Raises:
        ValueError: If the stage, whose state is `keep`, has no finite epoch.
    """
    replicas.wait()  # until all workers have read the checkpoint
    history = keep.history if keep else []
    if keep and keep.best_epoch is None:
        reason = not_finite_error(window, keep.problems, recipe, precision_of(run))
        if replicas.is_chief():
            write_json(
                workdir / "run.json", {**run, "failed": {"window": window, "reason": reason, "history": history}}
            )
            shutil.rmtree(workdir / "checkpoint", ignore_errors=True)
        raise ValueError(reason)
    if keep and keep.problems:
        epochs = ", ".join(str(problem["epoch"] + 1) for problem in keep.problems)
        text = f"window {window}: not finite in epochs {epochs} ({describe(keep.problems)}); kept is epoch "
        _warn(run, f"{text}{keep.best_epoch + 1}, the best of the others. Lower --learning-rate, or look at the data")
    if keep and (stuck := not_finite(model.optimizer.variables)):
        text = f"window {window}: the optimizer's state is not finite for {len(stuck)} variables, the first one "
        _warn(run, f"{text}{stuck[0]}, which may never learn again. Lower --learning-rate, or look at the data")
    run.setdefault("stages", {})
    run["stages"][str(window)] = {"history": history, "seconds": round(time.perf_counter() - started, 2)}
    if replicas.is_chief():
        write_json(workdir / "run.json", run)
        save(model, weights_of(workdir, window))
        shutil.rmtree(workdir / "checkpoint", ignore_errors=True)


def _warn(run: dict[str, Any], text: str) -> None:
    """Says a line, and has the run document remember it."""
    warn(text)
    if text not in run.setdefault("warnings", []):
        run["warnings"].append(text)


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
    facts = {"start": before.run_id}
    document = _find_run(workdir, recipe, schema, data, policy, **facts)
    if document and weights_of(workdir, window).exists():
        return _open_run(document, workdir, recipe, schema, data, policy, **facts)["grown"]
    inputs.check_rows(data, files, "training")
    with op_determinism(recipe.deterministic), precision.use(policy):
        model = recipe.build(schema)
        grown = warm_start(model, schema, old, before.weights())
        document = _open_run(document, workdir, recipe, schema, data, policy, **facts)
        document["grown"] = grown
        started = time.perf_counter()
        keep = _fit_stage(
            model, data, files, schema, recipe, workdir, window=window, validation=None, epochs=epochs,
            verbose=_lines(verbose),
        )  # fmt: skip
        has_list_model = before.list_model is not None
        document["listwise"] = {"reason": None if has_list_model else "the run that this one goes on from has none"}
        if has_list_model and replicas.is_chief():
            shutil.copyfile(before.path / LIST_MODEL, workdir / "listwise.tmp")
            (workdir / "listwise.tmp").rename(workdir / LIST_MODEL)
        _end_stage(document, model, keep, recipe, workdir, window, started)
    return grown


class StopAfter(keras.callbacks.Callback):
    """Ends training after so many updates of the optimizer, wherever in an epoch that is."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.updates = updates

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the optimizer's count."""
        model: Any = self.model
        if int(model.optimizer.iterations) >= self.updates:
            model.stop_training = True


def _fit_stage(
    model: JointModel,
    data: Dataset,
    files: Sequence[Path],
    schema: Schema,
    recipe: Recipe,
    workdir: Path,
    *,
    window: int,
    validation: Sequence[Path] | None,
    verbose: str | int,
    epochs: int = 1,
    callbacks: Sequence[Any] = (),
) -> KeepState:
    """Fits one window; returns its `KeepState`, and the model has the best epoch's variables if there is one.

    `files` and `validation` are example files, those of validation `None` where there is no early stopping: then there
    are `epochs`, otherwise what the recipe says. `callbacks` are called before the stage's own.
    """
    steps = inputs.num_steps(files, recipe.batch_size)
    patience = None
    if validation is not None:
        epochs, patience = recipe.epochs_of(steps), recipe.patience_of(steps)

    def losses() -> dict[str, float]:
        return losses_of(model, data, files, schema, batch_size=recipe.batch_size, num_batches=1)

    keep = KeepState(
        workdir / "checkpoint" / f"window-{window}",
        model,
        patience=patience,
        losses=losses if replicas.number() == 1 else dict,
    )
    chain = [*callbacks, *averages_of(model)]
    if validation is not None and recipe.updates is not None:
        chain.append(StopAfter(recipe.updates))
    if replicas.is_chief():
        chain.append(keras.callbacks.TensorBoard(str(workdir / "logs" / f"window-{window}"), write_graph=False))
    keep.others = chain
    if not keep.is_finished:
        known, known_steps = _batches(data, validation, recipe, schema) if validation is not None else (None, None)
        # Epochs of different windows must differ in order too, hence the window in the seed.
        seed = [recipe.seed, window]
        order, shared_steps = _batches(data, files, recipe, schema, seed=seed, first_epoch=keep.next_epoch)
        model.fit(
            order, steps_per_epoch=shared_steps, validation_data=known, validation_steps=known_steps, epochs=epochs,
            initial_epoch=keep.next_epoch, verbose=verbose if replicas.is_chief() else 0, shuffle=False,
            callbacks=[*chain, keep],
        )  # fmt: skip
        replicas.wait()  # until the chief has written the best epoch
    if keep.best_epoch is not None:
        restore(model, keep.best)
        _restart_averages(model)
    return keep


def _restart_averages(model: JointModel) -> None:
    """Begins the moving averages of the weights, if there are any, at those that were kept, for the next stage."""
    if getattr(model.optimizer, "use_ema", False):
        averages = moving_averages(model.optimizer)
        for average, variable in zip(averages, model.trainable_variables, strict=True):
            average.assign(variable)


def _batches(
    data: Dataset, files: Sequence[Path], recipe: Recipe, schema: Schema, **order: Any
) -> tuple["tf.data.Dataset | tf.distribute.DistributedDataset", int | None]:
    """Batches for `fit`, and the steps of an epoch where several replicas share them."""

    def read(context: "tf.distribute.InputContext | None" = None) -> "tf.data.Dataset":
        return inputs.batches(
            data,
            files,
            batch_size=recipe.batch_size,
            schema=schema,
            context=context,
            weights=recipe.row_weights,
            **order,
        )

    if replicas.number() == 1:
        return read(), None
    shared = replicas.strategy().distribute_datasets_from_function(lambda context: read(context).repeat())
    return shared, inputs.num_steps(files, recipe.batch_size)


def _find_run(
    workdir: Path, recipe: Recipe, schema: Schema, data: Dataset, policy: str, **facts: Any
) -> dict[str, Any] | None:
    """The document of the same run that `workdir` holds; `None` where it holds none, or one that failed.

    Raises:
        ValueError: If it holds another run.
    """
    document = {"recipe": recipe.document(), "fingerprint": data.report["fingerprint"], **facts}
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
        is_same = not different and precision_of(run) == policy and Schema.load(workdir) == schema
        return run if is_same else None
    if Schema.load(workdir) != schema:
        different.append("schema")
    if different:
        raise ValueError(
            f"`out` must be new, or hold the same run to resume; choose another directory. "
            f"Received: {workdir}, whose {' and '.join(sorted(different))} differ"
        )
    precision.check_policy(precision_of(run), workdir, policy)
    return run


def _open_run(
    run: dict[str, Any] | None,
    workdir: Path,
    recipe: Recipe,
    schema: Schema,
    data: Dataset,
    policy: str,
    warnings: Sequence[str] = (),
    **facts: Any,
) -> dict[str, Any]:
    """Writes the document of a new run, in the place of one that failed, or tidies up after the same one was killed.

    What fails before this leaves the directory as it was.
    """
    for text in warnings:
        warn(text)
    replicas.wait()  # until all workers have read what there is
    if run is None:
        run = _new_run(recipe, data, policy, warnings, facts)
        if replicas.is_chief():
            _replace(workdir, schema, run)
    else:
        run.pop("failed", None)  # in the file it stays until a stage has ended better
        if replicas.is_chief():
            _tidy(workdir)
    replicas.wait()  # until the chief has done so
    return run


def _new_run(
    recipe: Recipe, data: Dataset, policy: str, warnings: Sequence[str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    fingerprint = data.report["fingerprint"]
    return {
        "format": FORMATS["run"],
        "recipe": recipe.document(),
        "fingerprint": fingerprint,
        **facts,
        "run_id": f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{fingerprint[:8]}-{recipe.seed}",
        "data": str(data.path.absolute()),
        "windows": [data.next_window] if "start" in facts else data.test_windows,
        "versions": versions(),
        "dtype_policy": policy,
        "warnings": list(warnings),
        "stages": {},
    }


def _replace(workdir: Path, schema: Schema, run: Mapping[str, Any]) -> None:
    """Writes a new run's documents, when nothing is left of one that failed; a kill in between leaves none or that."""
    workdir.mkdir(parents=True, exist_ok=True)
    if (workdir / "run.json").exists():
        for name in OF_A_RUN:
            remove(workdir / name)
        (workdir / "run.json").unlink()
    schema.save(workdir)
    write_json(workdir / "run.json", run)


def _tidy(workdir: Path) -> None:
    """Removes what a kill in the middle of a write, or right after the last one, left behind."""
    for pattern in LEFT_BEHIND:
        for file in workdir.glob(pattern):
            file.unlink()
    for folder in workdir.glob("checkpoint/window-*"):
        if weights_of(workdir, folder.name.removeprefix("window-")).exists():
            shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # one of a stage in progress is in it
        (workdir / "checkpoint").rmdir()

"""One stage of a run: a window that is fitted, resumed after a kill, and judged."""

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from tfmtr import inputs, replicas
from tfmtr.checkpoints import KeepState, restore, save
from tfmtr.diagnosis import describe, losses_of, not_finite, not_finite_error, warn
from tfmtr.documents import write_json
from tfmtr.models import JointModel
from tfmtr.models.popularity import count_popularity, has_popularity
from tfmtr.private_names import moving_averages
from tfmtr.recipe import Recipe
from tfmtr.run import precision_of, weights_of
from tfmtr.training.callbacks import StopAfter, averages_of
from tfmtr.training.run_document import Job

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one stage is trained on.

    Args:
        window: Number of the test window that the model is for.
        files: Example files.
        validation: Those of early stopping, or `None` without it.
        epochs: Number of epochs where there is no early stopping; otherwise the recipe says it.
    """

    window: int
    files: Sequence[Path]
    validation: Sequence[Path] | None = None
    epochs: int = 1


def samplings_of(recipe: Recipe) -> tuple[str, ...]:
    """Which sets of users a recipe trains on."""
    return ("random", "active") if recipe.upsample else ("random",)


def end_stage(
    job: Job, run: dict[str, Any], model: JointModel, keep: KeepState | None, *, window: int, started: float
) -> None:
    """Writes what is known after the stage of a window, and drops its checkpoint.

    Raises:
        ValueError: If the stage, whose state is `keep`, has no finite epoch.
    """
    replicas.wait()  # until all workers have read the checkpoint
    history = keep.history if keep else []
    if keep and keep.best_epoch is None:
        reason = not_finite_error(window, keep.problems, job.recipe, precision_of(run))
        if replicas.is_chief():
            write_json(
                job.workdir / "run.json", {**run, "failed": {"window": window, "reason": reason, "history": history}}
            )
            shutil.rmtree(job.workdir / "checkpoint", ignore_errors=True)
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
        write_json(job.workdir / "run.json", run)
        save(model, weights_of(job.workdir, window))
        shutil.rmtree(job.workdir / "checkpoint", ignore_errors=True)


def _warn(run: dict[str, Any], text: str) -> None:
    """Says a line, and has the run document remember it."""
    warn(text)
    if text not in run.setdefault("warnings", []):
        run["warnings"].append(text)


def fit_stage(
    model: JointModel, job: Job, stage: Stage, *, verbose: str | int, callbacks: Sequence[Any] = ()
) -> KeepState:
    """Fits one window; returns its `KeepState`, and the model has the best epoch's variables if there is one.

    `callbacks` are called before the stage's own.
    """
    data, recipe, window, epochs = job.data, job.recipe, stage.window, stage.epochs
    steps = inputs.num_steps(stage.files, recipe.batch_size)
    patience = None
    if stage.validation is not None:
        epochs, patience = recipe.epochs_of(steps), recipe.patience_of(steps)

    def losses() -> dict[str, float]:
        return losses_of(model, data, stage.files, job.schema, batch_size=recipe.batch_size, num_batches=1)

    if has_popularity(model):  # of the stage's own rows, whatever was before
        title = job.schema.replace(features=[feature for feature in job.schema.features if feature.name == "title"])
        rows = inputs.batches(data, stage.files, batch_size=recipe.batch_size, schema=title)
        count_popularity(model, rows.as_numpy_iterator())
    keep = KeepState(
        job.workdir / "checkpoint" / f"window-{window}",
        model,
        patience=patience,
        losses=losses if replicas.number() == 1 else dict,
    )
    chain = [*callbacks, *averages_of(model)]
    if stage.validation is not None and recipe.updates is not None:
        chain.append(StopAfter(recipe.updates))
    if replicas.is_chief():
        chain.append(keras.callbacks.TensorBoard(str(job.workdir / "logs" / f"window-{window}"), write_graph=False))
    keep.others = chain
    if not keep.is_finished:
        judged, judged_steps = shared_batches(job, stage.validation) if stage.validation is not None else (None, None)
        # Epochs of different windows must differ in order too, hence the window in the seed.
        seed = [recipe.seed, window]
        order, shared_steps = shared_batches(job, stage.files, seed=seed, first_epoch=keep.next_epoch)
        model.fit(
            order, steps_per_epoch=shared_steps, validation_data=judged, validation_steps=judged_steps, epochs=epochs,
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


def shared_batches(
    job: Job, files: Sequence[Path], **order: Any
) -> tuple["tf.data.Dataset | tf.distribute.DistributedDataset", int | None]:
    """Batches for `fit`, and the steps of an epoch where several replicas share them."""

    def read(context: "tf.distribute.InputContext | None" = None) -> "tf.data.Dataset":
        return inputs.batches(
            job.data,
            files,
            batch_size=job.recipe.batch_size,
            schema=job.schema,
            context=context,
            weights=job.recipe.row_weights,
            **order,
        )

    if replicas.number() == 1:
        return read(), None
    shared = replicas.strategy().distribute_datasets_from_function(lambda context: read(context).repeat())
    return shared, inputs.num_steps(files, job.recipe.batch_size)

"""What an interrupted `fit` needs to go on: all variables, and which epoch is the best."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmtr import replicas
from tfmtr.diagnosis import not_finite
from tfmtr.documents import read_json, replacing, write_json


def save(model: keras.Model, file: Path) -> None:
    """Writes all variables of a compiled model and its optimizer, at once or not at all."""
    arrays = {f"{kind}/{i}": np.asarray(v) for kind, vs in variables_of(model).items() for i, v in enumerate(vs)}
    paths = {f"{kind}_paths": np.asarray([v.path for v in vs]) for kind, vs in variables_of(model).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays, **paths)  # pyright: ignore[reportArgumentType]


def restore(model: keras.Model, file: Path) -> None:
    """Reads what `save` wrote into a model of the same architecture.

    Raises:
        ValueError: If the model's variables are not those of the file, or the file is damaged.
    """
    try:
        if not zipfile.is_zipfile(file):  # of another file numpy would say that it may be loaded "unsafely"
            raise zipfile.BadZipFile("not a zip file, or a part of one")
        with np.load(file) as archive:
            _assign(model, archive, file)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(
            f"`{file}` must be a whole file of weights, as training writes it; copy it again, or train again. "
            f"Received: {error}"
        ) from error


def _assign(model: keras.Model, archive: Mapping[str, np.ndarray], file: Path) -> None:
    """Gives a model's variables the values of an archive."""
    for kind, variables in variables_of(model).items():
        arrays = [archive[f"{kind}/{i}"] for i in range(len(archive[f"{kind}_paths"]))]
        if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
            raise ValueError(
                f"`{file}` must hold the variables of this model: it was written by another recipe or schema. "
                f"Received: {len(arrays)} {kind} variables, expected {len(variables)} of this model's shapes"
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)


def variables_of(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """All that is kept of a model, `{"model": variables, "optimizer": variables}`."""
    return {"model": model.variables, "optimizer": model.optimizer.variables}


class KeepState(keras.callbacks.Callback):
    """Keeps all that an interrupted `fit` needs to go on, at the end of every epoch.

    `keras.callbacks.BackupAndRestore` keeps epoch and weights, not the other callbacks' state, and knows no best epoch.
    Here one folder holds `epoch-<i>.npz` of the last epoch and of the best one (all variables, with the optimizer's)
    and `state.json` (history, what was not finite, and the plain attributes of the other callbacks). `state.json` is
    written last: what it says is there.

    An epoch is finite if its losses and all the model's variables are. The best epoch is a finite one, and `None` where
    there is none: NaN is less than nothing. Once a variable is not finite no later epoch can be, and training stops.

    Args:
        folder: Where the state is kept; an existing state is restored at once.
        model: The compiled model.
        patience: Epochs without a better validation loss before training stops; `None` where there is none.
        losses: Function that returns `{name: loss}` of the model as it is, for the note about an epoch that is not
            finite.
    """

    def __init__(
        self, folder: Path, model: keras.Model, *, patience: int | None = None, losses: Callable[[], dict] = dict
    ) -> None:
        super().__init__()
        self.folder, self.patience, self.losses = folder, patience, losses
        self.others: list[keras.callbacks.Callback] = []
        self.state: dict[str, Any] = {
            "history": [],
            "callbacks": [],
            "problems": [],
            "best_epoch": None,
            "finished": False,
        }
        if state := read_json(folder / "state.json"):
            self.state |= state
            restore(model, self._file(len(self.history) - 1))

    @property
    def history(self) -> list[dict[str, float]]:
        """Figures of the finished epochs."""
        return self.state["history"]

    @property
    def problems(self) -> list[dict[str, Any]]:
        """What is not finite, one dictionary an epoch; see `tfmtr.diagnosis.describe`."""
        return self.state["problems"]

    @property
    def next_epoch(self) -> int:
        """The epoch to go on with."""
        return len(self.history)

    @property
    def is_finished(self) -> bool:
        """Whether the stage ended, by early stopping or by its last epoch."""
        return self.state["finished"]

    @property
    def best_epoch(self) -> int | None:
        """The best finite epoch, or `None`."""
        return self.state["best_epoch"]

    @property
    def best(self) -> Path:
        """File with the variables of the best epoch."""
        return self._file(self.best_epoch)

    def _file(self, epoch: int | None) -> Path:
        return self.folder / f"epoch-{epoch}.npz"

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the other callbacks the state they had."""
        for callback, attributes in zip(self.others, self.state["callbacks"], strict=False):
            vars(callback).update(attributes)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the state, and decides whether training goes on."""
        figures = {name: float(value) for name, value in (logs or {}).items()}
        history, previous = [*self.history, figures], self.best_epoch
        problem = self._problem(epoch, figures)
        problems = [*self.problems, problem] if problem else self.problems
        bad = {problem["epoch"] for problem in problems}
        # Without validation the last one; of several that are equal the first.
        monitored = {i: row.get("val_loss", -i) for i, row in enumerate(history) if i not in bad}
        best_epoch = min(monitored, key=monitored.__getitem__, default=None)
        is_lost = problem is not None and problem["variable"] is not None
        is_late = self.patience is not None and epoch - (best_epoch or 0) >= max(self.patience, 1)
        if is_lost or is_late:
            self.model.stop_training = True
        self.state = {
            "history": history,
            "callbacks": [_plain_attributes(callback) for callback in self.others],
            "problems": problems,
            "best_epoch": best_epoch,
            "finished": bool(self.model.stop_training) or epoch + 1 == self.params["epochs"],
        }
        if not replicas.is_chief():
            return
        save(self.model, self._file(epoch))  # pyright: ignore[reportArgumentType]
        write_json(self.folder / "state.json", self.state)
        for old in {epoch - 1, previous} - {epoch, best_epoch, None}:
            self._file(old).unlink(missing_ok=True)

    def _problem(self, epoch: int, figures: dict[str, float]) -> dict[str, Any] | None:
        """What is not finite in an epoch, or `None`."""
        paths = not_finite(self.model.variables)
        bad_figures = {name: value for name, value in figures.items() if not np.isfinite(value)}
        if not bad_figures and not paths:
            return None
        return {
            "epoch": epoch,
            "figures": bad_figures,
            "losses": self.losses(),
            "variable": next(iter(paths), None),
            "count": f"{len(paths)} of {len(self.model.variables)}",
        }


def _plain_attributes(callback: keras.callbacks.Callback) -> dict[str, int | float | str | None]:
    """Attributes of a callback that JSON can hold: counters, best values, flags."""
    plain = {}
    for name, value in vars(callback).items():
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, (int, float, str, bool, type(None))) and not name.startswith("__"):
            plain[name] = value
    return plain

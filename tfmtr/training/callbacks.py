"""Keras callbacks of training, and what it shows."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from tfmtr.models import JointModel

if TYPE_CHECKING:
    pass


class Judge(keras.callbacks.Callback):
    """Adds a figure to an epoch's: `judge(model)`, under the name `judged`."""

    def __init__(self, judge: Callable[[Any], float]) -> None:
        super().__init__()
        self.judge = judge

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Judges the model."""
        logs["judged"] = float(self.judge(self.model))


def averages_of(model: JointModel) -> list[keras.callbacks.Callback]:
    """Callbacks by which each epoch is judged and kept with the moving averages of the weights, if there are any."""
    return [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if getattr(model.optimizer, "use_ema", False) else []


def lines_of(verbose: str | int) -> str | int:
    """A progress bar is for a terminal; elsewhere an epoch is one plain line."""
    return verbose if verbose != "auto" else 1 if sys.stdout.isatty() else 2


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

"""Training: Keras `fit` that survives a kill, with the paper's incremental daily training. See `tfmtr.run`."""

import dataclasses  # noqa: F401 - scripts say `training.dataclasses.replace(recipe, ...)`

from tfmtr.checkpoints import restore, save
from tfmtr.private_names import op_determinism
from tfmtr.recipe import Recipe, optimizer_of
from tfmtr.run import versions
from tfmtr.training.callbacks import Judge, StopAfter, averages_of
from tfmtr.training.fitting import Fitted, fit
from tfmtr.training.going_on import go_on
from tfmtr.training.paper_recipes import CONTROLS, PAPER
from tfmtr.training.windows import train, train_first_window

__all__ = [
    "CONTROLS",
    "PAPER",
    "Fitted",
    "Judge",
    "Recipe",
    "StopAfter",
    "averages_of",
    "fit",
    "go_on",
    "op_determinism",
    "optimizer_of",
    "restore",
    "save",
    "train",
    "train_first_window",
    "versions",
]

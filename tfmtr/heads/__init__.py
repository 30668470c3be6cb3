"""Towers and logits to probabilities and losses: one paper, one file, one function that returns a `Head`.

A file `name.py` has one function `name(tasks, ...options) -> Head`; the file's name is its only
registration. Files that begin with `_` are shared pieces.
"""

from tfmtr.heads._head import (
    Head,
    Tower,
    TrainingGraph,
    known,
    number_of,
    observed_mean,
    row_loss,
    row_weights,
    task_losses,
    task_outputs,
    task_towers,
    training_feature,
    two_tower_only,
)

__all__ = [
    "Head",
    "Tower",
    "TrainingGraph",
    "known",
    "number_of",
    "observed_mean",
    "row_loss",
    "row_weights",
    "task_losses",
    "task_outputs",
    "task_towers",
    "training_feature",
    "two_tower_only",
]

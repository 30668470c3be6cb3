"""Counts how popular titles are, for models that need it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmtr.layers.title_popularity import TitlePopularity

if TYPE_CHECKING:
    from tfmtr.models.joint import JointModel


def has_popularity(model: "JointModel") -> bool:
    """Whether a model has layers that must know how popular titles are."""
    return bool(_layers(model))


def count_popularity(model: "JointModel", batches: Iterable[Any]) -> None:
    """Gives a model's layers the titles' positives of the first task among the rows that it is to be trained on.

    Args:
        model: The `JointModel`.
        batches: Batches `(features, labels, ...)` of arrays.
    """
    column, ids, counts = model.schema.tasks[0].column, np.zeros(0, np.int64), np.zeros(0, np.int64)
    for features, labels, *_ in batches:
        is_positive = np.asarray(labels[column]) > 0  # false of what was not observed
        more = np.asarray(features["title"])[is_positive].astype(np.int64)
        ids, places = np.unique(np.concatenate([ids, more]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([counts, np.ones(len(more))]), len(ids)).astype(np.int64)
    for layer in _layers(model):
        layer.set_counts(ids, counts)
    model.is_popularity_counted = True


def _layers(model: "JointModel") -> list[TitlePopularity]:
    return [layer for layer in model.layers if isinstance(layer, TitlePopularity)]

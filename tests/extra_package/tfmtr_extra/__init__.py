"""A package of somebody else's, whose parts are found by import path and by entry point."""

from typing import Annotated

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import ops

from tfmtr.datasets.logs import Logs
from tfmtr.heads import Head, task_losses, task_outputs, task_towers
from tfmtr.retrieval.indexes.exact import ExactIndex
from tfmtr.signatures import Signature, specs


def own_share(x, scenario, *, towers, num_scenarios, width=8):
    """Sharing: a dense layer for all and an embedding of the scenario."""
    h = keras.layers.Dense(width, activation="relu", name="own_dense")(x)
    h = h + keras.layers.Embedding(num_scenarios, width, name="own_scenario")(scenario)
    return {tower: keras.layers.Dense(width, name=f"{tower}_own")(h) for tower in towers}


def own_head(tasks, *, factor=1.0):
    """Head: each task's own loss, times a factor."""

    def losses(outputs, logits, vectors, labels, context):
        return {name: factor * loss for name, loss in task_losses(tasks, logits, labels, context).items()}

    return Head(lambda: task_towers(tasks), lambda logits: task_outputs(tasks, logits), losses)


def own_encoder(x, fields, *, power=2):
    """Encoder: powers of all features beside them."""
    return ops.concatenate([x, x**power], axis=1)


def own_index(catalogue, vectors, file=None):
    """Index: the exact one."""
    return ExactIndex(catalogue, vectors, name="own_index")


def own_metric(lists):
    """Metric of lists: precision."""
    return lists.num_hits / lists.ranked_titles.shape[1]


def own_signature(served, *, title):
    """Signature: lengths of titles' vectors."""
    return Signature(lambda raw: {"length": tf.norm(title(raw), axis=1)}, specs(served.titles))


def own_data(source, out, *, users: Annotated[int, "Number of users."] = 300):
    """Data set: a table of users' favourite numbers becomes a log."""
    rng, favourites = np.random.default_rng(0), pd.read_csv(source).number
    number = 12 * users
    events = pd.DataFrame({"user": rng.integers(0, users, number).astype(str)})
    events["title"] = rng.choice(favourites, number).astype(str)
    events["time"] = pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 28 * 86_400, number), unit="s")
    events.to_parquet(out / "events.parquet", index=False)
    return Logs(events=out / "events.parquet", columns={name: name for name in ("user", "title", "time")})

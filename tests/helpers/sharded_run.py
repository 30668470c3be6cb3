"""Trains models whose tables lie on parameter servers, and the same with whole tables, in a process of its own.

TensorFlow keeps its servers for as long as a process lives, so `test_parameter_servers.py` gives this one to them.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from tfmtr import models, parameter_servers, training
from tfmtr.schema import Feature, Scenario, Schema, Task

ROWS = 11  # an odd number: the servers have different shares
LARGE = ("user_embedding", "genres_embedding")


def build(optimizer):
    """A ranking model with two large tables, one of them for sets, and a small one."""
    keras.utils.set_random_seed(0)
    features = [
        Feature("user", "user", "id", [f"u{i}" for i in range(ROWS - 1)]),
        Feature("movie", "title", "id", ["a", "b"]),
        Feature("genres", "title", "set", [f"g{i}" for i in range(ROWS - 2)], width=3),
    ]
    schema = Schema(features, [Task("click")], Scenario(["territory"], {("DE",): "west"}))
    model = models.ranking(schema, share="shared_bottom", embedding_dim=4)
    model.compile(training.optimizer_of(optimizer)(0.05))
    model.optimizer.build(model.trainable_variables)
    return model


def rows(number=64):
    """Inputs and labels; users 8 to 10 are in no batch."""
    rng = np.random.default_rng(0)
    x = {
        "user": rng.integers(0, 8, number).astype("int32"),
        "movie": rng.integers(0, 3, number).astype("int32"),
        "genres": rng.integers(0, ROWS, (number, 3)).astype("int32"),
        "scenario": np.ones(number, "int32"),
    }
    return x, {"click": (x["user"] % 2).astype("float32")}


def table(layer):
    """A table's rows, wherever they are."""
    if not isinstance(layer, parameter_servers.ShardedTable):
        return np.asarray(layer.embeddings)
    values = np.zeros((layer.input_dim, layer.output_dim), "float32")
    for i, shard in enumerate(layer.shards):
        values[i :: layer.num_shards] = np.asarray(shard)
    return values


def compare(optimizer, addresses):
    """What became of a sharded and of a whole model with the same weights: losses, predictions, tables."""
    with parameter_servers.sharded_tables(addresses, min_rows=ROWS):
        sharded = build(optimizer)
    whole = build(optimizer)
    for layer in sharded.layers:
        other = whole.get_layer(layer.name)
        if layer.name in LARGE:
            other.embeddings.assign(table(layer))
        else:
            other.set_weights(layer.get_weights())
    found = {"start/user": table(whole.get_layer(LARGE[0]))}
    x, y = rows()
    for name, model in (("sharded", sharded), ("whole", whole)):
        history = model.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0)
        found[f"{name}/loss"] = history.history["loss"]
        found[f"{name}/click"] = model.predict(x, verbose=0)["click"]
        found |= {f"{name}/{layer}": table(model.get_layer(layer)) for layer in LARGE}
    variables = [*sharded.variables, *sharded.optimizer.variables]
    found["devices"] = [f"{v.path} {v.value.device}" for v in variables]
    return found


def places_of_update(optimizer, addresses):
    """Devices of the operations that take the root of a gradient's squares."""
    with parameter_servers.sharded_tables(addresses, min_rows=ROWS):
        layer = parameter_servers.table(ROWS, 4)
        layer.build((None,))
    optimizer = training.optimizer_of(optimizer)(0.1)
    optimizer.build(layer.trainable_variables)

    @tf.function
    def step(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids))
        gradients = tape.gradient(loss, [shard.value for shard in layer.shards])
        optimizer.apply(gradients, layer.trainable_variables)

    graph = step.get_concrete_function(tf.TensorSpec([None], tf.int32)).graph
    return [operation.device for operation in graph.get_operations() if operation.type == "Sqrt"]


def main(file, optimizers, addresses):
    """Writes what it found with each optimizer."""
    found, addresses = {}, json.loads(addresses)
    for optimizer in json.loads(optimizers):
        found |= {f"{optimizer}/{what}": value for what, value in compare(optimizer, addresses).items()}
        found[f"{optimizer}/places"] = places_of_update(optimizer, addresses)
    np.savez(file, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])

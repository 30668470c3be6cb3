"""What a two-tower run makes of users, before and after the branch of their territory group."""

import os

import keras
import numpy as np
import pyarrow as pa

from tfmtr import inputs
from tfmtr.datasets.dataset import Dataset
from tfmtr.run import Run
from tfmtr.schema import Schema

MOST = 1_000
BATCH = 65_536


def user_vectors(
    run: str | os.PathLike, data: str | os.PathLike, *, most: int = MOST, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Vectors of test users before and after the branch, by territory group.

    Before is what `share` gets, the output of the shared user tower; after is the query of the primary task. A model
    without branches has the same before and after, but for the query's scale.

    Args:
        run: Run directory.
        data: Directory made by `tfmtr prepare`.
        most: Most users, drawn at random from those of the last test window.
        seed: Seed of the draw.

    Returns:
        `{"before": {group: array of shape (users, width)}, "after": the same}`; users of no group are in
        `"no group"`.

    Raises:
        ValueError: If `run` is no finished run.
    """
    data, schema, model = Dataset(data), Schema.load(run), Run(run).load(form="two_tower")
    recipe = Run(run).recipe
    features = inputs.model_inputs(some_users(data, most, seed), schema, inputs.open_stores(data))
    tower, last = model.user_tower, len(recipe.units) - 1
    names = {layer.name for layer in tower.layers if not isinstance(layer, keras.layers.InputLayer)}
    shared = next(name for name in (f"user_relu_{last}", f"user_dense_{last}") if name in names)  # linear if unshared
    tensors = {"before": tower.get_layer(shared).output, "after": tower.output[schema.tasks[0].name]}
    vectors = keras.Model(tower.input, tensors).predict({name: features[name] for name in tower.input}, verbose=0)  # pyright: ignore[reportArgumentType]
    groups = np.array(["no group", *schema.scenario.names])[features["scenario"]]
    return {
        stage: {str(group): of[groups == group] for group in np.unique(groups)}
        for stage, of in ((name, np.asarray(vectors[name])) for name in ("before", "after"))
    }


def some_users(data: Dataset, most: int, seed: int) -> pa.Table:
    """The first test row of each of some users of the last test window, an Arrow table."""
    files = data.examples("test", windows=data.test_windows[-1:])
    column = pa.concat_tables(inputs.read_tables(files, rows=BATCH, columns=["user"]))["user"]
    _, first = np.unique(column.combine_chunks().dictionary_encode().indices.to_numpy(), return_index=True)
    rows = np.sort(np.random.default_rng(seed).choice(first, min(most, len(first)), replace=False))
    parts, start = [], 0
    for table in inputs.read_tables(files, rows=BATCH):
        parts.append(table.take(rows[(rows >= start) & (rows < start + len(table))] - start))
        start += len(table)
    return pa.concat_tables(parts)

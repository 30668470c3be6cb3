"""Multi-domain data sets as studies read them: labelled rows that went through `tfmtr.prepare_rows`."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tfmtr
from tfmtr import inputs
from tfmtr.datasets.domains import SPLITS


def read(data_set, path, **options):
    """The rows of a data set with their features, in the order of its files, and their `Schema`.

    Args:
        data_set: Function `data_set(path, out, **options)` that writes tables and returns `Logs`, such as
            `tfmtr.datasets.movielens_domains.movielens_domains`.
        path: Where its own files are.
        **options: Of the function.

    Returns:
        `(table, schema)`: an Arrow table of the examples of all splits with `split`; a row each of the rows that were
        written, none of which is dropped.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = data_set(path, Path(folder, "tables"), **options)
        data = tfmtr.prepare_rows(logs, Path(folder, "data"), contradictions="keep", progress=False)
        given = pq.read_table(logs.events, columns=["split"])["split"].to_numpy(zero_copy_only=False)
        tables = []
        for split in SPLITS:
            rows = pa.concat_tables(inputs.read_tables(data.examples(split, windows=[0, 1]), rows=1 << 20))
            tables.append(rows.append_column("split", pa.array([split] * len(rows))))
        place = np.concatenate([np.flatnonzero(given == split) for split in SPLITS])
        return pa.concat_tables(tables).take(np.argsort(place)).combine_chunks(), data.schema


def encoded(data_set, path, **options):
    """The `Schema` of a data set, and `{split: (x, y)}` of its rows, encoded."""
    table, schema = read(data_set, path, **options)
    parts = {}
    for split in SPLITS:
        rows = table.filter(np.asarray(table["split"]) == split)
        parts[split] = inputs.model_inputs(rows, schema, {}), inputs.labels(rows, schema)
    return schema, parts

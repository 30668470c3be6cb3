"""The title index of a prepared directory under a model."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr import inputs
from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.retrieval.exact import ExactIndex

BATCH = 4096


def build_index(model, titles, schema, *, window=None):
    """The `ExactIndex` of a prepared directory's titles under a model.

    Args:
        model: A `TwoTower` model.
        titles: The `Prepared` directory.
        schema: The model's `Schema`.
        window: Whose catalogue is searched; by default the newest, after the last window.
    """
    ids, vectors = title_vectors(model, titles, schema)
    window = titles.test_windows[-1] + 1 if window is None else window
    table = pq.read_table(titles.path / "availability.parquet", filters=[("window", "=", window)])
    rows = pc.index_in(table["title"], value_set=pa.array(ids)).to_numpy()
    territories = table["territory"].combine_chunks().dictionary_encode()
    availability = {}
    for code, territory in enumerate(territories.dictionary.to_pylist()):
        mask = np.zeros(len(ids), bool)
        mask[rows[territories.indices.to_numpy() == code]] = True
        availability[territory] = mask
    return ExactIndex(Catalogue(ids, availability, title_attributes(titles, schema)), vectors)


def title_attributes(titles, schema):
    """`{feature: one list of texts for each title}` of the ids, strings and sets that titles have."""
    wanted = [f for f in schema.by_role("title") if f.kind in ("id", "string", "set") and f.name != "title"]
    table = pq.read_table(titles.path / "titles.parquet", columns=[f.name for f in wanted])
    attributes = {}
    for feature in wanted:
        values = table[feature.name].to_pylist()
        rows = [(value if isinstance(value, list) else [value]) for value in values]
        attributes[feature.name] = [[str(v) for v in row or () if v is not None and v != ""] for row in rows]
    return attributes


def title_vectors(model, titles, schema):
    """Ids (text) and vectors, shape `(titles, d)`, of all titles of a prepared directory."""
    stores = inputs.open_stores(titles)
    ids, vectors, start = [], [], 0
    for table in inputs.read_tables([titles.path / "titles.parquet"], rows=BATCH):
        table = table.append_column("title_row", pa.array(np.arange(start, start + len(table))))
        start += len(table)
        features = inputs.model_inputs(table, schema, stores)
        vectors.append(model.title_tower.predict_on_batch({f.name: features[f.name] for f in schema.by_role("title")}))
        ids += table["title"].to_pylist()
    return ids, np.concatenate(vectors)

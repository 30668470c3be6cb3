"""The title index of a prepared directory under a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr import components, inputs
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.engines.duckdb import read_files
from tfmtr.datasets.seen import had_pairs
from tfmtr.kinds import KINDS
from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.schema import Schema

if TYPE_CHECKING:
    from tfmtr.listwise.model import Scorer
    from tfmtr.models import TwoTower
    from tfmtr.retrieval.indexes import Index


BATCH = 4096
FOLDER = "retrieval.indexes"


def build_index(
    model: TwoTower,
    titles: Dataset,
    schema: Schema,
    *,
    window: int | None = None,
    vectors: TitleVectors | None = None,
    scorer: Scorer | None = None,
    kind: Any = "exact",
    file: str | os.PathLike | None = None,
) -> Index:
    """The index of a prepared directory's titles under a model.

    Args:
        model: A `TwoTower` model.
        titles: The `Dataset` directory.
        schema: The model's `Schema`.
        window: Whose catalogue is searched; by default the newest, after the last window.
        vectors: The `TitleVectors`; computed if not given.
        scorer: The `tfmtr.listwise.model.Scorer` of the window, whose coordinates stand beside the towers' vectors.
        kind: A file of `tfmtr/retrieval/indexes/`, or a function like theirs.
        file: Where an index may write vectors, as the streaming one does.

    Raises:
        ValueError: If there is no such index, its package is not installed, or a file of the directory is lost.
    """
    make = components.find(FOLDER, kind)
    files = ("availability.parquet", *(("events.parquet", "users.parquet") if window is None else ()))
    if missing := [name for name in files if not (titles.path / name).is_file()]:
        raise ValueError(f"`titles` must be a whole directory; prepare it anew. Received: {titles.path}, no {missing}")
    vectors = vectors or title_vectors(model, titles, schema)
    ids = vectors.ids
    is_served = window is None  # an evaluation asks for no filters and has no cold users
    window = titles.next_window if is_served else window
    attributes = title_attributes(titles, schema) if is_served else None
    popular = popularity(titles, ids) if is_served else None
    catalogue = Catalogue(ids, availability(titles, ids, window), attributes, popular)
    return make(catalogue, vectors.vectors if scorer is None else scorer.join_titles(vectors.vectors), file)


def availability(titles: Dataset, ids: Sequence[str], window: int) -> dict[str, np.ndarray]:
    """`{territory: which titles it has in a window, boolean of shape (titles,)}`."""
    table = pq.read_table(titles.path / "availability.parquet", filters=[("window", "=", window)])
    known = pc.index_in(table["title"], value_set=pa.array(ids))  # pyright: ignore[reportAttributeAccessIssue]
    if known.null_count:
        lost = table["title"].filter(known.is_null())[0]
        raise ValueError(
            f"`titles` must have every title that is available; prepare the directory anew. Received: {titles.path}, "
            f"whose titles.parquet lacks {known.null_count} of availability.parquet, such as {lost}"
        )
    rows = known.to_numpy()
    territories = table["territory"].combine_chunks().dictionary_encode()
    masks = {}
    for code, territory in enumerate(territories.dictionary.to_pylist()):
        masks[territory] = np.zeros(len(ids), bool)
        masks[territory][rows[territories.indices.to_numpy() == code]] = True
    return masks


def popularity(titles: Dataset, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """`{territory: how many users had each title, float32 of shape (titles,)}`."""
    con = ibis.duckdb.connect()
    users = read_files(con, [titles.path / "users.parquet"]).select("user", "territory")
    had = had_pairs(con, titles).inner_join(users, "user")
    counts = con.to_pyarrow(had.group_by("territory", "title").aggregate(users=had.count()))
    counts = counts.filter(pc.is_in(counts["title"], value_set=pa.array(ids)))  # pyright: ignore[reportAttributeAccessIssue]
    rows = pc.index_in(counts["title"], value_set=pa.array(ids)).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    territories, numbers, by_territory = counts["territory"].to_numpy(), counts["users"].to_numpy(), {}
    for territory in np.unique(territories.astype(str)):
        by_territory[territory] = np.zeros(len(ids), "float32")
        is_local = territories == territory
        by_territory[territory][rows[is_local]] = numbers[is_local]
    return by_territory


def title_attributes(titles: Dataset, schema: Schema) -> dict[str, list[list[str]]]:
    """`{feature: one list of texts for each title}` of the ids, strings and sets that titles have."""
    filters = [f for f in schema.by_role("title") if KINDS[f.kind].is_filter and f.name != "title"]
    table = pq.read_table(titles.path / "titles.parquet", columns=[f.name for f in filters])
    attributes = {}
    for feature in filters:
        values = table[feature.name].to_pylist()
        rows = [(value if isinstance(value, list) else [value]) for value in values]
        attributes[feature.name] = [[str(v) for v in row or () if v is not None and v != ""] for row in rows]
    return attributes


class TitleVectors(NamedTuple):
    """Titles under a model.

    Attributes:
        ids: Text, one a title.
        vectors: float32 of shape `(titles, d)`.
        digests: uint64 of shape `(titles,)`, of the features that the vectors were computed from.
        num_new: How many vectors were computed, not known before.
    """

    ids: list[str]
    vectors: np.ndarray
    digests: np.ndarray
    num_new: int

    def save(self, path: str | os.PathLike) -> None:
        """Writes a Parquet file: `title`, `digest`, `vector`."""
        columns = {"title": self.ids, "digest": self.digests, "vector": column(self.vectors)}
        pq.write_table(pa.table(columns), path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> TitleVectors:
        """Reads what `save` wrote."""
        table = pq.read_table(path)
        return cls(table["title"].to_pylist(), matrix(table["vector"]), table["digest"].to_numpy(), 0)


def title_vectors(model: TwoTower, titles: Dataset, schema: Schema, known: TitleVectors | None = None) -> TitleVectors:
    """The `TitleVectors` of all titles of a prepared directory.

    Args:
        model: A `TwoTower` model.
        titles: The `Dataset` directory.
        schema: The model's `Schema`.
        known: `TitleVectors` under the same model: those of titles whose features are the same are taken from there.

    Raises:
        ValueError: If the directory has no title, or no store of a vector feature.
    """
    place = {title: row for row, title in enumerate(known.ids)} if known else {}
    ids, vectors, digests, num_new = [], [], [], 0
    for names, features in feature_tables(titles, schema):
        feature_digests = digest(features)
        rows = np.asarray([place.get(title, -1) for title in names])
        is_known = (rows >= 0) & (known.digests[rows] == feature_digests) if known else np.zeros(len(names), bool)
        matrix = np.zeros((len(names), model.title_tower.output_shape[-1]), np.float32)
        if np.any(is_known):
            matrix[is_known] = known.vectors[rows[is_known]]
        if not np.all(is_known):
            new = {name: value[~is_known] for name, value in features.items()}
            matrix[~is_known] = model.title_tower.predict_on_batch(new)
        num_new += int(np.sum(~is_known))
        ids += names
        vectors.append(matrix)
        digests.append(feature_digests)
    return TitleVectors(ids, np.concatenate(vectors), np.concatenate(digests), num_new)


def feature_tables(titles: Dataset, schema: Schema) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """`(ids, {feature: encoded array})` of some thousand titles of a prepared directory at a time, in their order.

    Args:
        titles: The `Dataset` directory.
        schema: The model's `Schema`.

    Raises:
        ValueError: If the directory has no title, or no store of a vector feature.
    """
    file = titles.path / "titles.parquet"
    if not file.is_file() or not inputs.num_rows([file]):
        raise ValueError(f"`titles` must have a title; prepare the directory anew. Received: none in {file}")
    stores, start = inputs.open_stores(titles), 0
    for table in inputs.read_tables([file], rows=BATCH):
        table = table.append_column("title_row", pa.array(np.arange(start, start + len(table))))
        start += len(table)
        features = inputs.model_inputs(table, schema, stores)
        yield table["title"].to_pylist(), {f.name: features[f.name] for f in schema.by_role("title")}


def digest(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint64 of shape `(rows,)` that tells rows apart: a sum of their 32-bit words, each times an odd random number."""
    rng = np.random.default_rng(0)
    total = np.uint64(0)
    for name in sorted(features):
        words = np.ascontiguousarray(features[name]).view(np.uint32).reshape(len(features[name]), -1)
        factors = rng.integers(0, 2**63, words.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        total = total + np.sum(words.astype(np.uint64) * factors, axis=1, dtype=np.uint64)
    return np.asarray(total)


def column(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """A matrix as a column of lists of one size, without a copy of each row."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def matrix(values: pa.FixedSizeListArray | pa.ChunkedArray) -> np.ndarray:
    """A column of lists of one size as a matrix."""
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return values.flatten().to_numpy().reshape(len(values), values.type.list_size)

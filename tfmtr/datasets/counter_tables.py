"""Counters of titles as of a window, looked up by a title's place and what a request says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.datasets.counters import Counter
from tfmtr.names import SEPARATOR

if TYPE_CHECKING:
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.schema import Feature, Schema

FOLDER = "counters"


@dataclasses.dataclass(frozen=True, eq=False)
class CounterTable:
    """A counter as of one window: a row for each title and combination of values that had a row in the log.

    Args:
        columns: What a request says, beside the title: `()` or columns such as `("territory",)`.
        names: Names of the features.
        texts: The combinations of values, each joined by `tfmtr.names.SEPARATOR`.
        codes: Ascending, int64 of shape `(rows,)`: see `code_of`.
        values: Float32 of shape `(rows + 1, features)`; the last row is of all that has none.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...]
    texts: tuple[str, ...]
    codes: np.ndarray
    values: np.ndarray

    def code_of(self, places: Any, numbers: Any) -> Any:
        """One integer for titles with values of a request.

        Args:
            places: Places of the titles, int64.
            numbers: Places of the values among `texts` and 1; 0 for values that no row has.
        """
        return places * (len(self.texts) + 1) + numbers

    def of(self, rows: pa.Table, places: np.ndarray) -> dict[str, np.ndarray]:
        """The features of users with titles.

        Args:
            rows: Table of users and what their requests say, with `columns`.
            places: Places of the titles, integers of shape `(users, n)`; what is below 0 is none, and means nothing.

        Returns:
            `{feature: float32 of shape (users, n)}`.
        """
        numbers = np.zeros((len(places), 1), np.int64)
        if self.columns:
            parts = [pc.fill_null(rows[name].cast(pa.string()), "").combine_chunks() for name in self.columns]
            joined = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, SEPARATOR)  # pyright: ignore[reportAttributeAccessIssue]
            found = pc.index_in(joined, value_set=pa.array(self.texts, pa.string()))  # pyright: ignore[reportAttributeAccessIssue]
            numbers = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)[:, None] + 1
        codes = self.code_of(np.maximum(places, 0).astype(np.int64), numbers)
        at = np.searchsorted(self.codes, codes)
        is_there = np.append(self.codes, -1)[at] == codes
        found = self.values[np.where(is_there, at, len(self.codes))]
        return {name: found[..., place] for place, name in enumerate(self.names)}


def counter_tables(argument: str, data: Dataset, schema: Schema, window: int) -> list[CounterTable]:
    """The counters that a schema asks for, as of a window.

    Args:
        argument: What the data are called in messages.
        data: A `Dataset`.
        schema: Whose counters are wanted. A value that is null is its feature's mean.
        window: Its number.

    Raises:
        ValueError: If the data do not have a counter, or not one that can be looked up: a user's with titles' values.
    """
    wanted, tables = {feature.name: feature for feature in schema.counters}, []
    for document in data.report.get("counters", []):
        counter = Counter(tuple(document["columns"]))
        features = [wanted.pop(name) for name in document["features"] if name in wanted and counter.is_stored]
        if features:
            tables.append(read_counter(data, counter, features, window))
    if wanted:
        raise ValueError(
            f"`{argument}` must have the counters that a model reads of titles and what a request says; those of a "
            f"user with a column of the titles are in rows alone. Received: no {sorted(wanted)[:3]} in {data.path}"
        )
    return tables


def read_counter(data: Dataset, counter: Counter, features: Sequence[Feature], window: int) -> CounterTable:
    """Some features of a counter as of a window."""
    table = pq.read_table(data.path / FOLDER / f"{counter.name}.parquet", filters=[("window", "=", window)])
    titles = pq.read_table(data.path / "titles.parquet", columns=["title"])["title"].combine_chunks()
    nothing = table.filter(pc.is_null(table["title"]))  # pyright: ignore[reportAttributeAccessIssue]
    table = table.filter(pc.is_valid(table["title"]))  # pyright: ignore[reportAttributeAccessIssue]
    places = pc.index_in(table["title"], value_set=titles).to_numpy().astype(np.int64)  # pyright: ignore[reportAttributeAccessIssue]
    numbers, texts = np.zeros(len(table), np.int64), []
    if counter.others:
        parts = [table[name].combine_chunks() for name in counter.others]
        joined = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, SEPARATOR)  # pyright: ignore[reportAttributeAccessIssue]
        joined = joined.dictionary_encode()
        texts, numbers = joined.dictionary.to_pylist(), joined.indices.to_numpy().astype(np.int64) + 1
    rows = pa.concat_tables([table, nothing])
    values = [pc.fill_null(rows[f.name], f.mean).to_numpy().astype(np.float32) for f in features]
    names = tuple(feature.name for feature in features)
    found = CounterTable(counter.others, names, tuple(texts), np.zeros(0, np.int64), np.stack(values, axis=1))
    codes = found.code_of(places, numbers)
    order = np.argsort(codes)
    return dataclasses.replace(found, codes=codes[order], values=found.values[[*order, len(order)]])


def counted(tables: Sequence[CounterTable], rows: pa.Table, places: np.ndarray) -> Mapping[str, np.ndarray]:
    """The features of several tables, see `CounterTable.of`."""
    return {name: value for table in tables for name, value in table.of(rows, places).items()}

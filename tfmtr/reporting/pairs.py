"""The test rows of a prepared directory with the scores that runs gave them."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr import inputs
from tfmtr.datasets.dataset import Dataset
from tfmtr.reporting.runs import Model

BATCH = 65_536


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a user and a title, one a test row, and what each run said of them.

    Args:
        windows: Integer array of shape `(rows,)`.
        users: Integer array of shape `(rows,)`: a number a user.
        territories: Categorical of shape `(rows,)`.
        titles: Integer array of shape `(rows,)`: rows of the title store.
        labels: Float array of shape `(rows,)`, NaN where not observed.
        scores: `{run directory: float array of shape (rows,)}`.
    """

    windows: np.ndarray
    users: np.ndarray
    territories: pd.Categorical
    titles: np.ndarray
    labels: np.ndarray
    scores: dict[Path, np.ndarray]

    def of(self, model: Model) -> np.ndarray:
        """Scores of a model's runs, shape `(runs, rows)`."""
        return np.stack([self.scores[run.path] for run in model.runs])


def read_pairs(data: Dataset, models: Iterable[Model], task: str) -> Pairs:
    """Reads the labels of the test rows and the scores that `tfmtr evaluate` left in the run directories.

    Args:
        data: The `Dataset` directory on which the runs were evaluated.
        models: List of `Model`.
        task: Name of the task.

    Returns:
        `Pairs`.

    Raises:
        ValueError: If there are no test rows, or a run's scores are not those of these rows.
    """
    column = next(t.column for t in data.schema.tasks if t.name == task)
    windows, parts = [], []
    for window in data.test_windows:
        files = data.judged_rows("test", windows=[window])
        for table in inputs.read_tables(files, rows=BATCH, columns=["user", "territory", "title_row", column]):
            windows.append(np.full(len(table), window, np.int32))
            parts.append(table)
    if not parts:
        raise ValueError(
            "`data` must have test rows, which a report is about: positives of test users in the test windows. "
            f"Received: {data.path}, which has none"
        )
    windows, table = np.concatenate(windows), pa.concat_tables(parts)
    scores = {}
    for run in (run for model in models for run in model.runs):
        scored = pq.read_table(run.scores, columns=["window", task])
        if not np.array_equal(scored["window"].to_numpy(), windows):
            raise ValueError(
                f"`{run.scores}` must have a score for each test row of {data.path}; evaluate {run.path} again. "
                f"Received: {len(scored)} scores for {len(windows)} rows"
            )
        scores[run.path] = scored[task].to_numpy()
    return Pairs(
        windows=windows,
        users=codes_and_values(table["user"])[0],
        territories=pd.Categorical.from_codes(*codes_and_values(table["territory"])),
        titles=table["title_row"].to_numpy(),
        labels=inputs.labels(table, data.schema.replace(tasks=[t for t in data.schema.tasks if t.name == task]))[
            column
        ],
        scores=scores,
    )


def codes_and_values(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A column of text as integers, -1 for null, and the values that they stand for."""
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(), encoded.dictionary.to_pylist()

"""`prepare_rows`: labelled rows that have their split in, a data set out, without rules and without chance."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from tfmtr.checks import check_choice, check_integer, check_path
from tfmtr.datasets.dataset import Dataset, workplace
from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.log_tables import parse_memory
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import check_output, make
from tfmtr.datasets.preparing.given_rows import run_row_steps
from tfmtr.scratch import sweep

UNUSED = {"calendar": Calendar(), "time_zones": None, "time_format": None}
FIXED = {
    "seed": 0,
    "low_ratings": "hide",
    "engine": "duckdb",
    "counters": (),
}  # what steps ask, and given rows leave no choice of


def prepare_rows(
    logs: Logs,
    out: str | os.PathLike,
    *,
    num_groups: int = 4,
    memory_limit: str = "4GB",
    missing_vectors: str = "error",
    contradictions: str = "refuse",
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Writes a `Dataset` of labelled rows that say themselves what they are for.

    Each row becomes one example of its split, in the order of the files; a null label stays null. Nothing is
    discovered, drawn or counted over time: what `prepare` decides of a log is decided already. Rows without user or
    title, or of a user or title that is not in its table, are dropped and counted. Vocabularies, means and deviations
    of features are those of the training rows. Lists hide the titles of a user's training and validation rows whose
    first label is no 0. Titles and users have vectors where upstream stores or lists of floats are given; none are made
    of texts or of history, and there is no list model, as nothing is known of what was before the rows. A number by
    which rows count is one of `logs.training`, which the recipe names as `row_weights`.

    Args:
        logs: A `Logs` whose events are the rows, with `split_column`: the words train, validation and test in every
            row. Times are not read. Rows of one `request` are side by side.
        out: Folder to make; see `tfmtr.datasets.dataset` for what is in it.
        num_groups: Number of territory groups, unless `logs.groups` gives them or `logs.scenario` other scenarios.
        memory_limit: For this process, such as `"4GB"`; larger work spills to disk.
        missing_vectors: `"error"`, or `"zero"` for a zero vector where an upstream store has none.
        contradictions: What to do about a label 1 of a task whose label of the task it follows is 0: `"refuse"` or
            `"keep"`, as for `prepare`.
        overwrite: Whether to replace a prepared folder.
        progress: Whether to show a progress bar, if standard error is a terminal.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If an option, a table or a vector is not what it must be, a row has no split or another one, there
            are none for training, validation or the test, rows of one user name several territories, or `out` is in
            use. The warnings until then are its notes.
    """
    options: dict[str, Any] = {
        "num_groups": check_integer("num_groups", num_groups),
        "memory_limit": memory_limit,
        "missing_vectors": missing_vectors,
        "contradictions": contradictions,
        **FIXED,
    }
    check_rows_of(logs)
    out = check_path("out", out)
    check_choice("missing_vectors", missing_vectors, ("error", "zero"))
    check_choice("contradictions", contradictions, ("refuse", "keep"))
    memory = parse_memory(memory_limit)
    sweep(*workplace(out))
    check_output(out, overwrite)

    def start(folder: Path) -> DuckDB:
        engine = DuckDB(folder, memory)
        engine.keep_order()
        return engine

    return make(dataclasses.replace(logs, has_times=False), out, options, run_row_steps, start, progress=progress)


def check_rows_of(logs: Logs) -> None:
    """Raises a `ValueError` unless a `Logs` describes rows that are given with their split, and nothing beside."""
    if not isinstance(logs, Logs):
        raise ValueError(f"`logs` must be a `tfmtr.Logs`, which names the tables. Received: logs={logs!r}")
    if logs.split_column is None:
        raise ValueError(
            "`split_column` must name the column that says train, validation or test; logs without one are prepared "
            "with `tfmtr.prepare` (`tfmtr prepare events`). Received: split_column=None"
        )
    if not logs.tasks:
        raise ValueError("`tasks` must name the labels of the rows. Received: tasks={}")
    if "time" in logs.columns:
        raise ValueError(
            "`columns` must name no time: given rows lie in no windows of time. Received: time="
            f"{logs.columns['time']!r}"
        )
    for name, nothing in UNUSED.items():
        if (value := getattr(logs, name)) != nothing:
            raise ValueError(f"`{name}` must be left out: times of given rows are not read. Received: {name}={value!r}")

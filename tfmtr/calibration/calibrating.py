"""A run's maps, fitted on its validation rows and kept in its `calibration.json`."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmtr.calibration.choosing import choose
from tfmtr.calibration.maps import METHODS, check_finite
from tfmtr.checks import check_choice
from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import write_json
from tfmtr.evaluation.evaluate import predict
from tfmtr.run import Run
from tfmtr.schema import Schema


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The maps of a run, and what they did to the error.

    Args:
        document: What `calibration.json` holds; `calibrate` describes it.
        path: The run directory.
    """

    document: Mapping[str, Any] = dataclasses.field(repr=False)
    path: Path

    def table(self) -> str:
        """The errors of each group before and after, as text."""
        from tfmtr.evaluation.fitting_table import as_text
        from tfmtr.evaluation.tables import calibration_table

        return as_text(calibration_table(self.document))

    def to_json(self) -> str:
        """The document."""
        return json.dumps(self.document, indent=1)


def calibrate(
    run: str | os.PathLike,
    data: str | os.PathLike | None = None,
    *,
    by: str = "territory",
    method: str = "platt",
    min_count: int = 30,
) -> Calibration:
    """Fits maps for the newest model of a run on the validation rows and writes `<run>/calibration.json`.

    Args:
        run: Run directory made by `tfmtr train`.
        data: Directory made by `tfmtr prepare`; what the run was trained on by default.
        by: `"scenario"`, or a column that a request of the served model has: an id feature or a column of the scenario.
        method: `"platt"` or `"isotonic"`.
        min_count: As for `fit`.

    Returns:
        A `Calibration` of the document: `by`, `method`, `window`, `maps`, under `error` what `choose` found of each
        group, and under `unknown` what it found of groups that no validation row is of.

    Raises:
        ValueError: If `by` is no such column, no task is binary, there is no validation row, a probability is not
            finite, `min_count` is not positive, or `method` is unknown.
    """
    check_choice("method", method, METHODS)
    if not isinstance(min_count, int) or isinstance(min_count, bool) or min_count < 1:
        raise ValueError(f"`min_count` must be positive: a map needs rows. Received: min_count={min_count!r}")
    run = Run(run)
    data, schema = run.data if data is None else Dataset(data), run.schema
    check_choice("by", by, request_columns(schema))
    tasks = [task for task in schema.tasks if task.kind == "binary"]
    files = data.rows_for(run.recipe.form, "validation")
    if not tasks or not files:
        raise ValueError(
            "Calibration needs a binary task and validation rows; prepare with a larger --validation-fraction. "
            f"Received: {[f'{task.name} of kind {task.kind}' for task in schema.tasks]}, {len(files)} files"
        )
    columns, users, _ = predict(run.load(), files, schema, data, columns=[by])
    scores = {task.name: columns[f"{task.name} score"] for task in tasks}
    labels = {task.name: columns[task.column] for task in tasks}  # pyright: ignore[reportArgumentType]
    check_finite(scores)
    result = {"by": by, "method": method, "window": last_window(run), "maps": {}, "error": {}, "unknown": {}}
    for task, p in scores.items():
        maps, error, unknown = choose(
            p, labels[task], columns[by].astype(str), users % 2, method=method, min_count=min_count
        )
        result["maps"][task] = {name: dataclasses.asdict(one) for name, one in maps.items()}
        result["error"][task], result["unknown"][task] = error, unknown
    write_json(Path(run, "calibration.json"), result)
    return Calibration(result, run.path)


def last_window(run: Run) -> int:
    """Number of the test window that a run's newest model is for."""
    return run.windows[-1]


def request_columns(schema: Schema) -> list[str]:
    """What rows can be grouped by when they are served: texts of a request, and the scenario."""
    ids = [feature.name for feature in schema.by_role("user", "title", "context") if feature.kind == "id"]
    return ["scenario", *schema.scenario.columns, *(name for name in ids if name not in schema.scenario.columns)]

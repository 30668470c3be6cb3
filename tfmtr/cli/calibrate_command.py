"""`tfmtr calibrate`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tfmtr.cli.common_options import RunDirectory, check_typed


def calibrate(
    run: RunDirectory,
    data: Annotated[Path | None, typer.Option(help="Directory made by `tfmtr prepare`; the run's by default.")] = None,
    by: Annotated[
        str, typer.Option(help="A map for each value: an id feature, a column of the scenario, or scenario.")
    ] = "territory",
    method: Annotated[str, typer.Option(help="platt or isotonic.")] = "platt",
    min_count: Annotated[int, typer.Option(help="Positives, and negatives, for a map of one's own.")] = 30,
) -> None:
    """Fit the probabilities to validation rows; `export` then serves them so."""
    check_typed(runs=[run], data=data)
    from tfmtr.calibration import calibrate as fit
    from tfmtr.evaluation.tables import calibration_table

    Console().print(calibration_table(fit(run, data, by=by, method=method, min_count=min_count).document))

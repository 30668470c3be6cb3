"""`tfmtr report`."""

from pathlib import Path
from typing import Annotated

import typer

from tfmtr.cli.common_options import RunDirectories, check_typed


def report(
    runs: RunDirectories,
    out: Annotated[Path, typer.Option(help="HTML file to write; its figures go beside it.")] = Path("report.html"),
    data: Annotated[
        Path | None, typer.Option(help="Directory made by `tfmtr prepare`; where it was by default.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Show two runs side by side.")] = False,
    task: Annotated[str | None, typer.Option(help="A binary task; the first one by default.")] = None,
    num_samples: Annotated[int, typer.Option(help="Bootstrap samples of the intervals.")] = 1000,
) -> None:
    """Write a page about evaluated runs that opens anywhere; seeds of one model are one row."""
    check_typed(runs=runs, data=data)
    from tfmtr.reporting.page import report as write_report

    print(write_report(runs, out, data=data, compare=compare, task=task, num_samples=num_samples))

"""Options that several commands have, and the check of what was typed for them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

RunDirectory = Annotated[Path, typer.Argument(help="Run directory.")]
RunDirectories = Annotated[
    list[Path], typer.Argument(help="Run directories; the last one's gains are over the others.")
]
IndexedTitles = Annotated[
    Path | None,
    typer.Option(help="Directory made by `tfmtr prepare`, whose titles are indexed; the run's data by default."),
]
Service = Annotated[Path, typer.Option(help="Directory of the service's days; made with --start.")]
Signatures = Annotated[list[str] | None, typer.Option(help="A further signature, package.module:function; repeat.")]
INDEX_HELP = "exact; streaming, whose vectors stay in a file; or scann, approximate, with operations of its own."


def check_typed(*, runs: Sequence[Path] = (), data: Path | None = None, **names: Sequence[str] | None) -> None:
    """Raises a `ValueError` for a path or a name that is mistyped, before TensorFlow is imported, which takes seconds.

    Where it is imported already, what is called next says the same.

    Args:
        runs: Run directories.
        data: A directory made by `tfmtr prepare`.
        **names: `{argument: names of parts}`.
    """
    if "tensorflow" in sys.modules:
        return
    from tfmtr import components
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.run import Run

    for run in runs:
        Run(run)
    if data is not None:
        Dataset(data)
    folders = {argument: folder for folder, argument in components.ARGUMENTS.items()}
    for argument, chosen in names.items():
        for name in chosen or ():
            components.check_name(folders[argument], name)

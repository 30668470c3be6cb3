"""`tfmtr index`."""

from pathlib import Path
from typing import Annotated

import typer

from tfmtr.cli.common_options import INDEX_HELP, IndexedTitles, RunDirectory, Signatures, check_typed
from tfmtr.cli.printing import print_version


def index(
    run: RunDirectory,
    titles: IndexedTitles = None,
    out: Annotated[Path, typer.Option(help="Directory of the served index.")] = Path("saved_models/index"),
    kind: Annotated[str, typer.Option("--index", help=INDEX_HELP)] = "exact",
    signature: Signatures = None,
) -> None:
    """Export the title index with the towers only, as the next version: the titles of the day, without the scores."""
    check_typed(runs=[run], data=titles, index=[kind], signatures=signature)
    from tfmtr.exporting import export_index

    print_version(export_index(run, out, titles=titles, index=kind, signatures=signature or ()))

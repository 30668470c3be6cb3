"""`tfmtr export`."""

from pathlib import Path
from typing import Annotated

import typer

from tfmtr.cli.common_options import INDEX_HELP, IndexedTitles, RunDirectory, Signatures, check_typed
from tfmtr.cli.printing import print_version


def export(
    run: RunDirectory,
    titles: IndexedTitles = None,
    out: Annotated[Path, typer.Option(help="Directory of the served model.")] = Path("saved_models/two_tower"),
    index: Annotated[str, typer.Option(help=INDEX_HELP)] = "exact",
    signature: Signatures = None,
) -> None:
    """Export a model and its title index as the next version, at once."""
    check_typed(runs=[run], data=titles, index=[index], signatures=signature)
    from tfmtr.exporting import export as export_model

    print_version(export_model(run, out, titles=titles, index=index, signatures=signature or ()))

"""`tfmtr embeddings`."""

from pathlib import Path
from typing import Annotated

import typer

from tfmtr.cli.common_options import RunDirectory, check_typed


def embeddings(
    run: RunDirectory,
    out: Annotated[Path, typer.Option(help="Directory to write; must be new.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Directory made by `tfmtr prepare`, of whose users and titles; the run's data by default."),
    ] = None,
) -> None:
    """Write users' and titles' vectors as Parquet, for a vector database."""
    check_typed(runs=[run], data=data)
    from tfmtr.datasets.report import counted
    from tfmtr.retrieval.embeddings import write_embeddings

    manifest = write_embeddings(run, out, data=data)
    users, titles = (counted(manifest[name], name) for name in ("users", "titles"))
    print(f"{out}: {users}, {titles}, {manifest['width']} wide")

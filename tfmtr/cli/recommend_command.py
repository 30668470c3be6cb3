"""`tfmtr recommend`."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def recommend(
    model: Annotated[str, typer.Option(help="Name of the served model.")],
    data: Annotated[Path, typer.Option(help="Directory made by `tfmtr prepare`, for the user's row and the names.")],
    user_id: Annotated[str, typer.Option(help="The user.")],
    server: Annotated[str, typer.Option(help="host:port of the gRPC server.")] = "127.0.0.1:8500",
    k: Annotated[int, typer.Option("-k", help="How many titles.")] = 10,
    territory: Annotated[
        str | None,
        typer.Option(help="Whose catalogue; the user's own by default."),
    ] = None,
) -> None:
    """Ask a server for one user's recommendations."""
    from tfmtr.evaluation.tables import recommendation_table
    from tfmtr.serving.recommendations import recommend as ask

    if not re.fullmatch(r"unix:.+|.+:\d+", server):
        raise ValueError(f"`--server` must be host:port, or unix:path. Received: {server!r}")
    Console().print(recommendation_table(user_id, ask(server, model, data, user_id, k=k, territory=territory)))

"""`tfmtr recommend`."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tfmtr.arguments import pairs


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
    context: Annotated[
        str | None, typer.Option(help="Columns of the request, such as tab=3,device=tv; the user's row by default.")
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="Weight of a task, such as click=0.5; repeat. By default its own.")
    ] = None,
) -> None:
    """Ask a server for one user's recommendations."""
    from tfmtr.evaluation.tables import recommendation_table
    from tfmtr.serving.recommendations import recommend as ask

    if not re.fullmatch(r"unix:.+|.+:\d+", server):
        raise ValueError(f"`--server` must be host:port, or unix:path. Received: {server!r}")
    weights = pairs("weight", weight or (), what="value")
    weights = {task: number("--weight", value) for task, value in weights.items()}
    options = {"territory": territory, "weights": weights}
    options["context"] = pairs("context", context.split(",") if context else (), what="value")
    Console().print(recommendation_table(user_id, ask(server, model, data, user_id, k=k, **options)))


def number(option: str, text: str) -> float:
    """The number that a text is."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"`{option}` must be name=number. Received: {text!r}") from None

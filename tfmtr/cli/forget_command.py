"""`tfmtr forget`."""

from pathlib import Path
from typing import Annotated

import typer


def forget(
    user_id: Annotated[str, typer.Option(help="The user.")],
    service: Annotated[Path | None, typer.Option(help="Directory of a service's days.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="Directory made by `tfmtr prepare`; repeat.")] = None,
    embeddings: Annotated[list[Path] | None, typer.Option(help="Directory made by `tfmtr embeddings`; repeat.")] = None,
) -> None:
    """Remove a user's rows and vectors, and say what a deployed model may still hold."""
    from tfmtr.operations.forgetting import forget as forget_user

    for line in forget_user(user_id, service=service, data=data or (), embeddings=embeddings or ()):
        print(line)

"""`tfmtr deploy-kit`."""

from pathlib import Path
from typing import Annotated

import typer


def deploy_kit(
    model: Annotated[Path, typer.Option(help="Directory of the model's versions.")] = Path("saved_models/two_tower"),
    out: Annotated[Path, typer.Option(help="Directory to write.")] = Path("deploy"),
    name: Annotated[str | None, typer.Option(help="Name that clients ask for; the directory's by default.")] = None,
) -> None:
    """Write what TensorFlow Serving on a GPU needs: configurations, Docker and Kubernetes files, clients, warm-up."""
    from tfmtr.serving.deploy_kit import deploy_kit as write_kit

    for file in write_kit(model, out, name=name):
        print(out / file)

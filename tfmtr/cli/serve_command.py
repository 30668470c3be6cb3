"""`tfmtr serve`."""

import dataclasses
import gc
import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from tfmtr.cli.option_groups import keyword, with_signature
from tfmtr.cli.printing import print_package_versions
from tfmtr.serving.options import ServerOptions

if TYPE_CHECKING:
    from typer._click.core import Context  # Typer's own copy of Click, to which it gives no public name


class ServeCommand(typer.core.TyperCommand):
    """Takes flags as `tensorflow_model_server` does: `--name=value`, also of those that are true or false."""

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Turns `--enable_x=true` into `--enable_x`, and `=false` into `--no_enable_x`; answers `--version`."""
        if {"--version", "--version=true"} & set(args):
            print_package_versions(True)
        switches = {"true": "", "1": "", "false": "no_", "0": "no_"}
        booleans = {field.name for field in dataclasses.fields(ServerOptions) if field.type is bool}
        words = []
        for argument in args:
            name, _, value = argument.removeprefix("--").partition("=")
            is_switch = name in booleans and value.lower() in switches
            words.append(f"--{switches[value.lower()]}{name}" if is_switch else argument)
        return super().parse_args(ctx, words)


def serve(**options: Any) -> None:
    """Serve models over TF Serving's gRPC and REST protocols; flags as of tensorflow_model_server."""
    from tfmtr.serving.server import serve as serve_models

    # What is imported stays for good. Unfrozen, every full collection would walk it and hold up all answers for 0.3 s.
    gc.collect()
    gc.freeze()
    options = {name: value or None if name == "model_base_path" else value for name, value in options.items()}
    serve_models(options.pop("model_base_path"), **options)


def _parameters() -> list[inspect.Parameter]:
    parameters = []
    for field in dataclasses.fields(ServerOptions):
        kind = int if field.name in ("port", "rest_api_port") else field.type
        names = f"--{field.name}/--no_{field.name}" if kind is bool else f"--{field.name}"
        option = typer.Option(names, help=field.metadata["help"])
        parameters.append(keyword(field.name, Annotated[kind, option], field.default))
    return parameters


with_signature(serve, _parameters())

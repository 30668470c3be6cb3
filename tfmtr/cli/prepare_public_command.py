"""`tfmtr prepare NAME` for each file of `tfmtr/datasets/public`, made when it is asked for."""

import inspect
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from tfmtr.cli.option_groups import keyword, with_signature
from tfmtr.cli.preparing import prepares

if TYPE_CHECKING:
    from typer._click.core import Command, Context  # Typer's own copy of Click, to which it gives no public name

    from tfmtr.datasets.logs import Logs

SOURCE_HELP = "Where the data set's own files are: the folder, archive or file."


class PrepareGroup(typer.core.TyperGroup):
    """Has a command for every file of `tfmtr/datasets/public`, made when it is asked for."""

    def list_commands(self, ctx: "Context") -> list[str]:
        """Names of all commands."""
        from tfmtr.datasets import public

        return [*super().list_commands(ctx), *public.names()]

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":
        """The command of a name, `None` if there is none."""
        from tfmtr.datasets import public

        command = super().get_command(ctx, cmd_name)
        return command or (public_command(cmd_name) if cmd_name in public.names() or ":" in cmd_name else None)


def public_command(name: str) -> "Command":
    """The command `tfmtr prepare NAME` of a public data set: its source, its own options, and those that all have."""
    from tfmtr.datasets import public

    function = public.find(name)
    source, _, *options = inspect.signature(function).parameters.values()
    if "None" in str(source.annotation):  # it can be downloaded
        parameters = [keyword("source", Annotated[Path | None, typer.Option(help=SOURCE_HELP)], None)]
    else:
        parameters = [keyword("source", Annotated[Path, typer.Option(help=SOURCE_HELP)])]
    for option in options:
        if typing.get_origin(option.annotation) is not Annotated:
            raise ValueError(
                "`data set` must be a function like those of tfmtr/datasets/public, whose options have a type and a "
                f'help text: Annotated[type, "Help."]. Received: {name!r}, {option}'
            )
        kind, text = typing.get_args(option.annotation)[:2]
        parameters.append(option.replace(annotation=Annotated[kind, typer.Option(help=text)]))

    def command(*, tables: Path, source: Path | None, **arguments: Any) -> "Logs":
        return function(source, tables, **arguments)

    command.__doc__ = (inspect.getmodule(function).__doc__ or "").partition("\n\n")[0]
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(prepares(with_signature(command, parameters)))
    return typer.main.get_command(single)

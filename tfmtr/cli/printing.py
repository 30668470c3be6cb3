"""What the command prints beside tables: lines of standard error, versions."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from tfmtr.evaluation.fitting_table import printable

if TYPE_CHECKING:
    from tfmtr.version import Version

console = Console(stderr=True)


def note(kind: str, style: str, text: str) -> None:
    """Prints a line such as `warning: ...` to standard error."""
    console.print(Text.assemble((kind, style), f": {printable(text)}"), soft_wrap=True)


def print_where(kind: str, path: object) -> None:
    """Prints a line such as `run: folder` to standard error."""
    console.print(Text(f"{kind}: {path}"), soft_wrap=True)


def print_version(exported: "Version") -> None:
    """Prints where a `Version` is, and what it needs of the server."""
    print(exported)
    if exported.needs:
        note("needs", "yellow", exported.needs)


def print_package_versions(is_asked: bool) -> None:
    """Answers `--version`; TensorFlow is not imported for it."""
    if is_asked:
        try:
            print(f"tfmtr {version('tfmtr')}, TensorFlow {version('tensorflow')}")
        except PackageNotFoundError as error:
            print(f"tfmtr: {error.name} is not installed")
        raise typer.Exit

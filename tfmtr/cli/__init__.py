"""The `tfmtr` command: one file a command, each thin; TensorFlow is imported by the steps that need it."""

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tfmtr.arguments import ending_in_order, in_words_of, typed_path, words_of
from tfmtr.cli.calibrate_command import calibrate
from tfmtr.cli.daily_command import daily
from tfmtr.cli.deploy_kit_command import deploy_kit
from tfmtr.cli.embeddings_command import embeddings
from tfmtr.cli.evaluate_command import evaluate
from tfmtr.cli.export_command import export
from tfmtr.cli.forget_command import forget
from tfmtr.cli.index_command import index
from tfmtr.cli.prepare_candidates_command import prepare_candidates
from tfmtr.cli.prepare_events_command import prepare_events
from tfmtr.cli.prepare_public_command import PrepareGroup
from tfmtr.cli.prepare_rows_command import prepare_rows
from tfmtr.cli.prepare_simulator_command import prepare_simulator
from tfmtr.cli.printing import note, print_package_versions
from tfmtr.cli.recommend_command import recommend
from tfmtr.cli.report_command import report
from tfmtr.cli.rollback_command import rollback
from tfmtr.cli.serve_command import ServeCommand, serve
from tfmtr.cli.train_command import train
from tfmtr.cli.tune_command import tune
from tfmtr.startup import start_quickly

if TYPE_CHECKING:
    from typer._click.core import Command  # Typer's own copy of Click, to which it gives no public name

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=print_package_versions, help="Show the versions and exit."),
    ] = False,
    import_paths: Annotated[
        bool,
        typer.Option(
            "--import-paths/--no-import-paths",
            help="Run the code that recipes and runs name as package.module:function; see SECURITY.md.",
        ),
    ] = True,
) -> None:
    """From interaction logs to served recommendations, with one model for many territories and tasks."""
    if not import_paths:
        from tfmtr import components

        components.lock()


for command in (
    train,
    tune,
    evaluate,
    report,
    calibrate,
    export,
    index,
    daily,
    rollback,
    forget,
    embeddings,
    deploy_kit,
):
    app.command()(command)
app.command(cls=ServeCommand)(serve)
app.command()(recommend)

prepare_app = typer.Typer(
    help="Build the training set from a service's logs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=PrepareGroup,
)
prepare_app.command("simulator")(prepare_simulator)
prepare_app.command("events")(prepare_events)
prepare_app.command("rows")(prepare_rows)
prepare_app.command("candidates")(prepare_candidates)
app.add_typer(prepare_app, name="prepare")


def main() -> NoReturn:
    """Runs the command; what the user can mend is a message, not a stack trace (set TFMTR_TRACEBACK for one)."""
    from tfmtr.serving.errors import ServerError

    start_quickly()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    typed = sys.argv[1:]
    names: list[str] = []
    usage_error: Any = typer.BadParameter.__mro__[2]  # click's own, which typer does not give a name
    try:
        names = typed_names(typed)
        # A server finishes what runs before it ends, and answers the signals itself.
        with contextlib.nullcontext() if names[:1] == ["serve"] else ending_in_order():
            status = app(standalone_mode=False)
    except usage_error as error:
        if hasattr(command_of(names), "commands") and not typed[len(names) :]:
            error.show()  # the help of a command that needs another word
        else:
            note("error", "bold red", " ".join(error.format_message().replace("Value error, ", "").split()))
            note("help", "bold", " ".join(["tfmtr", *names, "--help"]))
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        if os.environ.get("TFMTR_TRACEBACK"):
            raise
        for warning in getattr(error, "__notes__", ()):
            note("warning", "yellow", warning)
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{typed_path(str(error.filename), words_of(typed))}: {error.strerror}"
        if isinstance(error, ValueError | ImportError | ServerError):
            text = in_words_of(command_of(names), text, typed[len(names) :])
        elif not isinstance(error, OSError):
            first = next(iter(text.splitlines()), "")
            text = f"{type(error).__name__}: {first} (what led to it is shown where TFMTR_TRACEBACK=1 is set)"
        note("error", "bold red", text)
        raise SystemExit(getattr(error, "exit_code", 1)) from None
    raise SystemExit(status if isinstance(status, int) else 0)


def typed_names(typed: Sequence[str]) -> list[str]:
    """The words of what was typed that name a command, such as `["prepare", "events"]`; options may come before it."""
    command: Any = typer.main.get_command(app)
    names = []
    for word in typed:
        if not names and word in ("--import-paths", "--no-import-paths"):
            continue
        command = command.get_command(None, word) if hasattr(command, "commands") else None
        if command is None:
            break
        names.append(word)
    return names


def command_of(names: Sequence[str]) -> "Command":
    """The command of these names."""
    command: Any = typer.main.get_command(app)
    for name in names:
        command = command.get_command(None, name)
    return command

"""What all commands `tfmtr prepare NAME` share: their options, and from logs to the training set."""

import dataclasses
import datetime
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from tfmtr.arguments import calendar_of, whole_numbers
from tfmtr.cli.option_groups import grouped, keyword, with_signature
from tfmtr.cli.printing import note

if TYPE_CHECKING:
    from tfmtr.datasets.logs import Logs

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """Which times are windows of training, and which are tests."""

    window_days: Annotated[
        float | None, typer.Option(help="Length of a window in days; by default one is chosen that covers the log.")
    ] = None
    train_windows: Annotated[
        int | None, typer.Option(help="Number of training windows; by default as many as cover the log.")
    ] = None
    test_windows: Annotated[
        int | None, typer.Option(help="Number of test windows; by default 3, or fewer if the log is short.")
    ] = None
    end: Annotated[
        datetime.datetime | None,
        typer.Option(help="End of the training window, UTC; by default the log's last windows are the tests."),
    ] = None
    warm_up: Annotated[
        float | None,
        typer.Option(help="Share of the events that only count as history before the first window; 0.2 if not given."),
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparationOptions:
    """What `tfmtr.datasets.prepare.prepare` takes beside the logs."""

    out: Annotated[Path, typer.Option(help="Directory to write; must be new, or prepared before and --overwrite.")]
    seed: Annotated[int, typer.Option(help="Of every sample drawn.")] = 0
    examples: Annotated[
        str,
        typer.Option(
            help="What ranking models learn from: discoveries (and negatives), or impressions, all of them as logged."
        ),
    ] = "discoveries"
    alpha: Annotated[float, typer.Option(help="Negatives for each positive.")] = 10.0
    negatives: Annotated[str, typer.Option(help="Negatives are logged, sampled, or both: logged ones first.")] = "both"
    low_ratings: Annotated[
        str, typer.Option(help="What is rated below the first task's threshold is to hide, or to be negatives.")
    ] = "hide"
    seen: Annotated[
        str,
        typer.Option(help="Lists leave out what a user had (events), rated too (rated), or saw (impressions)."),
    ] = "rated"
    test_fraction: Annotated[float | None, typer.Option(help="Share of users for the tests; 0.3 if not given.")] = None
    validation_fraction: Annotated[
        float | None, typer.Option(help="Share of users for validation; 0.1 if not given.")
    ] = None
    fold: Annotated[
        str | None,
        typer.Option(help="Take the i-th of n disjoint parts of the users for the tests, written i/n, such as 2/5."),
    ] = None
    random_fraction: Annotated[float, typer.Option(help="Share of the other users in the random set.")] = 0.5
    num_groups: Annotated[int, typer.Option(help="Territory groups, where none are given.")] = 4
    engine: Annotated[str, typer.Option(help="Query engine: duckdb, or spark (the extra).")] = "duckdb"
    spark_master: Annotated[
        str | None, typer.Option(help="Such as local[2]; default: what Spark's configuration says.")
    ] = None
    memory_limit: Annotated[str, typer.Option(help="Memory of this process, such as 4GB.")] = "4GB"
    missing_vectors: Annotated[str, typer.Option(help="Users without a vector: error, or zero.")] = "error"
    contradictions: Annotated[str, typer.Option(help="A label without the one it is after: refuse, or keep.")] = (
        "refuse"
    )
    text_encoder: Annotated[Path | None, typer.Option(help="KerasHub preset for titles' text; TF-IDF by default.")] = (
        None
    )
    counters: Annotated[
        list[str] | None,
        typer.Option(
            help="Counts of the last days as features: title, user, title,territory (or columns of a request), or "
            "user,genre (a column of the titles); repeat."
        ),
    ] = None
    counter_days: Annotated[
        str | None, typer.Option(help="How many days before a window counters look back; 1,7,28 if not given.")
    ] = None
    counter_prior: Annotated[
        float, typer.Option(help="As many rows of the overall rate are added to each rate of a counter.")
    ] = 20.0
    like: Annotated[
        Path | None,
        typer.Option(help="Dataset directory that these data continue: same columns, same vectors of texts."),
    ] = None
    overwrite: Annotated[bool, typer.Option(help="Replace a prepared directory.")] = False


def prepares(command: Callable[..., "Logs"]) -> Callable[..., None]:
    """Adds the options that all data sets share to a command `(logs...) -> Logs` and prepares what it returns."""

    @functools.wraps(command)
    def prepared(*, windows: WindowOptions, options: PreparationOptions, **logs_options: Any) -> None:
        from tfmtr.datasets.dataset import Dataset
        from tfmtr.datasets.prepare import prepare
        from tfmtr.scratch import scratch

        with scratch(options.out.parent, ".tables-") as tables:
            logs = command(tables=tables, **logs_options)
            logs = dataclasses.replace(logs, calendar=calendar_of(logs.calendar, **vars(windows)))
            chosen: dict[str, Any] = vars(options) | {"like": options.like and Dataset(options.like)}
            if options.counter_days is not None:
                chosen["counter_days"] = whole_numbers("counter-days", options.counter_days)
            made = prepare(logs, **chosen)
        print_report(made.report)

    parameters = [p for p in inspect.signature(command).parameters.values() if p.name != "tables"]
    shared = [keyword("windows", WindowOptions), keyword("options", PreparationOptions)]
    return grouped(with_signature(prepared, [*parameters, *shared]))


def print_report(report: dict[str, Any]) -> None:
    """Prints what was prepared, and its warnings."""
    from tfmtr.evaluation.tables import funnel_table, statistics_table

    Console().print(statistics_table(report))
    if "calendar" in report:
        Console().print(Text(f"windows: {report['calendar']['text']}"), soft_wrap=True)
    if "funnel" in report:  # public data sets with given splits have none
        Console().print(funnel_table(report))
    if shown := report.get("impressions"):
        rows = {split: sum(row["rows"] for row in shown if row["split"] == split) for split in SPLITS}
        said = ", ".join(f"{number:,} for {split}" for split, number in rows.items())
        Console().print(f"impressions: {said}")
    for warning in report["warnings"]:
        note("warning", "yellow", warning)

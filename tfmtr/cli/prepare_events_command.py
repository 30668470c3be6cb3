"""`tfmtr prepare events`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfmtr.arguments import pairs, texts_of
from tfmtr.cli.option_groups import grouped
from tfmtr.cli.preparing import prepares
from tfmtr.cli.table_options import TableOptions, tables_of

if TYPE_CHECKING:
    from tfmtr.datasets.logs import Logs

KEYS = ("user", "title", "territory", "time", "name", "request")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogsOptions:
    """What a `Logs` is made of beside that, where its events are a log's."""

    events: Annotated[Path, typer.Option(help="Events: Parquet or CSV, one file or a folder.")]
    columns: Annotated[
        str,
        typer.Option(
            "--map",
            help="Your column names: user=uid,title=asin,time=ts[,territory=market][,name=text][,request=list].",
        ),
    ]
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="name=column[>=4][:regression | :after=name]; repeat. The first one's positives define the examples."
        ),
    ] = None
    availability: Annotated[
        str | None,
        typer.Option(help="Table title, territory[, start, end]; or 'anywhere'. Default: from earlier events."),
    ] = None
    time_zones: Annotated[
        Path | None,
        typer.Option(help='JSON: {"territory": "Europe/Berlin"}; windows are then days of the territory, not of UTC.'),
    ] = None
    time_format: Annotated[
        str | None,
        typer.Option(help='How text is written that is a time, such as "%d/%m/%Y %H:%M"; year-month-day needs none.'),
    ] = None
    no_times: Annotated[
        bool, typer.Option("--no-times", help="Events have no time: users are held out, and their history is drawn.")
    ] = False
    split_column: Annotated[
        str | None,
        typer.Option(help="Column of the events that says train, validation or test, where a split is given."),
    ] = None


@prepares
@grouped
def prepare_events(*, tables: Path, given: LogsOptions, columns_of_tables: TableOptions) -> "Logs":
    """Your own logs: an events table and, where you have them, a users and a titles table."""
    from tfmtr.datasets.logs import Logs

    return Logs(
        events=given.events,
        columns=pairs("map", given.columns.split(","), keys=KEYS),
        tasks=pairs("task", given.task or []),
        availability=given.availability if given.availability in (None, "anywhere") else Path(given.availability),
        time_zones=texts_of("time-zones", given.time_zones, "Europe/Berlin"),
        time_format=given.time_format,
        has_times=not given.no_times,
        split_column=given.split_column,
        **tables_of(columns_of_tables),
    )

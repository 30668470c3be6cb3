"""`tfmtr prepare events`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfmtr.arguments import pairs, places_of, texts_of
from tfmtr.cli.option_groups import grouped
from tfmtr.cli.preparing import prepares

if TYPE_CHECKING:
    from tfmtr.datasets.logs import Logs

KEYS = ("user", "title", "territory", "time", "name", "request")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogsOptions:
    """What `tfmtr.datasets.logs.Logs` is made of, as it is typed."""

    events: Annotated[Path, typer.Option(help="Events: Parquet or CSV, one file or a folder.")]
    users: Annotated[Path | None, typer.Option(help="Users: one row each; those of the events by default.")] = None
    titles: Annotated[Path | None, typer.Option(help="Titles: one row each; those of the events by default.")] = None
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
    training: Annotated[
        list[str] | None,
        typer.Option(help="name=column[:id]: known in training only, such as the position on the page; repeat."),
    ] = None
    context: Annotated[
        str | None,
        typer.Option(
            help="Columns of the events that a request has, too: [name=]column[:number],..., such as tab,device."
        ),
    ] = None
    scenario: Annotated[
        str | None,
        typer.Option(
            help="What tells scenarios apart, such as tab or tab,territory; by default the groups of territories."
        ),
    ] = None
    availability: Annotated[
        str | None,
        typer.Option(help="Table title, territory[, start, end]; or 'anywhere'. Default: from earlier events."),
    ] = None
    user_vectors: Annotated[Path | None, typer.Option(help="Folder: vectors.npy, ids.parquet.")] = None
    title_vectors: Annotated[Path | None, typer.Option(help="Folder: vectors.npy, ids.parquet.")] = None
    groups: Annotated[Path | None, typer.Option(help='JSON: {"territory": "group"}.')] = None
    neighbours: Annotated[
        Path | None,
        typer.Option(help='JSON: {"territory": [longitude, latitude]}, to make groups of neighbours.'),
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
def prepare_events(*, tables: Path, given: LogsOptions) -> "Logs":
    """Your own logs: an events table and, where you have them, a users and a titles table."""
    from tfmtr.datasets.logs import Logs

    return Logs(
        events=given.events,
        users=given.users,
        titles=given.titles,
        columns=pairs("map", given.columns.split(","), keys=KEYS),
        tasks=pairs("task", given.task or []),
        training=pairs("training", given.training or []),
        context=pairs("context", [named(part) for part in (given.context or "").split(",") if part]),
        scenario=[name for name in (given.scenario or "").split(",") if name],
        availability=given.availability if given.availability in (None, "anywhere") else Path(given.availability),
        user_vectors=given.user_vectors,
        title_vectors=given.title_vectors,
        groups=texts_of("groups", given.groups, "group"),
        neighbours=places_of("neighbours", given.neighbours),
        time_zones=texts_of("time-zones", given.time_zones, "Europe/Berlin"),
        time_format=given.time_format,
        has_times=not given.no_times,
        split_column=given.split_column,
    )


def named(text: str) -> str:
    """`name=column[:kind]`, where the name may be left out.

    >>> named("tab"), named("hour:number"), named("where=tab")
    ('tab=tab', 'hour=hour:number', 'where=tab')
    """
    return text if "=" in text else f"{text.partition(':')[0]}={text}"

"""`tfmtr prepare rows`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmtr.arguments import pairs
from tfmtr.cli.option_groups import grouped
from tfmtr.cli.preparing import print_report
from tfmtr.cli.table_options import TableOptions, tables_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowsOptions:
    """The rows, and which of their columns is what."""

    events: Annotated[
        Path, typer.Option("--rows", help="Labelled rows, an example each: Parquet or CSV, one file or a folder.")
    ]
    columns: Annotated[
        str,
        typer.Option(
            "--map", help="Your column names: user=uid,title=asin[,territory=market][,name=text][,request=list]."
        ),
    ]
    split_column: Annotated[str, typer.Option(help="Column that says train, validation or test of every row.")]
    task: Annotated[
        list[str], typer.Option(help="name=column[>=4][:regression | :after=name]; repeat. A null label is masked.")
    ]
    availability: Annotated[
        Path | None, typer.Option(help="Table title, territory; by default all titles are available everywhere.")
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowsPreparation:
    """What `tfmtr.datasets.labelled_rows.prepare_rows` takes beside the tables."""

    out: Annotated[Path, typer.Option(help="Directory to write; must be new, or prepared before and --overwrite.")]
    num_groups: Annotated[int, typer.Option(help="Territory groups, where none are given.")] = 4
    memory_limit: Annotated[str, typer.Option(help="Memory of this process, such as 4GB.")] = "4GB"
    missing_vectors: Annotated[str, typer.Option(help="Users or titles without a vector: error, or zero.")] = "error"
    contradictions: Annotated[str, typer.Option(help="A label without the one it is after: refuse, or keep.")] = (
        "refuse"
    )
    overwrite: Annotated[bool, typer.Option(help="Replace a prepared directory.")] = False


@grouped
def prepare_rows(*, given: RowsOptions, tables: TableOptions, options: RowsPreparation) -> None:
    """Labelled rows that have their split already: each becomes one example, and nothing is drawn."""
    from tfmtr.datasets.labelled_rows import prepare_rows as prepare
    from tfmtr.datasets.logs import Logs

    logs = Logs(
        events=given.events,
        columns=pairs("map", given.columns.split(","), keys=("user", "title", "territory", "name", "request")),
        tasks=pairs("task", given.task),
        split_column=given.split_column,
        availability=given.availability,
        **tables_of(tables),
    )
    chosen: dict[str, Any] = vars(options)
    print_report(prepare(logs, **chosen).report)

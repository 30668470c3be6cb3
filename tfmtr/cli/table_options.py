"""What commands share that take tables of one's own: files, and which column is what."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmtr.arguments import pairs, places_of, texts_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What `tfmtr.datasets.logs.Logs` is made of, whatever its events are."""

    users: Annotated[
        Path | None, typer.Option(help="Users: one row each; by default those that the events or rows name.")
    ] = None
    titles: Annotated[
        Path | None, typer.Option(help="Titles: one row each; by default those that the events or rows name.")
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
    id_features: Annotated[
        list[str] | None,
        typer.Option(
            "--id-feature",
            help="user or title[=top:NUMBER | =hashed:NUMBER]: the id is a feature, by default the million most "
            "frequent ones; repeat.",
        ),
    ] = None
    scenario: Annotated[
        str | None,
        typer.Option(
            help="What tells scenarios apart, such as tab or tab,territory; by default the groups of territories."
        ),
    ] = None
    user_vectors: Annotated[Path | None, typer.Option(help="Folder: vectors.npy, ids.parquet.")] = None
    title_vectors: Annotated[Path | None, typer.Option(help="Folder: vectors.npy, ids.parquet.")] = None
    groups: Annotated[Path | None, typer.Option(help='JSON: {"territory": "group"}.')] = None
    neighbours: Annotated[
        Path | None,
        typer.Option(help='JSON: {"territory": [longitude, latitude]}, to make groups of neighbours.'),
    ] = None


def tables_of(given: TableOptions) -> dict[str, Any]:
    """The arguments of `Logs` that the options say."""
    return {
        "users": given.users,
        "titles": given.titles,
        "training": pairs("training", given.training or []),
        "context": pairs("context", [named(part) for part in (given.context or "").split(",") if part]),
        "id_features": pairs(
            "id-feature", [text if "=" in text else f"{text}=top" for text in given.id_features or []], what="way"
        ),
        "scenario": [name for name in (given.scenario or "").split(",") if name],
        "user_vectors": given.user_vectors,
        "title_vectors": given.title_vectors,
        "groups": texts_of("groups", given.groups, "group"),
        "neighbours": places_of("neighbours", given.neighbours),
    }


def named(text: str) -> str:
    """`name=column[:kind]`, where the name may be left out.

    >>> named("tab"), named("hour:number"), named("where=tab")
    ('tab=tab', 'hour=hour:number', 'where=tab')
    """
    return text if "=" in text else f"{text.partition(':')[0]}={text}"

"""`tfmtr daily`."""

import dataclasses
import datetime
import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tfmtr.arguments import texts_of
from tfmtr.cli.common_options import Service
from tfmtr.cli.option_groups import grouped

Step = enum.StrEnum("Step", ["prepare", "train", "gate", "export"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartOptions:
    """What a service begins with; of no effect on later days."""

    start: Annotated[Path | None, typer.Option(help="First time: the run that the service goes on from.")] = None
    out: Annotated[Path, typer.Option(help="First time: directory of the served model.")] = Path(
        "saved_models/two_tower"
    )
    ranking: Annotated[
        Path | None, typer.Option(help="First time: run of a ranking model, which orders what --start's index finds.")
    ] = None
    candidates: Annotated[int, typer.Option(help="First time: how many titles the index finds for it.")] = 500
    first_weight: Annotated[
        float | None,
        typer.Option(help="First time: weight of the index's score; by default chosen on validation users."),
    ] = None
    events: Annotated[Path | None, typer.Option(help="First time: where events are now; as prepared by default.")] = (
        None
    )
    users: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None
    titles: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None
    availability: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None
    user_vectors: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None
    title_vectors: Annotated[Path | None, typer.Option(help="First time: likewise.")] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateOptions:
    """How much worse the data and the model of a day may be."""

    max_drop: Annotated[float, typer.Option(help="Gate: largest relative loss of a task, also in a territory.")] = 0.05
    max_shift: Annotated[
        float,
        typer.Option(
            help="Gate: largest loss of the live model since the days before, and of the new one in any case."
        ),
    ] = 0.3
    max_loss: Annotated[
        float, typer.Option(help="Gate: largest relative loss of rows, users or titles since the days before.")
    ] = 0.3
    max_share: Annotated[
        float,
        typer.Option(help="Gate: largest growth of a share: dropped, unknown, missing, without a group."),
    ] = 0.05
    max_move: Annotated[
        float, typer.Option(help="Gate: farthest that a number's median may move, in standard deviations.")
    ] = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DayOptions:
    """How the day is done."""

    epochs: Annotated[int, typer.Option(help="Times that each row is seen.")] = 1
    missing_vectors: Annotated[
        str | None, typer.Option(help="What has no vector: error, or zero, from this day on; as before by default.")
    ] = None
    signature: Annotated[
        list[str] | None,
        typer.Option(help="A further signature, package.module:function, from this day on, or none; repeat."),
    ] = None
    retry: Annotated[
        bool, typer.Option(help="Do a day again that was refused or rolled back; what has not changed is used again.")
    ] = False
    again_from: Annotated[
        Step | None, typer.Option("--from", help="Do a day again from this step on, whether or not anything changed.")
    ] = None


@grouped
def daily(
    service: Service,
    day: Annotated[datetime.datetime, typer.Option(formats=["%Y-%m-%d"], help="The day whose events are complete.")],
    *,
    first: StartOptions,
    groups: Annotated[Path | None, typer.Option(help='JSON: {"territory": "group"} of new ones.')] = None,
    late_days: Annotated[int, typer.Option(help="Days before that late events may be of.")] = 2,
    limits: GateOptions,
    options: DayOptions,
) -> None:
    """Prepare, check, train, judge, export and publish one day of a service.

    The data are judged first, against those of the live model: rows, users and titles that are missing, rows that
    cannot be used, territories without an event or a group, unknown and missing values, vectors of another model. Then
    the new model is judged against the live one. If either closes the gate, the live model stays. A day that failed or
    was interrupted is run again by the same command, a refused one with --retry: steps whose files, options and live
    model are the same keep their results. Rows of earlier days that come late are trained on for --late-days; older
    ones are counted.

    Exit codes: 0 promoted, 3 refused, 4 no events on the day, 5 a table is not what it must be, 6 another process works
    on the service, 1 any other error. The record is SERVICE/days/DAY/day.json.
    """
    from tfmtr.operations.day import check_options
    from tfmtr.operations.day import daily as run_day
    from tfmtr.operations.record import page
    from tfmtr.operations.service import start_service

    changes = dict(vars(options))
    signature, retry = changes.pop("signature"), changes.pop("retry")
    signatures = [] if signature == ["none"] else signature or None
    changes |= {"late_days": late_days, "again_from": options.again_from and str(options.again_from)}
    new_groups = texts_of("groups", groups, "group")
    if first.start is not None:
        check_options(vars(limits), **changes)
        options_of_start = {name: value for name, value in vars(first).items() if value is not None}
        run, out = options_of_start.pop("start"), options_of_start.pop("out")
        start_service(service, run, out, signatures=signatures, **options_of_start)
    gate = vars(limits)
    result = run_day(service, day.date(), groups=new_groups, signatures=signatures, retry=retry, **gate, **changes)
    Console().print(page(result))
    if result["status"] != "promoted":
        raise typer.Exit(3)

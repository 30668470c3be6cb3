"""`tfmtr prepare simulator`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfmtr.cli.option_groups import grouped
from tfmtr.cli.preparing import prepares

if TYPE_CHECKING:
    from tfmtr.datasets.logs import Logs


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """What `tfmtr.datasets.simulator.simulator` takes."""

    num_users: Annotated[int, typer.Option(help="Users of the service.")] = 20_000
    num_titles: Annotated[int, typer.Option(help="Titles of the catalogue.")] = 400
    num_territories: Annotated[int, typer.Option(help="Territories.")] = 24
    days: Annotated[int, typer.Option(help="Length of the log.")] = 60
    heterogeneity: Annotated[float, typer.Option(help="0: one taste everywhere; 1: territories differ most.")] = 0.7
    feedback: Annotated[float, typer.Option(help="0: popularity decides nothing that is shown; 1: most.")] = 0.4
    impressions: Annotated[bool, typer.Option(help="Log what was shown and not streamed, too.")] = False
    widths: Annotated[tuple[int, int], typer.Option(help="Of the user and of the title vectors.")] = (64, 96)
    simulator_seed: Annotated[int, typer.Option(help="Of the simulated world.")] = 0


@prepares
@grouped
def prepare_simulator(*, tables: Path, world: WorldOptions) -> "Logs":
    """A simulated video service in many territories; needs no data."""
    from tfmtr.datasets.simulator import simulator

    options = dict(vars(world))
    seed = options.pop("simulator_seed")
    if seed < 0:
        raise ValueError(f"`--simulator-seed` must not be negative. Received: {seed}")
    return simulator(tables, **options, seed=seed)

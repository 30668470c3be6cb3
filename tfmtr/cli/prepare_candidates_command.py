"""`tfmtr prepare candidates`."""

from pathlib import Path
from typing import Annotated

import typer

from tfmtr.cli.common_options import check_typed
from tfmtr.cli.printing import Console, note

LEFT_OUT = {
    "again": "had been theirs before: they are in no list",
    "early": "are of the first two windows, before which little is known",
}


def prepare_candidates(
    run: Annotated[Path, typer.Argument(help="Run directory of the first stage, a two-tower model.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    candidates: Annotated[int, typer.Option(help="Titles of a list, as many as are ranked when it is served.")] = 500,
    negatives: Annotated[int, typer.Option(help="Titles of each list that were passed over, to learn from.")] = 30,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a prepared directory.")] = False,
) -> None:
    """Lists of a first stage as of each window, and what users took of them: the examples of a second stage."""
    check_typed(runs=[run])
    from tfmtr.candidates import prepare_candidates as prepare

    data = prepare(run, out, candidates=candidates, negatives=negatives, seed=seed, overwrite=overwrite)
    facts = data.report["candidates"]
    for split, lists in facts["lists"].items():
        taken, found = facts["taken"][split], facts["among_candidates"][split]
        rows = sum(row["rows"] for row in data.report["examples"] if row["split"] == split)
        Console().print(
            f"{split}: {rows:,} rows of {lists:,} lists; {found:,} of {taken:,} titles that users took are among the "
            f"{candidates:,} candidates ({found / max(taken, 1):.0%})",
            soft_wrap=True,
        )
    for name, why in LEFT_OUT.items():
        if number := sum(facts[name].values()):
            note("left out", "yellow", f"{number:,} titles that users took {why}")
    note("next", "green", f"tfmtr train --data {out} --set form=ranking")

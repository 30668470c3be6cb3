"""`tfmtr export`."""

from pathlib import Path
from typing import Annotated

import typer

from tfmtr.cli.common_options import INDEX_HELP, IndexedTitles, Signatures, check_typed
from tfmtr.cli.printing import note, print_version


def export(
    run: Annotated[Path | None, typer.Argument(help="Run directory of a two-tower model.")] = None,
    titles: IndexedTitles = None,
    out: Annotated[Path, typer.Option(help="Directory of the served model.")] = Path("saved_models/two_tower"),
    index: Annotated[str, typer.Option(help=INDEX_HELP)] = "exact",
    signature: Signatures = None,
    retrieval: Annotated[Path | None, typer.Option(help="The same as the argument, by its name.")] = None,
    ranking: Annotated[
        Path | None, typer.Option(help="Run directory of a ranking model, which orders what the index finds.")
    ] = None,
    candidates: Annotated[int, typer.Option(help="How many titles the index finds for it.")] = 500,
    first_weight: Annotated[
        float | None,
        typer.Option(help="Weight of the index's score in the final one; by default chosen on validation users."),
    ] = None,
) -> None:
    """Export a model and its title index as the next version, at once; with --ranking as two stages in one model."""
    if (run is None) == (retrieval is None):
        raise ValueError(
            "`export` must be given one two-tower run, as its argument or as `--retrieval`. Received: "
            f"{'neither' if run is None else f'{run} and --retrieval {retrieval}'}"
        )
    run = retrieval if run is None else run
    assert run is not None
    check_typed(runs=[run, *([] if ranking is None else [ranking])], data=titles, index=[index], signatures=signature)
    from tfmtr.exporting import export as export_model

    stages = {} if ranking is None else {"ranking": ranking, "candidates": candidates, "first_weight": first_weight}
    version = export_model(run, out, titles=titles, index=index, signatures=signature or (), **stages)
    print_version(version)
    if ranking is not None and first_weight is None:
        chosen = version.facts["ranking"]["first_stage"]
        how = f"chosen by {chosen['lists']:,} lists of validation users"
        if not chosen["tries"]:
            how = f"nothing was chosen: {chosen['lists']} lists of validation users, of the run's own data, are too few"
        note("first stage", "green" if chosen["tries"] else "yellow", f"its score counts {chosen['weight']:g} ({how})")

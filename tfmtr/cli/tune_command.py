"""`tfmtr tune`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tfmtr.cli.option_groups import grouped
from tfmtr.cli.printing import print_where


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What `tfmtr.tuning.search.tune` takes by keyword."""

    objective: Annotated[
        str | None,
        typer.Option(help="What tries are judged by: ndcg of lists, pr_auc or loss of rows. [default: ndcg]"),
    ] = None
    updates: Annotated[
        int | None, typer.Option(help="Updates of each try, the same for all; the recipe's by default.")
    ] = None
    trials: Annotated[
        int | None,
        typer.Option(help="Number of tries, of all workers and earlier ones. [default: 20, if there is no --seconds]"),
    ] = None
    seconds: Annotated[float | None, typer.Option(help="After how long no further try begins.")] = None
    seed: Annotated[int | None, typer.Option(help="Of what is drawn. [default: 0]")] = None
    prune: Annotated[
        bool | None, typer.Option("--prune/--no-prune", help="Give up tries that are behind. [default: --prune]")
    ] = None
    storage: Annotated[
        str | None, typer.Option(help="URL of a database, or a file, where Optuna keeps the tries; in OUT by default.")
    ] = None
    keep: Annotated[bool, typer.Option("--keep", help="Keep the tries' runs, in OUT/trials.")] = False


@grouped
def tune(
    out: Annotated[Path, typer.Option(help="Folder of the search; one that is there goes on.")],
    data: Annotated[
        Path | None, typer.Option(help="Directory made by `tfmtr prepare`; the search's by default.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="TOML file of what may be chosen; the search's own by default.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="TOML file with what is not searched; the default recipe otherwise.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the recipe, such as head=esmm; repeat.")
    ] = None,
    *,
    options: SearchOptions,
) -> None:
    """Search for a recipe's best values by validation users; no test window is read.

    The space is a TOML file of a recipe's keys, each with choices or a range: batch_size = [512, 1024],
    learning_rate = {low = 1e-4, high = 1e-2, log = true}, "share.num_experts" = {low = 1, high = 4}. Each try is
    trained with the same number of updates, judged on its way, and given up if it is behind. The same command goes on
    with a search that was ended, also with --out alone; several at a time share the work.

    OUT/trials.jsonl lists all tries, OUT/recipe.toml is the best one's for `tfmtr train --recipe`, and OUT/report.md
    has tries, importances and territories.
    """
    from tfmtr.recipe import Recipe, parse_changes
    from tfmtr.tuning.search import tune as search

    last = parse_changes(changes or ())
    base = Recipe.load(recipe, last) if recipe else Recipe.from_document({}, last) if last else None
    result = search(data, out, space, base, **vars(options))
    print(result.table())
    if result.value is not None:
        print_where("recipe", out / "recipe.toml")

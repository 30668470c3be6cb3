"""What a search found, as an object, and its page."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfmtr.documents import read_json, replacing, write_json
from tfmtr.evaluation.fitting_table import FittingTable, text_of
from tfmtr.folders import Folder, as_path, check_format
from tfmtr.recipe import Recipe, as_toml, with_former_defaults
from tfmtr.tuning.importance import METHODS
from tfmtr.tuning.objective import NAMES
from tfmtr.tuning.tries import counted, read_ledger

SEARCH, RECIPE, FIGURES, PAGE = "search.json", "recipe.toml", "report.json", "report.md"
MOST_SHOWN = 10  # tries of the table in a terminal


class Tuning(Folder):
    """A directory made by `tfmtr tune`.

        search.json    what is searched: space, recipe, data, objective, budget, seed
        trials.jsonl   the ledger, a line a try
        journal.log    Optuna's own, unless a storage is named
        recipe.toml    the best try's recipe, for `tfmtr train --recipe`
        report.md      the page: tries, importances, the best try by territory; the same figures in report.json
        trials/<n>     runs of the tries, if they are kept

    Args:
        path: The directory, or another `Tuning`.

    Raises:
        ValueError: If there is no `search.json`, or a newer version of this package wrote it.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = as_path("search", path)
        check_format("search", self.document, self.path)

    @property
    def document(self) -> dict[str, Any]:
        """What is searched."""
        document = read_json(self.path / SEARCH)
        if document is None:
            raise ValueError(f"`{self.path}` must be a directory made by `tfmtr tune`: it has no {SEARCH}.")
        return document

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The ledger: a dictionary for each try, failed and pruned ones among them."""
        return read_ledger(self.path)

    @property
    def figures(self) -> dict[str, Any]:
        """What `report.json` holds: the best try, importances, slices, warnings."""
        return read_json(self.path / FIGURES) or {}

    @property
    def value(self) -> float | None:
        """The best try's figure; `None` where no try is complete."""
        return (self.figures.get("best") or {}).get("value")

    @property
    def recipe(self) -> Recipe:
        """The best try's recipe.

        Raises:
            ValueError: If no try is complete.
        """
        if not (self.path / RECIPE).exists():
            raise ValueError(f"`{self.path}` must have a complete try; go on with `tfmtr tune`. Received: none yet")
        if self.document.get("format", 1) > 1:
            return Recipe.load(self.path / RECIPE)
        text = (self.path / RECIPE).read_text(encoding="utf-8")
        return Recipe.from_document(with_former_defaults(tomllib.loads(text)))

    @property
    def warnings(self) -> list[str]:
        """What is to be known of the figures."""
        return self.figures.get("warnings", [])

    def table(self) -> str:
        """The best tries as text, as the command prints them."""
        return text_of(lambda console: console.print(tries_table(self.document, self.trials)))


def write_report(
    out: Path, search: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], found: dict[str, Any]
) -> None:
    """Writes `report.json` and `report.md`.

    Args:
        out: Folder of the search.
        search: What `search.json` holds.
        rows: Lines of the ledger.
        found: `best` (a line of the ledger, or `None`), `slices`, `importances`, `num_lists`, `warnings`.
    """
    write_json(out / FIGURES, {"objective": search["objective"], "tries": counted(rows), **found})
    with replacing(out / PAGE) as temporary:
        temporary.write_text("\n".join(_page(search, rows, found)) + "\n", encoding="utf-8")


def ordered(search: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Lines of the ledger, the best complete try first; the others follow in their order."""
    sign = 1 if search["objective"] == "loss" else -1
    return sorted(rows, key=lambda row: (row["value"] is None, sign * (row["value"] or 0.0), row["number"]))


def tries_table(search: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> FittingTable:
    """A table of the best tries."""
    states = ", ".join(f"{number} {state}" for state, number in counted(rows).items())
    table = FittingTable(title=f"{NAMES[search['objective']]}, {search['updates']:,} updates a try", caption=states)
    for header in ("try", search["objective"]):
        table.add(header, is_number=True)
    for key in search["space"]:
        table.add(key)
    for row in [row for row in ordered(search, rows) if row["value"] is not None][:MOST_SHOWN]:
        table.add_row(str(row["number"]), f"{row['value']:.4f}", *_values(search, row))
    return table


def _page(search: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> list[str]:
    """Lines of the page."""
    name, best = search["objective"], found["best"]
    lines = [f"# {len(rows)} tries of a recipe", ""]
    lines += [f"**Warning:** {text}", ""] if (text := " ".join(found["warnings"])) else []
    judged = NAMES[name] + (f", {found['num_lists']:,} lists" if found["num_lists"] is not None else "")
    lines += [
        f"Data: `{search['data']}` ({search['fingerprint'][:8]}). Judged by: {judged}. Budget: {search['updates']:,} "
        f"updates for each try, seed {search['seed']}. No test window was read.",
        "",
        ", ".join(f"{number} {state}" for state, number in counted(rows).items()) + ".",
        "",
    ]
    if best is None:
        lines += ["No try is complete.", ""]
    else:
        lines += [
            f"Best is try {best['number']}: {name} {best['value']:.6g}. Its recipe is `{RECIPE}`. The best of many is "
            "better here than it will be on test users; `tfmtr evaluate` says how good it is.",
            "",
        ]
    lines += ["## What matters", ""]
    cell = found["importances"]
    if "reason" in cell:
        lines += [f"n/a: {cell['reason']}.", ""]
    else:
        lines += [f"By the complete tries: {METHODS[cell['method']]}.", ""]
        lines += _table(["key", "importance"], [[key, f"{value:.3f}"] for key, value in cell["values"].items()])
    if found["slices"]:
        lines += ["## The best try by territory", ""]
        slices = sorted(found["slices"].items(), key=lambda item: (-item[1]["count"], item[0]))
        texts = [[key, f"{c['count']:,}", "n/a" if c["value"] is None else f"{c['value']:.4f}"] for key, c in slices]
        lines += _table(["territory", "lists" if name == "ndcg" else "rows", name], texts)
    lines += ["## All tries", ""]
    header = ["try", "state", name, "on the way", "updates", "seconds", *search["space"], "error"]
    return lines + _table(header, [_cells(search, row) for row in ordered(search, rows)])


def _cells(search: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """A try's row of the page's table."""
    way = ", ".join(f"{step}: {value:.4g}" for step, value in row["on_the_way"].items())
    again = "" if row["again_of"] is None else f" (again of {row['again_of']})"
    again += "" if row["same_as"] is None else f" (same as {row['same_as']})"
    figures = [row["value"], row["updates"], row["seconds"]]
    value, updates, seconds = ("" if figure is None else f"{figure:.6g}" for figure in figures)
    return [f"{row['number']}{again}", row["state"], value, way, updates, seconds, *_values(search, row),
            row["error"] or ""]  # fmt: skip


def _values(search: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """A try's values as texts, in the order of the space."""
    values = row["values"]
    texts = ((f"{values[key]:.4g}" if isinstance(values[key], float) else as_toml(values[key])) if key in values else ""
             for key in search["space"])  # fmt: skip
    return list(texts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown, and an empty line."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *escaped)] + [""]

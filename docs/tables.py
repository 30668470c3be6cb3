"""Writes the figures of the pages.

    python docs/tables.py

Tables of systems, heads and balancers, of lists, and of the M3oE paper's Table 2 are made here; figures in sentences
and in other tables by `docs/figures.py`.

Words that say what a file is or when to take it are typed, and stay; papers are those of the docstrings, lines those of
the files, speeds those of `benchmarks/sharing.py`, times those of `benchmarks/balancing.py`, AUCs those of
`studies/m3oe/study.py` and lists those of `studies/quality/study.py`, as their results are checked in. A file that
has no row gets one at the table's end, with the first line of its docstring for words. What is nowhere measured is n/a.
Run it after any of these has changed.

Expected: the pages as they are checked in, and "no line has changed".
"""

import ast
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for `studies`
PAGES = {  # {page: tables}
    "README.md": ("lists",),
    "docs/systems.md": ("systems", "heads", "balancers"),
    "docs/add-a-debiasing-method.md": ("debiasing",),
    "docs/studies.md": ("m3oe",),
}
UNKNOWN = "n/a"
AUTHORS = re.compile(r"([A-Z]\w+(?: et al\.| and [A-Z]\w+)?), ")
WHERE = re.compile(r", ((?:[A-Z][\w ]* )?(?:19|20)\d\d)\b")
Columns = Mapping[str, Callable[[str, str], str]]  # {column: new cell of (the file's name, the cell so far)}


def written(page: str, text: str) -> str:
    """A page with its tables and figures written anew.

    Raises:
        ValueError: If a table's marks are not there once, or a figure's result is not there.
    """
    from docs.figures import filled

    text = filled(text)
    whole = {"m3oe": m3oe_table, "lists": lists_table}
    for name in PAGES.get(page, ()):
        if name in whole:
            text = replace(text, name, lambda _, name=name: whole[name]())
        else:
            folder, columns = tables()[name]
            text = replace(text, name, lambda block, folder=folder, columns=columns: rewrite(block, folder, columns))
    return text


def replace(text: str, name: str, make: Callable[[str], str]) -> str:
    """The text with what is between a table's marks made anew from itself."""
    start, end = f"<!-- table: {name} -->\n", f"<!-- end of table: {name} -->\n"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"The page must have each of {start.strip()!r} and {end.strip()!r} once.")
    before, _, rest = text.partition(start)
    block, _, after = rest.partition(end)
    return f"{before}{start}{make(block)}{end}{after}"


def rewrite(block: str, folder: str, columns: Columns) -> str:
    """A table of a folder's files with its columns made anew.

    Args:
        block: The table; a row's first cell is a link whose text is the file's name.
        folder: Folder of the package.
        columns: Columns that are made; the others are typed.
    """
    head, rule = block.strip("\n").split("\n")[:2]
    names, typed = cells(head), rows(block)
    files = sorted(file.stem for file in (ROOT / "tfmtr" / folder).glob("[!_]*.py"))
    made = [head, rule]
    for name in [*(name for name in typed if name in files), *(name for name in files if name not in typed)]:
        row = dict(zip(names, typed.get(name, [""] * len(names)), strict=True))
        if name not in typed:
            row[names[0]] = f"[{name}](../tfmtr/{folder}/{name}.py)"
            row[names[1]] = summary(folder, name)
        row |= {column: make(name, row[column]) for column, make in columns.items()}
        if name not in typed and "paper" in row:
            row["paper"] = reference(folder, name) or ""
        made.append(f"| {' | '.join(row.values())} |")
    return "\n".join(made).replace("|  |", "| |") + "\n"


def cells(line: str) -> list[str]:
    """Cells of a table's row.

    >>> cells("| a | | c |")
    ['a', '', 'c']
    """
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows(block: str) -> dict[str, list[str]]:
    """`{file's name: cells}` of a table."""
    found = {}
    for line in block.strip("\n").split("\n")[2:]:
        row = cells(line)
        found[row[0].partition("]")[0].strip("[")] = row
    return found


def tables() -> dict[str, tuple[str, Columns]]:
    """`{table: (folder, columns)}`."""
    speeds = {name: row["ratio"] for name, row in results("sharing")["systems"].items()}
    steps = {}
    for model, row in results("balancing")["models"].items():
        system, _, balancer = model.partition("+")
        if system == "mmoe" or balancer not in steps:  # one balancer is for M3oE only
            steps[balancer] = row["ratio"]
    return {
        "systems": (
            "sharing",
            {
                "paper": paper("sharing"),
                "speed": figure(speeds),
                "AUC": figure(aucs()),
                "lines": lambda name, _: str(len(source("sharing", name).splitlines())),
                "oracle": lambda name, cell: oracle(name) or cell or UNKNOWN,
            },
        ),
        "heads": ("heads", {"paper": paper("heads")}),
        "balancers": ("balancing", {"paper": paper("balancing"), "step": figure(steps)}),
        "debiasing": ("debiasing", {"paper": paper("debiasing")}),
    }


def measured(table: str) -> set[str]:
    """Names of files that a table must have a row of: there are results of them.

    >>> "ple" in measured("systems"), measured("heads")
    (True, set())
    """
    folder, columns = tables()[table]
    files = [file.stem for file in (ROOT / "tfmtr" / folder).glob("[!_]*.py")]
    figures = [make for column, make in columns.items() if column in ("speed", "AUC", "step")]
    return {name for name in files if any(make(name, "") != UNKNOWN for make in figures)}


def figure(values: Mapping[str, float]) -> Callable[[str, str], str]:
    """A column of figures with two digits."""
    return lambda name, _: f"{values[name]:.2f}" if name in values else UNKNOWN


def paper(folder: str) -> Callable[[str, str], str]:
    """A column of papers: the docstring's in the place of the typed one; what is typed after its year stays."""

    def make(name: str, cell: str) -> str:
        found = reference(folder, name)
        return re.sub(r"^.*?\d{4}", lambda _: found, cell) if found else cell

    return make


def reference(folder: str, name: str) -> str | None:
    """Authors, venue and year of the first paper that a file's docstring refers to; `None` without one.

    >>> reference("sharing", "ple"), reference("sharing", "shared_bottom"), reference("sharing", "none")
    ('Tang et al., RecSys 2020', 'Caruana 1997', None)
    """
    functions = [node for node in ast.parse(source(folder, name)).body if isinstance(node, ast.FunctionDef)]
    texts = [ast.get_docstring(node) or "" for node in functions if node.name == name]
    _, found, text = " ".join(" ".join(texts).split()).partition("Reference: ")
    authors, where = AUTHORS.search(text), WHERE.search(text)
    if not found or authors is None or where is None:
        return None
    return f"{authors[1]}{' ' if where[1].isdigit() else ', '}{where[1]}"


def summary(folder: str, name: str) -> str:
    """First line of a file's docstring, as a cell's words."""
    text = (ast.get_docstring(ast.parse(source(folder, name))) or "").split("\n")[0].rstrip(".")
    return (text[:1].lower() + text[1:]).replace("|", "/")


def oracle(name: str) -> str | None:
    """A link to the test that follows a system's equations."""
    file = f"tests/sharing/test_{name}.py"
    return f"[test](../{file})" if (ROOT / file).is_file() else None


def source(folder: str, name: str) -> str:
    """Text of a file of the package."""
    return (ROOT / "tfmtr" / folder / f"{name}.py").read_text(encoding="utf-8")


def results(name: str) -> dict:
    """Results of a benchmark."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def aucs() -> dict[str, float]:
    """`{system: overall AUC in percent}` of the study on MovieLens."""
    from studies.m3oe import study
    from studies.m3oe.tables import of_systems

    return of_systems(study.of_study(study.all_cells(), "movielens"))


def m3oe_table() -> str:
    """The study's table in short."""
    from studies.m3oe import study
    from studies.m3oe.tables import in_short

    cells = study.all_cells()
    return in_short(*(study.of_study(cells, dataset) for dataset in ("movielens", "kuairand"))) + "\n"


def lists_table() -> str:
    """The default's lists beside the best of the baselines and beside the towers alone, by data set."""
    from studies import cells as shared
    from studies.starting_line.study import SETS
    from tfmtr.evaluation.baselines.table import BASELINES

    file = ROOT / "studies" / "quality" / "results.jsonl"
    lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    found = []
    for line in lines:
        if line.get("arm") == "pooled" and line["set"] in SETS:
            compared = line["compared"]["ndcg"]
            baselines = set(compared) & set(BASELINES)
            best = max(baselines, key=lambda key: compared[key]["theirs"])
            cell, towers = compared[best], compared["towers"]
            found.append(
                [line["set"], f"{line['lists']:,}", f"{cell['ours']:.4f}", f"{cell['theirs']:.4f} ({best})",
                 f"{cell['ratio']:.2f} ({cell['low']:.2f} to {cell['high']:.2f})", f"{towers['theirs']:.4f}"]
            )  # fmt: skip
    columns = ["log", "lists", "tfmtr", "best baseline", "ratio, 95 %", "towers alone"]
    return shared.table(columns, found) + "\n"


def pages() -> list[str]:
    """Pages that figures may stand in."""
    return ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]


def main() -> None:
    """Writes the pages and says which lines have changed."""
    changed = []
    for page in pages():
        before = (ROOT / page).read_text(encoding="utf-8")
        after = written(page, before)
        changed += [line for line in after.splitlines() if line not in before.splitlines()]
        (ROOT / page).write_text(after, encoding="utf-8")
    print("\n".join(changed) or "no line has changed")


if __name__ == "__main__":
    main()

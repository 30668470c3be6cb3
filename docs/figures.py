"""Fills in the figures of a page from results.

What is written stands behind what it is written from, which a rendered page does not show:

    <!-- figures: training.cases
    Of 64 groups {.branches, 64 groups.ours_branches.examples_per_second:,.0f} examples a second are trained.
    -->
    Of 64 groups 18,631 examples a second are trained.
    <!-- end of figures -->

In braces is a path of names with a format of Python's after its colon: a file of `benchmarks/results` and its
keys, or a study's page (`studies/balancing`), a heading, a row's first cell and a column, as the study's command wrote
them. One that begins with a dot goes on from the path of the first line; a name with a dot, colon or sign stands in
square brackets. Two figures, or a figure and a whole number, may have " / " or " - " between them.
"""

import functools
import json
import operator
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- figures: ([^\n]+)\n(.*?\n)-->\n)(.*?)(<!-- end of figures -->\n)", re.DOTALL)
SIGNS = {"/": operator.truediv, "-": operator.sub}
OUTSIDE = r"(?![^\[]*\])"  # of square brackets
NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+")


def filled(text: str, root: Path = ROOT) -> str:
    """A page with what it says of results written anew.

    Args:
        text: The page.
        root: Folder of `benchmarks` and `studies`.

    Raises:
        ValueError: If there is no such result.
    """
    return BLOCK.sub(lambda block: block[1] + Figures(root, block[2]).format(block[3]) + block[5], text)


def typed(text: str) -> str:
    """A page without what a command writes: tables and figures are gone, of which what they are written from stays."""
    text = BLOCK.sub(lambda block: re.sub(r"\{.*?\}", "", block[3]), text)
    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end of table: \1 -->\n", "", text, flags=re.DOTALL)


class Figures(string.Formatter):
    """Formats figures of results.

    Args:
        root: Folder of `benchmarks` and `studies`.
        start: Path that those which begin with a dot go on from.
    """

    def __init__(self, root: Path, start: str) -> None:
        self.root = root
        self.start = start

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        """The figure of one pair of braces."""
        left, *rest = re.split(f" ([/-]) {OUTSIDE}", field_name, maxsplit=1)
        if not rest:
            return self.figure(left), field_name
        sign, right = rest
        return SIGNS[sign](number(self.figure(left)), number(self.figure(right))), field_name

    def figure(self, path: str) -> Any:
        """What is at a path of names."""
        if path.isdigit():
            return int(path)
        whole = self.start + path if path.startswith(".") else path
        file, *names = (name.strip("[]") for name in re.split(rf"\.{OUTSIDE}", whole))
        found = read(self.root, file)
        for name in names:
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (LookupError, TypeError):
                raise ValueError(
                    f"A figure must be of the results of {file}; {name!r} is not. Received: {path}"
                ) from None
        return found

    def format_field(self, value: Any, format_spec: str) -> str:
        """A number by its format, with a blank before the sign of percent; text without one is left as it is."""
        if not format_spec:
            return str(value)
        return super().format_field(number(value), format_spec).replace("%", " %")


def number(value: Any) -> Any:
    """A figure as a number: of a cell the first one.

    >>> number("0.4759 (0.0021)"), number(3)
    (0.4759, 3)
    """
    found = NUMBER.search(value) if isinstance(value, str) else None
    return float(found[0].replace(",", "")) if found else value


@functools.cache
def read(root: Path, name: str) -> Any:
    """Results of a benchmark, or `{heading: {row: {column: cell}}}` of a study's page."""
    file = root / "benchmarks" / "results" / f"{name}.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    for file in (root / f"{name}.md", root / name / "README.md"):
        if file.is_file():
            return tables(file.read_text(encoding="utf-8"))
    raise ValueError(f"A figure must be of a file of `benchmarks/results` or a page of `studies`. Received: {name}")


def tables(text: str) -> dict[str, dict[str, dict[str, str]]]:
    r"""`{heading: {row's first cell: {column: cell}}}`; of two such rows the first, of two columns the second as "p 2".

    >>> tables("# AUC\n| model | click |\n| --- | --- |\n| mmoe | 0.7 |")
    {'AUC': {'mmoe': {'model': 'mmoe', 'click': '0.7'}}}
    """
    found, heading, columns = {}, "", []
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not columns:
            columns = [f"{cell} 2" if cell in cells[:place] else cell for place, cell in enumerate(cells)]
        elif set(cells[0]) - {"-"}:
            found.setdefault(heading, {}).setdefault(cells[0], dict(zip(columns, cells, strict=False)))
    return found

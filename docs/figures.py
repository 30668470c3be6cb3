"""Fills in the figures of a page from the results of benchmarks.

What is written stands behind what it is written from, which a rendered page does not show:

    <!-- figures: training.cases
    Of 64 groups {.branches, 64 groups.ours_branches.examples_per_second:,.0f} examples a second are trained.
    -->
    Of 64 groups 18,631 examples a second are trained.
    <!-- end of figures -->

In braces is a path of names into `benchmarks/results/*.json`, the file's first, with a format of Python's after its colon;
one that begins with a dot goes on from the path of the first line. Two, or one and a number, may have " / " or " - " between
them. `python docs/tables.py` writes.
"""

import functools
import json
import operator
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- figures: ([^\n]+)\n(.*?\n)-->\n)(.*?)(<!-- end of figures -->\n)", re.DOTALL)
SIGNS = {" / ": operator.truediv, " - ": operator.sub}


def filled(text: str, folder: Path = RESULTS) -> str:
    """A page with what it says of results written anew.

    Raises:
        ValueError: If there is no such result.
    """
    return BLOCK.sub(lambda block: block[1] + Figures(folder, block[2]).format(block[3]) + block[5], text)


def typed(text: str) -> str:
    """A page without what a command writes: figures and tables are gone, and what figures are written from has none."""
    text = BLOCK.sub(lambda block: re.sub(r"\{.*?\}", "", block[3]), text)
    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end of table: \1 -->\n", "", text, flags=re.DOTALL)


class Figures(string.Formatter):
    """Formats figures of results.

    Args:
        folder: Folder of the results' files.
        start: Path that those which begin with a dot go on from.
    """

    def __init__(self, folder: Path, start: str):
        self.folder = folder
        self.start = start

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        """The figure of one pair of braces."""
        for sign, combine in SIGNS.items():
            left, found, right = field_name.partition(sign)
            if found:
                return combine(self.figure(left), self.figure(right)), field_name
        return self.figure(field_name), field_name

    def figure(self, path: str) -> Any:
        """A number, or what is at a path of names."""
        if path.isdigit():
            return int(path)
        names = (self.start + path if path.startswith(".") else path).split(".")
        found = read(self.folder / f"{names[0]}.json")
        for name in names[1:]:
            is_there = int(name) < len(found) if isinstance(found, list) else name in found
            if not is_there:
                raise ValueError(f"A figure must be one of `{self.folder.name}`. Received: {path!r}, of which no {name!r}")
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found

    def format_field(self, value: Any, format_spec: str) -> str:
        """With a blank before the sign of percent."""
        return super().format_field(value, format_spec).replace("%", " %")


@functools.cache
def read(file: Path) -> Any:
    """A file of results."""
    if not file.is_file():
        raise ValueError(f"A figure must be of a file of `{file.parent.name}`. Received: {file.name!r}")
    return json.loads(file.read_text(encoding="utf-8"))

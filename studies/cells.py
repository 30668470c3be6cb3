"""What studies share: cells that are computed once, a line each, and tables in Markdown."""

import dataclasses
import fcntl
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tfmtr import components
from tfmtr.documents import read_json, write_json

RESULTS = "results.jsonl"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A document that is computed once: a line of a file, in the order of their names.

    Attributes:
        file: The file, `results.jsonl` of a study.
        name: What the line is found by, its `"cell"`.
    """

    file: Path
    name: str

    def known(self, asked):
        """The document, if it is there and has all that is asked; else `None`."""
        found = read_cells(self.file).get(self.name)
        return found if found and {key: found.get(key) for key in asked} == asked else None

    def write(self, document):
        """Writes the document into the file; other processes may do so with theirs."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a+", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = read_cells(self.file) | {self.name: document}
            text = "".join(json.dumps({"cell": name, **found[name]}) + "\n" for name in sorted(found))
            lock.truncate(0)
            lock.write(text)


def read_cells(file, prefix=""):
    """`{name: document}` of the lines whose names begin so; the names are without it."""
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {line.pop("cell").removeprefix(prefix): line for line in lines if line["cell"].startswith(prefix)}


def normalized(share):
    """A sharing file with layer normalisation, if it has that option: the studies have it in all rows alike.

    No paper has it; it was the default when their figures were made.

    >>> normalized("ple"), normalized(("mmoe", {"num_experts": 2})), normalized("star")
    (('ple', {'normalize': True}), ('mmoe', {'normalize': True, 'num_experts': 2}), 'star')
    """
    name, options = components.parse("sharing", share)
    if "normalize" not in inspect.signature(components.find("sharing", name)).parameters:
        return share
    return name, {"normalize": True, **options}


def document_of(recipe):
    """A recipe's document as cells have it: of before there were list models, and normalisation had to be asked for."""
    document = recipe.document()
    if isinstance(share := document["share"], dict) and share.get("normalize"):
        del share["normalize"]
        document["share"] = share if len(share) > 1 else share["name"]
    return {key: value for key, value in document.items() if key != "listwise" or value}


def run(command, log):
    """Runs a command of `tfmtr`, its words into a file; returns `{"seconds", "megabytes"}` of the process."""
    began = time.perf_counter()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ tfmtr {' '.join(command)}\n")
        file.flush()
        process = subprocess.Popen([sys.executable, "-m", "tfmtr.cli", *command], stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"`tfmtr {' '.join(command)}` failed; {log} says why.")
    return {"seconds": round(time.perf_counter() - began, 1), "megabytes": round(usage.ru_maxrss / 1024)}


def steps(folder, commands):
    """Runs what was not run under a folder before; returns what each step took."""
    folder.mkdir(parents=True, exist_ok=True)
    took = read_json(folder / "took.json") or {}
    for step, command in commands.items():
        if step not in took:
            took[step] = run(command, folder / "log.txt")
            write_json(folder / "took.json", took)
    return took


def text(value, template):
    """A number as text, n/a for `None`."""
    return "n/a" if value is None else format(value, template)


def p_text(p_value):
    """A p-value as text."""
    return "< 0.001" if p_value is not None and p_value < 0.001 else text(p_value, ".3f")


def lines(rows):
    """Rows of a table, each a list of texts."""
    return "\n".join(f"| {' | '.join(values)} |" for values in rows)


def table(columns, rows):
    """A table with its head."""
    return lines([columns, ["---"] * len(columns), *rows])


def notes_of(folder, name="notes.md"):
    """What the figures say, by hand: the text of a file, if it is there."""
    file = folder / name
    return "\n" + file.read_text(encoding="utf-8") if file.exists() else ""

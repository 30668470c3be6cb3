"""What studies share: cells that are computed once, and tables in Markdown."""

from tfmtr.documents import read_json


def known(file, asked):
    """The document of a cell, if its file is there and has all that is asked; else `None`."""
    there = read_json(file)
    return there if there and {key: there.get(key) for key in asked} == asked else None


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


def notes_of(folder):
    """What the figures say, by hand: the text of `notes.md`, if it is there."""
    file = folder / "notes.md"
    return "\n" + file.read_text(encoding="utf-8") if file.exists() else ""

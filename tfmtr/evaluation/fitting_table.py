"""A terminal table that is never cut."""

import io
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.align import Align
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

WIDTH = 120  # of a table as text
NUMBER_WIDTH = 10  # at which headings of numbers are broken where there is room


class FittingTable(Table):
    """A table of which every word is shown at any width.

    Columns are as wide as their longest word, and wider where there is room. If that is too much for the terminal,
    the last columns follow as further tables, each with the first columns again. A heading that is too wide beside the
    first columns stands above its table; only a word that is wider than what is left for a cell is broken.

    Args:
        num_keys: How many of the first columns say what a row is of.
        title: Text above, or `None`.
        caption: Text below, or `None`.

    Example:
    >>> from rich.console import Console
    >>> table = FittingTable()
    >>> table.add("territory")
    >>> table.add("PR-AUC of a model", is_number=True)
    >>> table.add("PR-AUC of another", is_number=True)
    >>> table.add_row("DE", "0.25", "0.5")
    >>> Console(width=23).print(table)
              PR-AUC of
    territory   a model
    ───────────────────
    DE             0.25
    <BLANKLINE>
              PR-AUC of
    territory   another
    ───────────────────
    DE              0.5
    """

    def __init__(self, *, num_keys: int = 1, title: str | None = None, caption: str | None = None) -> None:
        super().__init__()
        self.num_keys, self.above, self.below = num_keys, title, caption

    def add(self, header: str, *, is_number: bool = False) -> None:
        """Adds a column; of numbers, it is not much wider than its longest word."""
        justify = "right" if is_number else "left"
        self.add_column(Text(printable(header)), justify=justify, overflow="fold")

    def add_row(self, *cells: str | Text) -> None:
        """Adds a row of texts; a `rich.text.Text` keeps its style."""
        texts = (cell if isinstance(cell, Text) else Text(cell) for cell in cells)
        super().add_row(*(Text(printable(text.plain), style=text.style) for text in texts))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The title, the tables one below the other, the caption."""
        if self.above:
            yield Text(printable(self.above), style="italic")
        least = [self._width(column, str.split) for column in self.columns]
        gap = 2 if _sum(least, 2) <= options.max_width else 1  # blanks between two columns
        for number, places in enumerate(self._parts(least, options.max_width, gap)):
            if number:
                yield Text("")
            sizes, headers = [least[place] for place in places], [self.columns[place].header for place in places]
            if _sum(sizes, gap) > options.max_width:
                yield Text(str(headers[-1]), style="bold")
                headers[-1] = ""
                sizes[-1] = self._width(self.columns[places[-1]], str.split, has_header=False)
            widths = self._widths(places, sizes, headers, options.max_width, gap)
            part = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
            for place, width, header in zip(places, widths, headers, strict=True):
                justify = "right" if self.columns[place].justify == "right" else "left"
                heading = Align(header, justify, vertical="bottom")
                part.add_column(heading, justify=justify, overflow="fold", min_width=width, max_width=width)
            cells = [list(self.columns[place].cells) for place in places]
            for row, texts in zip(self.rows, zip(*cells, strict=True), strict=True):
                part.add_row(*texts, end_section=row.end_section)
            yield part
        if self.below:
            yield Text(printable(self.below), style="dim italic")

    def _parts(self, least: Sequence[int], width: int, gap: int) -> Iterator[list[int]]:
        """Yields the places of each table's columns: the first ones, and as many others as there is room for."""
        keys, others = list(range(self.num_keys)), list(range(self.num_keys, len(self.columns)))
        while True:
            part = [*keys, *others[:1]]
            others = others[1:]
            while others and _sum([least[place] for place in (*part, others[0])], gap) <= width:
                part.append(others.pop(0))
            yield part
            if not others:
                return

    def _widths(
        self, places: Sequence[int], widths: list[int], headers: Sequence[RenderableType], width: int, gap: int
    ) -> list[int]:
        """The least widths, with what is left given to texts, or what is missing taken from the widest."""
        headed = zip(places, headers, strict=True)
        natural_widths = [self._wanted(self.columns[place]) if header else 0 for place, header in headed]
        spare = width - _sum(widths, gap)
        missing = {i: want - widths[i] for i, want in enumerate(natural_widths) if want > widths[i]}
        for i in sorted(missing, key=missing.__getitem__):  # so that most texts are on one line
            given = max(0, min(spare, missing[i]))
            widths[i], spare = widths[i] + given, spare - given
        while _sum(widths, gap) > width and max(widths) > 1:
            widths[widths.index(max(widths))] -= 1
        return widths

    def _wanted(self, column: Column) -> int:
        """Cells of a column where there is room: of texts the longest one, of numbers a heading of few lines."""
        if column.justify == "left":
            return self._width(column, lambda text: [text])
        lines = textwrap.wrap(str(column.header), NUMBER_WIDTH, break_long_words=False, break_on_hyphens=False)
        return max(map(cell_len, lines), default=1)

    @staticmethod
    def _width(column: Column, split: Callable[[str], list[str]], *, has_header: bool = True) -> int:
        """Cells of the widest piece of a column; its heading is always split into words."""
        pieces = str(column.header).split() if has_header else []
        pieces += [piece for text in column.cells for piece in split(str(text))]
        return max(map(cell_len, pieces), default=1)


def printable(text: str) -> str:
    r"""A text with a blank for each control character, which a terminal would obey.

    >>> printable("a\x1b[31m\nb")
    'a [31m b'
    """
    return "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text)


def _sum(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def text_of(show: Callable[[Console], object]) -> str:
    """What a function prints to the console that it is given, as text without marks."""
    file = io.StringIO()
    show(Console(file=file, width=WIDTH))
    return file.getvalue()


def as_text(table: Table) -> str:
    """A table as text.

    >>> from rich.table import Table
    >>> print(as_text(Table("title", box=None)).strip())
    title
    """
    return text_of(lambda console: console.print(table))

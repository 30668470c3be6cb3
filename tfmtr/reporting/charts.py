"""Charts as inline SVG, whose colours the page decides, and as PNG."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tfmtr.reporting.curves import Line
    from tfmtr.reporting.gains import Comparison
    from tfmtr.reporting.titles_section import Histogram


# What is drawn in these colours is drawn in the page's own in the SVG: --ink, --line, --series-0 and so on.
INK, LINE = "#1c1d21", "#c9ccd3"
SERIES = ("#2563a8", "#c2570c", "#2e7d4f", "#7a4fa3", "#0f7f86", "#b0306b", "#7a6a00", "#666a70")
MARKERS = "os^Dv*PX"
WIDTH, HEIGHT = 4.6, 3.2  # inches; a phone shows them almost as large
MOST_LABELS = 40
STYLE = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": None,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a title may have dollars in its name
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart that is ready for the page.

    Args:
        name: Of its file, without an ending; different for each chart of a page.
        view_box: Attribute of the SVG.
        body: What is inside of the SVG element.
        png: The image.
    """

    name: str
    view_box: str
    body: str
    png: bytes


def pyplot() -> ModuleType:
    """Matplotlib's pyplot, without a display."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("Figures need matplotlib: pip install 'tfmtr[plots]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


@contextlib.contextmanager
def axes(*, height: float = HEIGHT, x: str | None = None, y: str | None = None) -> Iterator[Axes]:
    """New axes in the report's style, with the names of their directions."""
    plt = pyplot()
    style = {**STYLE, "axes.prop_cycle": plt.cycler(color=SERIES)}
    with plt.rc_context(style):
        figure, axis = plt.subplots(figsize=(WIDTH, height), layout="constrained")
        axis.set_axisbelow(True)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        try:
            yield axis
        finally:
            plt.close(figure)


def legend(axis: Axes) -> None:
    """Puts a legend below the axes, where there is more than one name."""
    handles, names = axis.get_legend_handles_labels()
    if len(names) > 1:
        columns = 1 if max(map(len, names)) > 28 else 2
        axis.figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=9, markerscale=1.6)


def finish(name: str, axis: Axes) -> Chart:
    """The `Chart` of axes."""
    plt = pyplot()
    svg, png = io.StringIO(), io.BytesIO()
    with plt.rc_context({"svg.hashsalt": name}):
        axis.figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})  # pyright: ignore[reportAttributeAccessIssue]
    axis.figure.savefig(png, format="png", dpi=160)  # pyright: ignore[reportAttributeAccessIssue]
    text = re.sub(r"<metadata>.*?</metadata>", "", svg.getvalue(), flags=re.DOTALL)
    view_box, body = re.search(r'<svg [^>]*viewBox="([^"]+)"[^>]*>(.*)</svg>', text, re.DOTALL).groups()
    # Identifiers are the page's, not the chart's alone.
    body = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", body)
    colors = {INK: "var(--ink)", LINE: "var(--line)"}
    colors |= {color: f"var(--series-{i})" for i, color in enumerate(SERIES)}
    body = re.sub("|".join(colors), lambda match: colors[match[0]], body)
    return Chart(name, view_box, re.sub(r"font: [^;\"]*?(\d+px)[^;\"]*", r"font-size: \1", body), png.getvalue())


def gains_chart(name: str, comparison: Comparison) -> Chart | None:
    """Gains of one `Comparison` by territory, with intervals: major territories filled, minor ones hollow.

    Args:
        name: Of the chart.
        comparison: The `Comparison`.

    Returns:
        `Chart`, or `None` if no territory has a gain.
    """
    gains = [gain for gain in comparison.gains if gain.average is not None]
    if not gains:
        return None
    rows, is_labelled = len(gains), len(gains) <= MOST_LABELS
    with axes(height=1.1 + 0.2 * min(rows, MOST_LABELS), x="gain in PR-AUC, %") as axis:
        for is_major, color, face in ((True, SERIES[0], SERIES[0]), (False, SERIES[1], "none")):
            places = [place for place, gain in enumerate(gains) if gain.is_major == is_major]
            if places:
                values = np.array([(gains[i].average, gains[i].low, gains[i].high) for i in places], np.float64)
                errors = np.abs(values[:, 1:] - values[:, :1]).T
                label = "major territory" if is_major else "minor territory"
                axis.errorbar(
                    values[:, 0], places, xerr=errors, fmt="o" if is_major else "s", color=color, markersize=4.5,
                    markerfacecolor=face, elinewidth=1.2, label=label,
                )  # fmt: skip
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_ylim(rows - 0.4, -0.6)
        axis.set_yticks(range(rows) if is_labelled else [], [g.territory for g in gains] if is_labelled else None)
        axis.grid(axis="y", visible=False)
        legend(axis)
        return finish(name, axis)


def lines_chart(
    name: str, lines: Sequence[Line], *, x: str, y: str, diagonal: bool = False, places: tuple[int, int] | None = None
) -> Chart | None:
    """Lines over one another.

    Args:
        name: Of the chart.
        lines: List of `Line`.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        diagonal: Whether to draw the line on which both are equal.
        places: First and last of the whole numbers that are on the horizontal axis, if it has no others.

    Returns:
        `Chart`, or `None` if there is no line.
    """
    if not lines:
        return None
    with axes(x=x, y=y) as axis:
        for i, line in enumerate(lines):
            axis.plot(line.x, line.y, label=line.name, linewidth=1.6, marker=MARKERS[i % len(MARKERS)], markersize=4)
        if diagonal:
            most = max(float(np.nanmax([line.x, line.y])) for line in lines)
            axis.plot([0, most], [0, most], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        if places is not None:
            axis.set_xlim(places[0] - 0.5, places[1] + 0.5)
            axis.xaxis.set_major_locator(pyplot().MaxNLocator(nbins=10, integer=True))
        legend(axis)
        return finish(name, axis)


def histogram_chart(name: str, histogram: Histogram) -> Chart:
    """Score histograms of one title, one outline a model.

    Args:
        name: Of the chart.
        histogram: The `Histogram`.

    Returns:
        `Chart`.
    """
    with axes(x="score", y="share of users") as axis:
        for i, (model, shares) in enumerate(histogram.shares.items()):
            is_last = i == len(histogram.shares) - 1
            color = SERIES[i % len(SERIES)]
            axis.stairs(
                shares, histogram.edges, color=color, label=model, linewidth=1.6, linestyle="-" if is_last else "--"
            )
            if is_last:
                axis.stairs(shares, histogram.edges, color=color, fill=True, alpha=0.18)
        legend(axis)
        return finish(name, axis)

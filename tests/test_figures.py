"""Figures of the pages come from results; who types one is found."""

import json
import re
from pathlib import Path

import pytest

from docs import figures
from docs import tables as page_tables

ROOT = Path(__file__).parents[1]
UNITS = r"\s?%|\s(?:times|points?|ms|s|seconds?|minutes?|hours?|[kKMGT]i?B|queries/s|rows/s)\b"
TYPED = re.compile(
    rf"(?<![\w.,/=])[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:{UNITS})"  # with a unit
    r"|(?<![\w.,/=])[-+]?\d?\.\d{2,}(?![\w.])"  # two digits and more
    r"|(?<![\w.,/=-])(?!\d{1,3}(?:,000)+\b)\d{1,3}(?:,\d{3})+(?![\w.])"  # a count that is not round
)
ON_PURPOSE = {  # {page: {figures, or a heading with all that is below it: why they are typed}}
    "README.md": {"2.20": "a version"},
    "docs/architecture.md": {"5 %": "a default"},
    "docs/daily.md": {
        "0.05": "an option, and the level of a test",
        "30 %": "what an option's value means",
        "5 % 10 %": "options of what the paragraph tells",
    },
    "docs/add-a-debiasing-method.md": {"8 MB": "arithmetic", "0.001": "the authors' default"},
    "docs/data.md": {"20 %": "a limit"},
    "docs/evaluation.md": {"80 %": "the power that is meant", "30 %": "a default"},
    "docs/fidelity.md": {"0.001 0.999": "the authors' limits"},
    "docs/large-tables.md": {
        "3.11": "a version",
        "8,192": "a batch's size",
        "## The choice": "arithmetic on other people's machines",
        "## A billion rows of 64": "arithmetic",
    },
    "docs/protocol.md": {"## What differs on purpose": "limits and defaults of the two servers"},
    "docs/scaling.md": {
        "## 200 territories, 200 million users, 10 billion events a month": "arithmetic on assumptions"
    },
    "docs/serving.md": {"2.20 2.21": "versions"},
    "docs/simulator.md": {
        "## How it works": "the simulator's constants",
        "## What is not known": "a constant",
        "15 minutes 4 GiB 20 GB": "the goal, and arithmetic",
    },
    "docs/speed.md": {
        "1.2 times 30 s 50 % 70 % .1 point .60 .98 2 GiB": "goals",
        "1,024": "a batch's size",
    },
    "docs/studies.md": {"95 %": "the level of intervals"},
    "docs/systems.md": {"8,192 40,960": "batches' sizes"},
}


def typed(page):
    """`[(heading, figure)]` of a page outside of what a command writes."""
    text = figures.typed((ROOT / page).read_text(encoding="utf-8"))
    text = re.sub(r"^```.*?^```$|^    .*?$", "", text, flags=re.MULTILINE | re.DOTALL)  # code
    parts = re.split(r"^(?=#)", text, flags=re.MULTILINE)
    return [(part.split("\n")[0], figure) for part in parts for figure in TYPED.findall(part)]


@pytest.mark.parametrize("page", page_tables.pages())
def test_a_page_s_figures_are_written_by_the_command_or_typed_on_purpose(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert figures.filled(text) == text, "run `python docs/tables.py`"
    reasons = ON_PURPOSE.get(page, {})
    found = typed(page)
    assert [figure for heading, figure in found if heading not in reasons and not in_one(figure, reasons)] == []
    names = {heading for heading, _ in found} | {figure for _, figure in found}
    assert [key for key in reasons if not any(in_one(name, [key]) for name in names)] == []  # none is out of date


def in_one(figure, keys):
    """Whether one of the keys names a figure."""
    return any(f" {figure} " in f" {key} " for key in keys)


def test_a_typed_figure_is_found():
    text = "1.7 times as fast, 30 % in 12 ms, AUC .766, +0.7 %, 714,090 answers; of 10,000 titles, 2 cores, 1.5."
    assert TYPED.findall(text) == ["1.7 times", "30 %", "12 ms", ".766", "+0.7 %", "714,090"]
    text = "<!-- figures: a\nIt takes {.b:.0f} s or 8 s.\n-->\nIt takes 9 s or 8 s.\n<!-- end of figures -->\n"
    assert TYPED.findall(figures.typed(text)) == ["8 s"]


@pytest.fixture
def results(tmp_path):
    """A benchmark's results and a study's page."""
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "studies/one").mkdir(parents=True)
    document = {"cells": {"a, 1": {"seconds": [0.5, 2000.0], "share": 0.953}}, "date": "2026-11-28"}
    (tmp_path / "benchmarks/results/speed.json").write_text(json.dumps(document))
    rows = "| model | all: AUC | p | p |\n| --- | --- | --- | --- |\n| mmoe / two | 0.7559 (0.01) | 1.000 | < 0.001 |\n"
    (tmp_path / "studies/one/README.md").write_text(f"# One\n\n## AUC, all\n\n{rows}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("{.a, 1.seconds.1:,.0f} s on {speed.date}", "2,000 s on 2026-11-28"),
        ("{.a, 1.share:.0%}, {.a, 1.seconds.1 / .a, 1.seconds.0:,.0f} times", "95 %, 4,000 times"),
        ("{.a, 1.seconds.1 - 1999:.1f}", "1.0"),
        ("{studies/one.AUC, all.[mmoe / two].[all: AUC]:.2f}", "0.76"),
        ("{studies/one.AUC, all.[mmoe / two].p} {studies/one.AUC, all.[mmoe / two].p 2}", "1.000 < 0.001"),
    ],
)
def test_figures_are_filled_in(results, template, written):
    marks = f"Before.\n<!-- figures: speed.cells\n{template}\n-->\n", "<!-- end of figures -->\nAfter 1.\n"
    for stale in ("", "Stale 9 s.\n"):
        text = figures.filled(marks[0] + stale + marks[1], results)
        assert text == f"{marks[0]}{written}\n{marks[1]}"
    assert figures.filled(text, results) == text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("speed.cells.b", "must be of the results of speed; 'b' is not. Received: speed.cells.b"),
        ("speed.cells.a, 1.seconds.2", "'2' is not"),
        ("speed.date.day", "'day' is not"),
        ("slow.cells", "must be of a file of `benchmarks/results` or a page of `studies`. Received: slow"),
    ],
)
def test_a_result_that_is_not_there_is_named(results, path, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        figures.filled(f"<!-- figures: speed\n{{{path}}}\n-->\n<!-- end of figures -->\n", results)

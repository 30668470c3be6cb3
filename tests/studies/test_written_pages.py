"""A study's page, as it is checked in, is what the command writes from the lines that are checked in."""

import importlib
import json
import shutil

import pytest

WRITERS = {
    "balancing": "write_report",
    "entire_space": "write_report",
    "kuairand_funnel": "write_report",
    "m3oe": "write_report",
    "second_stages": "write_page",
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_page_is_written_from_its_lines(name, tmp_path):
    study = importlib.import_module(f"studies.{name}.study")
    for file in (*study.HERE.glob("*.jsonl"), *study.HERE.glob("notes.md"), *study.HERE.glob("*.png")):
        shutil.copy(file, tmp_path)
    getattr(study, WRITERS[name])(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == (study.HERE / "README.md").read_bytes()


def test_the_starting_line_s_page_is_written_from_its_lines():
    study = importlib.import_module("studies.starting_line.study")
    lines = [json.loads(line) for line in (study.HERE / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert study.page(lines) == (study.HERE / "README.md").read_text(encoding="utf-8")

"""The lines that `mutants.py` breaks are there, each once, and so are the tests that must see them."""

import pytest

from benchmarks import mutants


@pytest.mark.parametrize("line", mutants.LINES, ids=lambda line: f"{line.file}-{line.old}")
def test_lines_and_their_tests_are_there(line):
    text = (mutants.ROOT / f"tfmtr/{line.file}.py").read_text(encoding="utf-8")
    assert text.count(line.old) == 1
    assert line.new != line.old
    assert (mutants.ROOT / mutants.tests_of(line)[0]).exists()


def test_reasons_are_of_lines_that_are_broken():
    assert set(mutants.KEPT) <= {(line.file, line.old) for line in mutants.LINES}

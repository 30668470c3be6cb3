"""How far systems are from the public code of their authors: every value of theirs that tests hold ours to.

    python benchmarks/fidelity.py

Runs the tests whose values are written down in `tests/*/authors.json` and `tests/balancing/libmtl.json`, which say what
was run and where it comes from, and writes the greatest difference of each part into the table of `docs/fidelity.md`:
of all its cases |ours - theirs| over the greatest |theirs| of the case.

Expected: the table as it is checked in but for the last digits, and "0 failed".
"""

import collections
import json
import re
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pytest

from docs.tables import replace
from studies.cells import table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "fidelity.md"
FILES = ("tests/balancing/test_libmtl.py", "tests/balancing/test_gradients.py", "tests/heads", "tests/sharing")
LIBMTL = "median-research-group/LibMTL 1.1.5: updates of the same gradients, losses and state"
LATER = {"db_mtl", "stch"}  # of LibMTL's repository, which is later than its release


class Differences:
    """Plugin of pytest that keeps the greatest difference of each part and how many cases it had."""

    def __init__(self):
        self.greatest, self.cases, self.failed, self.part = collections.Counter(), collections.Counter(), [], None

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item):
        """Wraps what compares in a test."""
        self.part, compare = part_of(item.nodeid), np.testing.assert_allclose

        def assert_allclose(actual, desired, *arguments, **options):
            ours, theirs = (np.asarray(value, "float64") for value in (actual, desired))
            difference = float(np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), 1e-12))
            self.greatest[self.part] = max(self.greatest[self.part], difference)
            compare(actual, desired, *arguments, **options)

        with mock.patch.object(np.testing, "assert_allclose", assert_allclose):
            yield
        self.cases[self.part] += 1

    def pytest_runtest_logreport(self, report):
        """Keeps the names of tests that fail."""
        if report.failed:
            self.failed.append(report.nodeid)


def part_of(nodeid):
    """`(folder, part)` of a test: LibMTL's method, or what the name says, or the file's system."""
    file, _, name = nodeid.partition("::")
    of_libmtl, of_name = re.search(r"-(\w+)|test_(db_mtl|stch)_", name), re.match(r"test_(\w+)_is_that_of", name)
    if "libmtl" in file and of_libmtl:
        part = of_libmtl[1] or of_libmtl[2]
    elif of_name and of_name[1] != "attention":
        part = of_name[1]
    else:
        part = Path(file).stem.removeprefix("test_")
    return Path(file).parent.name, part


def libmtl(part):
    """What was run of LibMTL."""
    return LIBMTL.replace(" 1.1.5", "") if part in LATER else LIBMTL


def main():
    """Runs the tests and writes the table; returns the names of those that failed."""
    seen = Differences()
    names = "authors or libmtl"
    pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", "-k", names, *(str(ROOT / f) for f in FILES)], [seen])
    sources = {}
    for file in sorted(ROOT.glob("tests/*/authors.json")):
        for part, text in json.loads(file.read_text(encoding="utf-8"))["from"].items():
            sources[file.parent.name, part] = text
    rows = [
        [part, folder, sources.get((folder, part), libmtl(part)), str(seen.cases[folder, part]), f"{greatest:.0e}"]
        for (folder, part), greatest in sorted(seen.greatest.items())
    ]
    text = PAGE.read_text(encoding="utf-8")
    made = table(["part", "folder", "what was run", "cases", "greatest difference"], rows) + "\n"
    PAGE.write_text(replace(text, "fidelity", lambda _: made), encoding="utf-8")
    print(made, f"{len(seen.failed)} failed", *seen.failed, sep="\n")
    return seen.failed


if __name__ == "__main__":
    raise SystemExit(bool(main()))

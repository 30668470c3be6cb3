"""What `-m "not slow"` leaves out is there, and is left out."""

import ast
import functools
from pathlib import Path

FOLDER = Path(__file__).parent
SLOW = (FOLDER / "slow.txt").read_text().split()


@functools.cache
def tree(file):
    return ast.parse((FOLDER / file).read_text(encoding="utf-8"))


def functions(file):
    return {node.name for node in tree(file).body if isinstance(node, ast.FunctionDef)}


def test_slow_files_tests_and_fixtures_are_there():
    assert sorted(set(SLOW)) == SLOW
    missing = []
    for entry in SLOW:
        file, _, name = entry.partition("::")
        if not (FOLDER / file).is_file() or (name and name not in functions(file)):
            missing.append(entry)
    assert missing == []


def test_the_marker_is_on_what_the_list_names(request):
    for item in request.session.items:
        file = item.path.relative_to(FOLDER).as_posix() if item.path.is_relative_to(FOLDER) else ""
        if f"{file}::{getattr(item, 'originalname', '')}" in SLOW or file in SLOW:
            assert item.get_closest_marker("slow"), item.nodeid
    assert not request.node.get_closest_marker("slow")

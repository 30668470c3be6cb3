"""Cells of studies: lines of one file that several processes write."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from studies.cells import Cell, read_cells


def test_a_cell_is_known_where_it_has_what_is_asked(tmp_path):
    cell = Cell(tmp_path / "new" / "results.jsonl", "set/b-seed-0")
    assert cell.known({"recipe": 1}) is None
    cell.write({"recipe": 1, "value": 0.1})
    Cell(cell.file, "set/a-seed-0").write({"recipe": 1})
    Cell(cell.file, "other/c").write({"recipe": 3})
    assert cell.known({"recipe": 1}) == {"recipe": 1, "value": 0.1}
    assert cell.known({"recipe": 2}) is None
    assert cell.known({"recipe": 1, "seed": 0}) is None
    cell.write({"recipe": 2, "value": 0.3})
    names = [json.loads(line)["cell"] for line in cell.file.read_text().splitlines()]
    assert names == ["other/c", "set/a-seed-0", "set/b-seed-0"]  # in their order, each once
    assert read_cells(cell.file, "set/") == {"a-seed-0": {"recipe": 1}, "b-seed-0": {"recipe": 2, "value": 0.3}}
    assert read_cells(tmp_path / "nowhere.jsonl") == {}


def write_some(file, first):
    """Writes ten cells, as a process of a study would."""
    for number in range(first, first + 10):
        Cell(file, f"{number:02}").write({"number": number})


def test_processes_lose_nothing_of_one_another(tmp_path):
    file = tmp_path / "results.jsonl"
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        list(pool.map(write_some, [file] * 3, (0, 10, 20)))
    assert read_cells(file) == {f"{number:02}": {"number": number} for number in range(30)}

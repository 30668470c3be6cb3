"""The study of the starting line, on a small simulated log and two folds."""

import json

import pytest
from typer.testing import CliRunner

from studies import cells
from studies.starting_line import study as starting_line
from tfmtr.cli import app


@pytest.fixture
def commands(monkeypatch):
    """What is run: the first command in a process of its own, as all are, and the others in this one."""
    run, seen = cells.run, []

    def here(command, log):
        seen.append(command[0])
        if len(seen) == 1:
            return run(command, log)
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        return {"seconds": 1.0, "megabytes": 1}

    monkeypatch.setattr(cells, "run", here)
    return seen


@pytest.mark.usefixtures("eager")
def test_folds_are_pooled_and_the_page_has_every_contender(tmp_path, commands):
    more = {
        "prepare": ["--num-users", "1500", "--num-titles", "60", "--num-territories", "4"],
        "train": ["--epochs", "1", "--units", "16,8", "--no-listwise"],
        "evaluate": ["--baselines", "popularity,recent"],
    }
    options = {"sets": ["simulator"], "folds": 2, "work": tmp_path / "work", "more": more, "say": lambda text: None}
    lines = starting_line.main(tmp_path, tmp_path / "out", **options)
    first, second, pooled = lines
    assert commands == ["prepare", "train", "evaluate"] * 2
    assert (first["fold"], second["fold"]) == ("1/3", "2/3")
    assert pooled["lists"] == first["lists"] + second["lists"]
    assert set(pooled["means"]) == {"model", "popularity", "recent"}
    cell = pooled["compared"]["ndcg"]["recent"]
    assert cell["ours"] == pytest.approx(pooled["means"]["model"]["ndcg"], abs=1e-5)
    assert cell["user_windows"] == pooled["lists"]
    assert cell["users"] == pooled["users"]
    page = (tmp_path / "out" / "README.md").read_text()
    for words in ("## simulator", "| model |", "recent", "(best by validation)", f"{pooled['lists']:,} lists of"):
        assert words in page
    assert [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()] == lines
    took = json.loads((tmp_path / "work" / "simulator-1" / "took.json").read_text())
    assert list(took) == ["prepare", "train", "evaluate"]
    assert took["prepare"]["megabytes"] > 50
    assert starting_line.main(tmp_path, tmp_path / "out", **options) == lines
    assert len(commands) == 6  # nothing is done again

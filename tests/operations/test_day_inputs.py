import os

from tfmtr.documents import read_json
from tfmtr.operations.day_inputs import Steps, state_of

RESULTS = {"prepare": ("data",), "train": ("run",), "gate": ("gate.json",)}


def opened(path, **changes):
    """Names that are left after each step was opened, and what was said."""
    lines = []
    steps = Steps(path, RESULTS, lines.append)
    for step in RESULTS:
        steps.open(step, {"a": 1, "b": changes.get(step, 0)})
    return sorted(file.name for file in path.iterdir()), lines


def begun(path):
    """The folder after a first run."""
    path.mkdir()
    opened(path)
    for name in ("data", "run"):
        (path / name).mkdir()
    (path / "gate.json").touch()


def test_results_of_the_same_inputs_stay(tmp_path):
    begun(tmp_path / "day")
    assert opened(tmp_path / "day") == (["data", "gate.json", "keys.json", "run"], [])


def test_a_changed_input_takes_the_later_results_with_it(tmp_path):
    begun(tmp_path / "day")
    names, lines = opened(tmp_path / "day", train=2)
    assert names == ["data", "keys.json"]
    assert lines == ["train again, and what comes after it: since then b changed"]
    assert read_json(tmp_path / "day" / "keys.json")["train"] == {"a": 1, "b": 2}


def test_results_without_a_key_are_of_an_earlier_version_and_go(tmp_path):
    begun(tmp_path / "day")
    (tmp_path / "day" / "keys.json").unlink()
    assert opened(tmp_path / "day")[0] == ["keys.json"]


def test_from_a_step_on(tmp_path):
    begun(tmp_path / "day")
    Steps(tmp_path / "day", RESULTS, print, "gate")
    assert sorted(file.name for file in (tmp_path / "day").iterdir()) == ["data", "keys.json", "run"]
    assert set(read_json(tmp_path / "day" / "keys.json")) == {"prepare", "train"}


def test_the_state_of_files(tmp_path):
    (tmp_path / "table").mkdir()
    file = tmp_path / "table" / "a.parquet"
    file.write_text("1")
    before = state_of(tmp_path / "table")
    assert before == state_of(tmp_path / "table")
    assert before.startswith("1 file")
    os.utime(file, ns=(1, 1))
    assert state_of(tmp_path / "table") != before
    before = state_of(tmp_path / "table")
    (tmp_path / "table" / "b.parquet").write_text("2")
    assert state_of(tmp_path / "table") != before
    assert state_of(file) != state_of(tmp_path / "table" / "b.parquet")

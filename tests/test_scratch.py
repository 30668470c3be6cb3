"""What ended processes leave behind, and what must not be lost with it."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tfmtr import scratch as module
from tfmtr.arguments import ending_in_order
from tfmtr.datasets.dataset import Dataset, workplace
from tfmtr.documents import read_json, replacing, write_json
from tfmtr.scratch import scratch, sweep


def dead(parent, prefix, **files):
    """A folder as a process leaves it that was killed."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch(parent, prefix))
        kept = folder.with_name(f"{prefix}{module.MARK}{'x' * 8}")
        folder.rename(kept)
    (kept / module.LOCK).touch()
    for name, text in files.items():
        (kept / name).mkdir()
        (kept / name / "file").write_text(text)
    return kept


def test_a_folder_is_there_for_the_block_only_and_what_is_renamed_out_stays(tmp_path):
    with scratch(tmp_path / "new", "tmp-") as folder:
        assert folder.parent == tmp_path / "new"
        assert not folder.name.isdigit()
        (folder / "result").mkdir()
        (folder / "work" / "deep").mkdir(parents=True)
        (folder / "link").symlink_to(tmp_path)
        (folder / "result").rename(tmp_path / "new" / "1")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["1"]
    with pytest.raises(KeyError), scratch(tmp_path, "tmp-"):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_folders_of_the_dead_are_removed_and_those_of_the_living_and_of_others_are_not(tmp_path):
    gone = [dead(tmp_path, ".data."), tmp_path / ".data.scratch-aaaaaaaa"]
    gone[1].mkdir()  # killed before there was a lock
    names = (".data.backup", ".data.archives", ".data.scratch-2024", ".data.x.scratch-aaaaaaaa", "1", "tmp-archives")
    kept = [tmp_path / name for name in names]
    for path in kept:
        path.mkdir()
        (path / "file").touch()
        (path / module.LOCK).touch()
    found = []

    def other():
        with scratch(tmp_path, ".data.") as folder:
            found.extend([folder, folder.is_dir()])

    with scratch(tmp_path, ".data.") as folder:
        assert not any(path.exists() for path in gone)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        sweep(tmp_path, ".data.")
        assert found[1]
        assert not found[0].exists()
        assert folder.is_dir()
    assert all((path / "file").exists() for path in kept)
    sweep(tmp_path / "nowhere", ".data.")


def test_a_removal_that_was_cut_short_is_gone_on_with(tmp_path, monkeypatch):
    """The lock's file is the last to go: without it nobody would know whose the rest is."""
    folder, remove, left = dead(tmp_path, "tmp-", **dict.fromkeys("abcdefghij", "text")), module.shutil.rmtree, []

    def cut_short(path):
        remove(path)
        left.append((folder / module.LOCK).exists())
        if len(left) == 10:
            raise ZeroDivisionError

    monkeypatch.setattr(module.shutil, "rmtree", cut_short)
    with pytest.raises(ZeroDivisionError):
        sweep(tmp_path, "tmp-")
    assert all(left)
    monkeypatch.undo()
    sweep(tmp_path, "tmp-")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["made", "opened"])
def test_whose_new_folder_is_swept_takes_another(tmp_path, monkeypatch, moment):
    """Between making the folder and having its lock another process may come by."""
    real, swept = {"made": os.open, "opened": fcntl.flock}[moment], []

    def meddle(*arguments):
        if not swept:
            swept.extend(tmp_path.iterdir())
            with monkeypatch.context() as patch:
                patch.undo()
                sweep(tmp_path, "tmp-")
        return real(*arguments)

    monkeypatch.setattr(*{"made": (module.os, "open"), "opened": (module.fcntl, "flock")}[moment], meddle)
    with scratch(tmp_path, "tmp-") as folder:
        assert len(swept) == 1
        assert not swept[0].exists()
        assert (folder / module.LOCK).exists()
        sweep(tmp_path, "tmp-")
        assert folder.exists()


def test_a_second_signal_does_not_stop_the_cleaning(tmp_path, monkeypatch):
    remove, calls = module.shutil.rmtree, []

    def interrupted(path):
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(path)

    monkeypatch.setattr(module.shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), scratch(tmp_path, "tmp-") as folder:
        (folder / "work").mkdir()
    assert not list(tmp_path.iterdir())


def test_what_was_to_be_replaced_is_there_again_if_nothing_took_its_place(tmp_path):
    """`prepare --overwrite` ended between its two renames; the next run and a reader both find the old directory."""
    for is_read in (False, True):
        out = tmp_path / str(is_read) / "data"
        out.parent.mkdir()
        folder = dead(*workplace(out)[:2], replaced="old", result="new")
        if is_read:
            with pytest.raises(ValueError, match=r"it has no prepare\.json"):
                Dataset(out)
        else:
            sweep(*workplace(out))
        assert (out / "file").read_text() == "old"
        assert not folder.exists()
    folder = dead(*workplace(out)[:2], replaced="older")  # the new one took its place
    sweep(*workplace(out))
    assert (out / "file").read_text() == "old"
    assert not folder.exists()

    def end_between_the_two():
        with scratch(*workplace(out)) as folder:
            out.rename(folder / "replaced")
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        end_between_the_two()
    assert (out / "file").read_text() == "old"


def test_signals_end_in_order_and_are_what_they_were_afterwards():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    hidden = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_in_order():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # nohup
            with pytest.raises(SystemExit, match="143"):
                os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, hidden)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before


def test_a_prepare_that_is_ended_leaves_nothing_or_the_next_one_removes_it(tmp_path):
    out = tmp_path / "place" / "data"
    options = ("--num-users", "1000", "--num-titles", "60", "--num-territories", "4", "--out", out)
    command = [sys.executable, "-m", "tfmtr.cli", "prepare", "simulator", *map(str, options)]

    def ended_by(number):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while process.poll() is None and not list(out.parent.glob(".data.scratch-*")):
                time.sleep(0.01)
            process.send_signal(number)
            return process.wait(60), sorted(path.name.partition("-")[0] for path in out.parent.glob("*"))

    assert ended_by(signal.SIGTERM) == (143, [])
    assert not out.parent.exists()  # it was made for this
    assert ended_by(signal.SIGKILL) == (-9, [".data.scratch", ".tables"])
    subprocess.run(command, check=True, capture_output=True)
    assert [path.name for path in out.parent.iterdir()] == ["data"]


def test_a_document_that_was_not_written_whole_leaves_the_old_one_and_nothing_else(tmp_path):
    file = tmp_path / "run.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": {2}})
    with pytest.raises(SystemExit), replacing(file) as temporary:
        sys.exit(temporary.write_text("half"))
    assert read_json(file) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]

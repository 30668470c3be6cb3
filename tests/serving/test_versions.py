import shutil
import threading
import time

import numpy as np
import pytest

from tfmtr.serving.errors import ServerError
from tfmtr.serving.session import SavedModelSession
from tfmtr.serving.versions import (
    AVAILABLE,
    END,
    LOADING,
    UNLOADING,
    Model,
    Version,
    all_versions,
    find_versions,
    latest,
)


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "toy"
    path.mkdir()
    return path


@pytest.fixture
def model(base):
    """A model that looks at the disk only when a test calls `poll`, and tries a version once."""
    model = Model("toy", base, poll_wait_seconds=-1, max_num_load_retries=0)
    yield model
    model.stop()


def _states(model):
    return {version.number: version.state for version in model.status()}


def _served(model, number=None):
    with model.lease(number) as version:
        signature = version.session.signatures["serving_default"]
        (y,) = version.session.run({signature.inputs["x"].name: np.zeros(1, np.float32)}, [signature.outputs["y"].name])
        return y[0]


def _break(base, number):
    (base / f"tmp-{number}").mkdir()
    (base / f"tmp-{number}" / "saved_model.pb").write_bytes(b"garbage")
    (base / f"tmp-{number}").rename(base / str(number))


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({"poll_wait_seconds": 1e300, "max_num_load_retries": 0}, END),
        ({"retry_interval_seconds": 2.0**63 / 1e6}, LOADING),
    ],
)
def test_pauses_beyond_python_s_longest_end_no_thread(base, options, state):
    _break(base, 1)
    model = Model("toy", base, **{"poll_wait_seconds": 0, **options})
    model.start()
    time.sleep(0.3)
    assert _states(model) == {1: state}
    assert model._thread.is_alive()
    model.stop()


def test_newer_version_replaces_older_one(model, base, publish):
    publish(base, "00001", 1)
    for name in ("not-a-version", "²", "9" * 20):
        (base / name).mkdir()
    model.poll()
    assert _served(model) == 1
    publish(base, 2)
    model.poll()
    assert _served(model) == 2
    assert _states(model) == {2: AVAILABLE, 1: END}
    assert [version.number for version in model.status()] == [2, 1]
    with pytest.raises(ServerError, match=r"^NOT_FOUND: Servable not found for request: Specific\(toy, 1\)$"):
        _served(model, 1)


def test_of_several_names_of_one_number_the_last_counts(base):
    for name in ("0" * zeros + "3" for zeros in range(8)):
        (base / name).mkdir()
    (base / "0004").touch()  # a file counts, too
    assert find_versions(base) == ({3: base / "3", 4: base / "0004"}, None)


def test_newest_serves_before_the_old_one_is_unloaded(model, base, publish, monkeypatch):
    publish(base, 1)
    model.poll()
    publish(base, 2)
    with monkeypatch.context() as patch:
        patch.setattr(model, "_unload", lambda keep: None)
        model.poll()
        assert _states(model) == {2: AVAILABLE, 1: AVAILABLE}
        assert (_served(model), _served(model, 1)) == (2, 1)


def test_old_version_stays_until_its_last_request_is_done(model, base, publish):
    publish(base, 1)
    model.poll()
    with model.lease() as held:
        publish(base, 2)
        model.poll()
        assert _states(model) == {2: AVAILABLE, 1: UNLOADING}
        assert _served(model) == 2
        signature = held.session.signatures["serving_default"]
        feeds = {signature.inputs["x"].name: np.float32(4)}
        assert held.session.run(feeds, [signature.outputs["y"].name]) == [3.0]
    assert _states(model) == {2: AVAILABLE, 1: END}


def test_broken_version_ends_with_its_error_and_the_old_one_serves_on(model, base, publish):
    publish(base, 1)
    model.poll()
    _break(base, 2)
    for _ in range(2):
        model.poll()
    assert _states(model) == {2: END, 1: AVAILABLE}
    newest, oldest = model.status()
    assert newest.attempts == 1
    assert "saved_model.pb" in newest.error.message
    assert oldest.error is None
    publish(base, 3)
    model.poll()
    assert _states(model) == {3: AVAILABLE, 2: END, 1: END}


def test_broken_version_is_tried_again_after_its_directory_was_away(model, base, publish):
    _break(base, 2)
    model.poll()
    with pytest.raises(ServerError, match=r"saved_model\.pb"):
        model.wait_until_available()
    shutil.rmtree(base / "2")
    model.poll()
    publish(base, 2)
    model.poll()
    assert model.wait_until_available()
    assert _states(model) == {2: AVAILABLE}
    assert model.status(2)[0].error is None


def test_version_that_is_still_being_copied_is_retried(base, publish):
    model = Model("toy", base, poll_wait_seconds=0.05, max_num_load_retries=1000, retry_interval_seconds=0.05)
    (base / "2").mkdir()
    model.start()
    assert not model.wait_until_available(0.3)
    assert _states(model) == {2: LOADING}
    publish(base / "elsewhere", 2)
    shutil.copytree(base / "elsewhere" / "2", base / "2", dirs_exist_ok=True)
    assert model.wait_until_available(5)
    model.stop()
    assert _states(model) == {2: END}


def test_retries_wait_and_are_given_up_for_a_newer_version(base, publish):
    model = Model("toy", base, poll_wait_seconds=-1, max_num_load_retries=1000, retry_interval_seconds=1000)
    _break(base, 2)
    for _ in range(2):
        model.poll()
    assert (_states(model), model.status(2)[0].attempts) == ({2: LOADING}, 1)
    publish(base, 3)
    model.poll()
    assert _states(model) == {3: AVAILABLE, 2: END}
    assert model.status(2)[0].error is not None
    model.stop()


def test_deleted_newest_version_rolls_back(model, base, publish):
    for number in (1, 2):
        publish(base, number)
        model.poll()
    assert _states(model) == {2: AVAILABLE, 1: END}
    shutil.rmtree(base / "2")
    model.poll()
    assert _states(model) == {2: END, 1: AVAILABLE}
    shutil.rmtree(base / "1")
    model.poll()
    assert _states(model) == {2: END, 1: END}
    with pytest.raises(ServerError, match=r"Servable not found for request: Latest\(toy\)"):
        _served(model)


def test_missing_base_path_unloads_nothing(model, base, publish, caplog):
    publish(base, 1)
    model.poll()
    base.rename(base.with_name("away"))
    for _ in range(3):
        model.poll()
    assert _served(model) == 1
    assert len([record for record in caplog.records if "cannot list the versions" in record.message]) == 1


def test_watching_finds_a_late_version_and_logs_the_wait_once(base, publish, caplog):
    model = Model("toy", base, poll_wait_seconds=0.05)
    model.start()
    assert not model.wait_until_available(0.3)
    assert [record.message for record in caplog.records] == [
        f"no version of model toy under {base}; waiting for a directory <version>"
    ]
    publish(base, 1)
    assert model.wait_until_available(5)
    model.stop()
    assert _states(model) == {1: END}


def test_polling_once_finds_no_later_version(base, publish):
    publish(base, 1)
    model = Model("toy", base, poll_wait_seconds=0)
    model.start()
    assert model.wait_until_available(5)
    publish(base, 2)
    time.sleep(0.2)
    assert _states(model) == {1: AVAILABLE}
    model.stop()


def test_stop_cancels_a_run_that_outlasts_the_grace_time(model, base, publish):
    publish(base, 2)
    model.poll()
    caught = []

    def run():
        try:
            with model.lease() as version:
                signature = version.session.signatures["endless"]
                version.session.run({signature.inputs["x"].name: np.float32(0)}, [signature.outputs["x"].name])
        except ServerError as error:
            caught.append(error.code.name)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(1.0)
    model.stop()
    thread.join(5)
    assert caught == ["UNAVAILABLE"]  # which clients try again elsewhere
    assert _states(model) == {2: END}


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (PermissionError(13, "Permission denied"), "PERMISSION_DENIED", "[Errno 13] Permission denied"),
        (OSError(5, "Input/output error"), "UNKNOWN", "OSError: [Errno 5] Input/output error"),
        (KeyError("float8"), "UNKNOWN", "KeyError: 'float8'"),
        (MemoryError(), "RESOURCE_EXHAUSTED", "MemoryError"),
    ],
)
def test_whatever_a_load_raises_ends_after_the_retries_and_others_serve(base, publish, caplog, error, code, text):
    def load(path, load=SavedModelSession):
        if path.name == "2":
            raise error
        return load(path)

    model = Model(
        "toy", base, load=load, poll_wait_seconds=0.05, max_num_load_retries=2, retry_interval_seconds=0.05,
        policy=all_versions,
    )  # fmt: skip
    publish(base, 1)
    publish(base, 2)
    model.start()
    end = time.monotonic() + 10
    while _states(model) != {1: AVAILABLE, 2: END} and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.2)  # nothing more is tried
    (broken,) = model.status(2)
    assert (broken.state, broken.attempts) == (END, 3)
    assert (broken.error.code.name, text in broken.error.message) == (code, True)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 3  # a line a try
    assert _served(model) == 1
    model.stop()


def test_a_look_that_fails_is_repeated_with_a_pause(base, publish, monkeypatch):
    model = Model("toy", base, poll_wait_seconds=0.2, retry_interval_seconds=0.2)
    looks = []
    monkeypatch.setattr(model, "poll", lambda: looks.append(1) or 1 / 0)
    model._versions[1] = Version(1, state=LOADING)  # due long ago
    model.start()
    time.sleep(0.5)
    model.stop()
    assert 1 < len(looks) < 5


def test_a_model_that_is_no_longer_wanted_has_no_thread_and_may_come_back(base, publish):
    publish(base, 1)
    model = Model("toy", base, poll_wait_seconds=0.05)
    model.start()
    assert model.wait_until_available(5)
    with model.lease():
        model.configure(None, None)
        _wait_for(lambda: _states(model) == {1: UNLOADING})
        assert _is_watched("toy")  # a request still holds it
    _wait_for(lambda: not _is_watched("toy"))
    assert _states(model) == {1: END}  # remembered
    for _ in range(2):
        model.configure(base, latest())
        assert model.wait_until_available(5)
        model.configure(None, None)
        _wait_for(lambda: not _is_watched("toy"))
    model.stop()


def _is_watched(name):
    return f"versions-of-{name}" in [thread.name for thread in threading.enumerate()]


def _wait_for(condition):
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()

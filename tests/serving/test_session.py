import shutil
import threading

import grpc
import numpy as np
import pytest

from tfmtr.serving.errors import ServerError
from tfmtr.serving.session import SavedModelSession


@pytest.fixture
def copied(toy_models, tmp_path):
    shutil.copytree(toy_models / "2", tmp_path / "2")
    return tmp_path / "2"


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "code", "text"),
    [
        (
            lambda path: (path / "saved_model.pb").unlink(),
            grpc.StatusCode.NOT_FOUND,
            "Could not find SavedModel .pb or .pbtxt at supplied export directory path: ",
        ),
        (lambda path: _truncate(path / "saved_model.pb"), grpc.StatusCode.UNKNOWN, "Cannot parse file"),
        (
            lambda path: (path / "variables" / "variables.index").unlink(),
            grpc.StatusCode.UNKNOWN,
            "The passed save_path is not a valid checkpoint: ",
        ),
        (
            lambda path: _truncate(path / "variables" / "variables.data-00000-of-00001"),
            grpc.StatusCode.OUT_OF_RANGE,
            "Read less bytes than requested",
        ),
    ],
)
def test_damaged_savedmodel_is_refused(copied, damage, code, text):
    damage(copied)
    with pytest.raises(ServerError) as caught:
        SavedModelSession(copied)
    assert caught.value.code == code
    assert text in caught.value.message


def test_feeds_are_neither_cast_nor_checked_for_shape(copied):
    session = SavedModelSession(copied)
    feed, fetch = (next(iter(part.values())).name for part in _parts(session))
    for x in (np.float32(3), np.zeros((0,), np.float32), np.ones((2, 3), np.float32)):
        (y,) = session.run({feed: x}, [fetch])
        np.testing.assert_array_equal(y, x / 2 + 2)
        assert np.shape(y) == np.shape(x)
    with pytest.raises(ServerError, match=r"Expects arg\[0\] to be float but double is provided"):
        session.run({feed: np.zeros(1)}, [fetch])
    (y,) = session.run({feed: np.float32(3)}, [fetch], timeout_seconds=1e17)  # more than 64 bits of milliseconds
    assert y == 3.5
    with pytest.raises(ServerError, match="FetchOutputs node nowhere:0: not found"):
        session.run({feed: np.float32(3)}, ["nowhere:0"])


def _parts(session):
    signature = session.signatures["serving_default"]
    return signature.inputs, signature.outputs


def test_cancel_ends_a_run(copied):
    session = SavedModelSession(copied)
    signature = session.signatures["endless"]
    timer = threading.Timer(0.3, session.cancel)
    timer.start()
    with pytest.raises(ServerError) as caught:
        session.run({signature.inputs["x"].name: np.float32(0)}, [signature.outputs["x"].name])
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    timer.join()
    session.close()

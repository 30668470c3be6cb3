"""Base paths that are addresses: TensorFlow's file systems read them, where there is one of the scheme."""

import shutil
import time

import pytest
import tensorflow as tf

from tfmtr.serving.client import Client
from tfmtr.serving.server import Server


@pytest.fixture
def base(tmp_path, publish):
    publish(tmp_path / "toy", 1)
    return tmp_path / "toy"


def _answer(server, name="toy"):
    with Client(f"127.0.0.1:{server.port}", name) as client:
        return client.predict({"x": [4]})["y"].tolist()


def test_a_model_at_an_address_is_served_and_replaced(base, publish):
    (base / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 4 }")
    options = {"enable_batching": True, "enable_per_model_batching_parameters": True}
    with Server(f"file://{base}", model_name="toy", port=0, file_system_poll_wait_seconds=0.05, **options) as server:
        assert _answer(server) == [3.0]
        with Client(f"127.0.0.1:{server.port}", "toy") as client:
            with pytest.raises(Exception, match="larger than maximum input batch size 4"):
                client.predict({"x": [0.0] * 5})
            publish(base, 2)
            end = time.monotonic() + 10
            while client.status()[0].version != 2 or client.status()[0].state != 30:
                assert time.monotonic() < end
                time.sleep(0.02)
            assert client.predict({"x": [4]})["y"].tolist() == [4.0]


def test_configuration_and_model_in_a_file_system_of_tensorflow(base):
    """The file system `ram` stands for a bucket."""
    for file in filter(lambda file: file.is_file(), base.rglob("*")):
        tf.io.gfile.makedirs(f"ram://bucket/toy/{file.relative_to(base).parent}")
        tf.io.gfile.copy(str(file), f"ram://bucket/toy/{file.relative_to(base)}", overwrite=True)
    shutil.rmtree(base)
    with tf.io.gfile.GFile("ram://bucket/models.config", "w") as config:
        config.write(
            'model_config_list { config { name: "far" base_path: "ram://bucket/toy/" model_platform: "tensorflow" } }'
        )
    with Server(port=0, model_config_file="ram://bucket/models.config") as server:
        assert _answer(server, "far") == [3.0]


def test_a_scheme_without_a_file_system_is_an_error_by_name_and_others_serve(base, tmp_path, caplog):
    with pytest.raises(ValueError, match=r"of a scheme that TensorFlow has a file system.*Received: s4://bucket/m"):
        Server("s4://bucket/m")
    models = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }} '
        for name, path in (("far", "s4://bucket/m"), ("toy", base))
    )
    file = tmp_path / "models.config"
    file.write_text(f"model_config_list {{ {models} }}")
    with Server(port=0, model_config_file=str(file)) as server:
        assert _answer(server) == [3.0]
    assert "model far is not served: an address must be of a scheme" in caplog.text
    file.write_text(file.read_text().replace(str(base), "s4://bucket/n"))
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT: model far is not served"):
        Server(port=0, model_config_file=str(file)).start()


def test_an_address_without_a_model_is_refused_as_a_path_is(base):
    with pytest.raises(ValueError, match=r"must be a directory laid out as .*model_base_path='file:///nowhere/at/all'"):
        Server("file:///nowhere/at/all")
    with pytest.raises(ValueError, match="this is a SavedModel itself"):
        Server(f"file://{base}/1")
    with pytest.raises(ValueError, match=rf"Did you mean file://{base}\?"):
        Server(f"file://{base.parent}")

"""Tables on two servers, each a process on loopback."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tfmtr import parameter_servers
from tfmtr.parameter_servers import ShardedTable, sharded_tables
from tfmtr.serving.process import free_ports

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.usefixtures("with_grappler")  # losses of several processes are compared
OPTIMIZERS = ["sparse_adam", "row_wise_adagrad"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `sharded_run.py` found."""
    ports = free_ports(2)
    command = [sys.executable, "-m", "tfmtr.parameter_servers"]
    servers = [subprocess.Popen([*command, str(port)], stdout=subprocess.PIPE, text=True) for port in ports]
    try:
        for server in servers:
            assert server.stdout.readline().startswith("Holding rows")
        file = tmp_path_factory.mktemp("sharded") / "found.npz"
        addresses = json.dumps([f"localhost:{port}" for port in ports])
        script = Path(__file__).parent / "helpers" / "sharded_run.py"
        subprocess.run([sys.executable, script, file, json.dumps(OPTIMIZERS), addresses], check=True, timeout=300)
    finally:
        for server in servers:
            server.kill()
            server.wait()
    with np.load(file) as archive:
        return dict(archive)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_learns_what_a_model_with_whole_tables_learns(found, optimizer):
    sharded, whole = (
        {what: found[f"{optimizer}/{kind}/{what}"] for what in ("loss", "click", "user_embedding", "genres_embedding")}
        for kind in ("sharded", "whole")
    )
    for what, values in sharded.items():
        np.testing.assert_allclose(values, whole[what], atol=1e-5, err_msg=what)
    assert sharded["loss"][-1] < sharded["loss"][0]
    moved = np.any(sharded["user_embedding"] != found[f"{optimizer}/start/user"], axis=1)
    np.testing.assert_array_equal(moved, np.arange(11) < 8)  # the users of the batches


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rows_and_their_state_are_on_the_servers_where_the_update_is_computed(found, optimizer):
    devices = dict.fromkeys(("0", "1"), 0)
    for path, _, device in (line.partition(" ") for line in found[f"{optimizer}/devices"]):
        is_large = "user_embedding" in path or "genres_embedding" in path
        assert ("parameter_server" in device) == is_large, path
        if is_large:
            devices[device.partition("task:")[2][0]] += 1
    assert devices == {"0": 4, "1": 4}  # two tables, their rows and their state
    assert {device.partition("task:")[2][0] for device in found[f"{optimizer}/places"]} >= {"0", "1"}


def test_is_saved_and_read_where_there_are_no_servers(tmp_path):
    inputs = keras.Input((2,), dtype="int32")
    layer = ShardedTable(11, 4, 3)
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    ids = np.asarray([[0, 10], [7, 7]])
    found = keras.saving.load_model(tmp_path / "model.keras")(ids)
    expected = [[np.asarray(layer.shards[i % 3])[i // 3] for i in row] for row in ids]
    np.testing.assert_array_equal(found, expected)
    assert [shard.shape[0] for shard in layer.shards] == [4, 4, 3]


def test_a_row_that_is_in_the_batch_twice_is_fetched_once():
    layer = ShardedTable(11, 4, 3)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(np.asarray([[0, 10], [7, 7]])))
    gradients = tape.gradient(loss, [shard.value for shard in layer.shards])
    assert [gradient.indices.shape[0] for gradient in gradients] == [1, 2, 0]  # 0; 7 and 10
    np.testing.assert_array_equal(sorted(gradients[1].values[:, 0].numpy()), [1, 2])


def test_small_tables_and_those_outside_stay_whole(monkeypatch):
    monkeypatch.setitem(parameter_servers._servers, "min_rows", 10)
    assert type(parameter_servers.table(10, 4)) is not ShardedTable
    monkeypatch.setitem(parameter_servers._servers, "devices", (None, None))
    assert type(parameter_servers.table(9, 4)) is not ShardedTable
    assert parameter_servers.table(10, 4).num_shards == 2


def test_bad_input(monkeypatch):
    with pytest.raises(ValueError, match="`addresses` must have one host:port or more"), sharded_tables([]):
        pass
    with pytest.raises(ValueError, match="`num_shards` must be a positive integer"):
        ShardedTable(11, 4, 0)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="`sharded_tables` needs the TensorFlow backend"), sharded_tables(["a:1"]):
        pass

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tfmtr import inputs, replicas, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.run import Run
from tfmtr.serving.process import free_ports

pytestmark = pytest.mark.usefixtures("with_grappler")  # losses of several processes are compared
SMALL = {"units": (8,), "epochs": 2, "batch_size": 250, "learning_rate": 0.01, "unknown_rate": 0.0}
SPARSE = SMALL | {"optimizer": "sparse_adam"}
STAR = SMALL | {"share": "star", "epochs": 1}  # with normalisation by the scenario's own rows
SCRIPT = """
import contextlib, json, sys, time
from pathlib import Path
import keras
import tensorflow as tf

how, data, run, recipe, delay = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]), float(sys.argv[5])
if how == "mirrored":
    cpu = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [cpu, cpu])

from tfmtr import replicas, training

class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(delay)

fit = keras.Model.fit
keras.Model.fit = lambda self, *a, callbacks, **k: fit(self, *a, callbacks=[Slow(), *callbacks], **k)
with replicas.make_strategy({"mirrored": "mirrored", "workers": None}.get(how, "none")).scope():
    training.train(data, run, training.Recipe(**recipe), verbose=0)
"""


def start(how, data, run, recipe, delay=0.0, environment=None):
    command = [sys.executable, "-c", SCRIPT, how, str(data), str(run), json.dumps(recipe), str(delay)]
    return subprocess.Popen(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})})


def start_workers(data, run, recipe, delay=0.0):
    """Two workers as TF operators start them: with TF_CONFIG."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    configs = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)]
    return [start("workers", data, run, recipe, delay, {"TF_CONFIG": json.dumps(config)}) for config in configs]


def finish(*processes):
    try:
        return [process.wait(300) for process in processes]
    finally:
        for process in processes:
            process.kill()


def stages(run):
    return Run(run).document["stages"]


def check_losses(run, other):
    """The losses of all epochs of all windows."""
    for window in stages(other):
        history, expected = (stages(folder)[window]["history"] for folder in (run, other))
        np.testing.assert_allclose([e["loss"] for e in history], [e["loss"] for e in expected], atol=1e-5)
        # A bias before a batch normalisation has no gradient but rounding, of which Adam makes steps; moving means
        # follow it a little late, so what is validated with them differs more.
        assert [e.get("val_loss") for e in history] == pytest.approx([e.get("val_loss") for e in expected], abs=1e-4)


def join(*parts):
    return tf.nest.map_structure(lambda *values: tf.concat(values, axis=0), *parts)


def batches_of_workers(read):
    """A batch of each of two workers at a time, as one."""
    return tf.data.Dataset.zip((read(2, 0), read(2, 1))).map(join)


def batches_of_devices(read):
    """Two batches of a process with two devices at a time, as one."""
    both = read(1, 0)

    def pairs():
        parts = iter(both)
        for first in parts:
            yield join(first, next(parts))

    return tf.data.Dataset.from_generator(pairs, output_signature=both.element_spec)


@pytest.fixture
def one(tiny, tmp_path, monkeypatch):
    """A run of this process alone, by recipe and by whose batches it has; without its list model, which nobody sees."""

    def run(recipe, batches):
        def joined(job, files, **order):
            def read(pipelines, index):
                context = tf.distribute.InputContext(pipelines, index, 2)
                options = {"batch_size": job.recipe.batch_size, "schema": job.schema, "context": context}
                return inputs.batches(job.data, files, **options, **order)

            return batches(read), None

        monkeypatch.setattr("tfmtr.training.stages.shared_batches", joined)
        training.train(tiny, tmp_path / "one", training.Recipe(**recipe, listwise=False), verbose=0)
        return tmp_path / "one"

    return run


def test_two_devices_have_the_losses_of_one(tiny, tmp_path, one):
    mirrored = start("mirrored", tiny, tmp_path / "run", STAR)
    alone = one(STAR, batches_of_devices)
    assert finish(mirrored) == [0]
    first, same = (stages(run)["1"]["history"][0] for run in (tmp_path / "run", alone))
    assert first == pytest.approx(same, abs=1e-5)  # later on this small STAR tells rounding errors apart


def test_two_workers_one_killed_and_both_restarted_have_the_losses_of_one_process(tiny, tmp_path, one):
    """With a row-sparse optimizer, of which both the gradients and the state are checked so."""
    run = tmp_path / "run"
    chief, other = start_workers(tiny, run, SPARSE, delay=0.05)
    state = run / "checkpoint" / "window-1" / "state.json"
    deadline = time.time() + 120
    while time.time() < deadline and not state.exists():
        time.sleep(0.01)
    other.kill()
    other.wait()
    chief.kill()  # as an operator restarts the whole job
    chief.wait()
    assert len(json.loads(state.read_text())["history"]) == 1  # really interrupted, after the first epoch
    restarted = start_workers(tiny, run, SPARSE)
    alone = one(SPARSE, batches_of_workers)
    assert finish(*restarted) == [0, 0]
    check_losses(run, alone)


def test_each_worker_reads_its_own_rows(tiny):
    """Together all rows once, in as many batches each, of sizes that differ by one at most."""
    data = Dataset(tiny)
    files = data.examples("train")
    parts = []
    for index in range(3):
        context = tf.distribute.InputContext(3, index, 6)  # three workers of two devices
        parts.append(
            [x["title_vector"].numpy() for x, _ in inputs.batches(data, files, batch_size=250, context=context)]
        )
    assert {len(part) for part in parts} == {2 * inputs.num_steps(files, 250)}
    sizes = {len(batch) for part in parts for batch in part}
    assert max(sizes) - min(sizes) <= 1
    whole = np.concatenate([x["title_vector"].numpy() for x, _ in inputs.batches(data, files, batch_size=250)])
    np.testing.assert_array_equal(np.concatenate([batch for part in parts for batch in part]), whole)


def test_more_workers_than_rows(tiny):
    data = Dataset(tiny)
    with pytest.raises(ValueError, match="a row for each worker"):
        inputs.batches(data, data.examples("validation")[:1], context=tf.distribute.InputContext(10**6, 0, 10**6))


def test_the_strategy_follows_the_environment(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert replicas.make_strategy().num_replicas_in_sync == 1
    with pytest.raises(ValueError, match=r"needs the environment variable TF_CONFIG.*TF_CONFIG=None"):
        replicas.make_strategy("multi_worker")
    with pytest.raises(ValueError, match="must be one of"):
        replicas.make_strategy("many")


def test_balancers_want_one_replica(monkeypatch, tiny):
    monkeypatch.setattr(replicas, "number", lambda: 2)
    recipe = training.Recipe(balance="pcgrad", units=(4,))
    with pytest.raises(ValueError, match=r"each of several replicas has its own.*Received: 2 replicas"):
        recipe.build(recipe.adapt(Dataset(tiny).schema))

"""The same models on Keras's JAX backend, in a process that has no TensorFlow, and what is refused there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import backend_run

from studies.combinations import study as combinations
from tfmtr import exporting
from tfmtr.optimizers.sparse_adam import SparseAdam

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # whatever imports it fails
from helpers import backend_run
backend_run.main(*sys.argv[1:])
"""
TESTS = Path(__file__).parent


@pytest.mark.usefixtures("eager")
def test_on_jax_predictions_and_losses_are_those_of_tensorflow_and_losses_fall(tmp_path):
    pytest.importorskip("jax", reason="needs JAX: pip install -e .[jax]")
    folders = [TESTS, TESTS.parent]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",  # compiles twice as fast
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
    }
    files = [tmp_path / name for name in ("weights.npz", "found.npz")]
    command = [sys.executable, "-W", "error:Explicitly requested dtype", "-c", WITHOUT_TENSORFLOW, *map(str, files)]
    with (tmp_path / "messages").open("w+") as messages:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=messages)
        models = backend_run.models()
        weights = backend_run.start(models)
        np.savez(files[0], **weights)
        process.stdin.close()
        here = backend_run.observe(models, weights)
        status = process.wait()
        messages.seek(0)
        assert status == 0, messages.read()
    with np.load(files[1]) as archive:
        there = dict(archive)
    names = {what.partition("/")[0] for what in there}
    assert names == models.keys()
    for what, value in there.items():
        if what.endswith("/loss") or "/predicted/" in what:
            np.testing.assert_allclose(value, here[what], rtol=1e-5, atol=1e-5, err_msg=what)
    for name in names:
        assert there[f"{name}/is_compiled"]
        assert there[f"{name}/after"] < there[f"{name}/loss"][0], name


def test_what_needs_tensorflow_says_so(tmp_path, monkeypatch):
    model = combinations.build("parallel", "none", "ranking")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    refused = {
        "`SparseAdam` needs": lambda: SparseAdam(0.1),
        "`balance=pcgrad` needs": lambda: model.compile("sgd", balance="pcgrad"),
        "An export needs": lambda: exporting.export(tmp_path, tmp_path, titles=tmp_path),
    }
    for message, attempt in refused.items():
        with pytest.raises(ValueError, match=rf"{re.escape(message)} .*KERAS_BACKEND=tensorflow, or .*: .*='jax'"):
            attempt()

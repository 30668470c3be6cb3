"""What commands leave out of TensorFlow's import."""

import importlib
import json
import subprocess
import sys
import types

import pytest

from tfmtr import cli, startup

SCRIPT = """
import sys
from tfmtr.startup import NEEDLESS, start_quickly
start_quickly()
import tensorflow, keras
assert not NEEDLESS & set(sys.modules), NEEDLESS & set(sys.modules)
import tfmtr.exporting, tfmtr.evaluation.evaluate  # which have no need of it either, where they fit nothing
assert not NEEDLESS & set(sys.modules), NEEDLESS & set(sys.modules)
import sklearn, matplotlib
keras.layers.Dense(1)(tensorflow.ones((1, 1)))
"""


def test_tensorflow_and_keras_work_without_and_others_get_them_afterwards():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


@pytest.mark.parametrize("package", ["tensorflow", "keras"])
def test_packages_are_hidden_for_the_time_of_an_import_alone(package, monkeypatch):
    finder = startup.WithoutNeedless()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    being = types.SimpleNamespace(__spec__=types.SimpleNamespace(_initializing=True))
    monkeypatch.setitem(sys.modules, package, being)
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    with pytest.raises(ImportError, match="No module named 'sklearn' for the time of TensorFlow's import"):
        importlib.import_module("sklearn")
    assert finder.find_spec("numpy") is None
    being.__spec__._initializing = False
    assert importlib.import_module("sklearn")


def test_the_backend_is_the_one_that_keras_will_find(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert startup.backend() == "tensorflow"
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    assert startup.backend() == "jax"
    monkeypatch.setattr(sys, "meta_path", [])
    startup.start_quickly()
    assert sys.meta_path == []
    for text in ("no JSON", "[]", "{}"):
        (tmp_path / "keras.json").write_text(text)
        assert startup.backend() == "tensorflow"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert startup.backend() == "torch"


def test_commands_start_so(monkeypatch):
    begun = []
    monkeypatch.setattr(cli, "start_quickly", lambda: begun.append(True))
    monkeypatch.setattr(sys, "argv", ["tfmtr", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert begun == [True]

"""Parts of another package: they train, are evaluated, exported and served, by entry point and by import path."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfmtr import cli, components

TESTS = Path(__file__).parent
PACKAGE = TESTS / "extra_package"
SCRIPT = """
import sys
from pathlib import Path

import numpy as np

import tfmtr
from tfmtr import cli, components
from helpers.untraced import untraced

source = Path(sys.argv[1]) / "numbers.csv"
source.write_text("number\\n" + "\\n".join(map(str, range(40))))
runs = [(prefix, Path(sys.argv[1], name)) for name, prefix in [("by-path", "tfmtr_extra:"), ("by-name", "")]]


def command(*words):
    sys.argv = ["tfmtr", *map(str, words)]
    try:
        cli.main()
    except SystemExit as ended:
        assert not ended.code, words


def go_all_the_way(prefix, folder):
    data = f"{prefix}own_data" if prefix else "own-data"
    command("prepare", data, "--source", source, "--users", 400, "--out", folder / "data")
    small = ["--epochs", 1, "--units", "8,4", "--no-listwise"]
    parts = ["--share", f"{prefix}own_share", "--head", f"{prefix}own_head"]
    parts += ["--set", "share.width=4", "--set", "head.factor=0.5"]
    with untraced():
        command("train", "--data", folder / "data", *parts, *small, "--out", folder / "run")
        metric = ["--metric", f"{prefix}own_metric"] if prefix else []
        command("evaluate", folder / "run", "--baselines", "popularity", *metric)
    signature = ["--signature", f"{prefix}own_signature"] if prefix else []
    command("export", folder / "run", "--index", f"{prefix}own_index", "--out", folder / "models/own", *signature)
    with tfmtr.serve(folder / "models/own/1") as server:
        assert len(server.recommend({"territory": "all"}, k=3).titles) == 3
        with server.client() as client:
            inputs = {name: np.zeros([2, i.tensor_shape.dim[1].size], "float32")
                      for name, i in client.metadata()["own_signature"].inputs.items()}
            assert client.predict(inputs, signature_name="own_signature")["length"].shape == (2,)
    ranking = ["--form", "ranking", "--share", "none", "--encode", f"{prefix}own_encoder", "--set", "encode.power=3"]
    with untraced():
        command("train", "--data", folder / "data", *ranking, "--epochs", 1, "--out", folder / "ranking")


for prefix, folder in runs:
    go_all_the_way(prefix, folder)
"""


def python(*arguments):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE), str(TESTS), os.environ.get("PYTHONPATH")]))
    call = [sys.executable, *map(str, arguments)]
    return subprocess.run(call, check=False, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What one process makes by import path, before entry points may have imported the package, and then by those."""
    folder = tmp_path_factory.mktemp("made")
    result = python("-c", SCRIPT, folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize(
    ("name", "prefix"), [("by-name", ""), ("by-path", "tfmtr_extra:")], ids=["entry point", "import path"]
)
def test_parts_of_another_package_go_all_the_way(made, name, prefix, monkeypatch, capsys):
    folder = made / name
    recipe = json.loads((folder / "run/run.json").read_text())["recipe"]
    assert recipe["share"] == {"name": f"{prefix}own_share", "width": 4}
    assert recipe["head"] == {"name": f"{prefix}own_head", "factor": 0.5}
    assert json.loads((folder / "ranking/run.json").read_text())["recipe"]["encode"]["power"] == 3
    means = json.loads((folder / "run/evaluation.json").read_text())["means"]["new"]
    assert 0 <= means["model"]["own_metric"] <= means["model"]["hit_rate"]
    if not prefix:
        return
    # A run's import path is run only where that is allowed, and where it can be found. Pytest has imported the package
    # where it collected all files.
    monkeypatch.delitem(sys.modules, "tfmtr_extra", raising=False)
    evaluate = ("evaluate", folder / "run", "--baselines", "none")
    for words, message in (
        (["--no-import-paths"], "must be the name of a part with `--no-import-paths`"),
        ([], "No module named 'tfmtr_extra'"),  # which this process does not find
    ):
        monkeypatch.setattr(components, "_LOCKED", [])
        monkeypatch.setattr(sys, "argv", ["tfmtr", *words, *map(str, evaluate)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        assert message in capsys.readouterr().err

"""The benchmarks run, at sizes that say nothing about speed."""

import importlib
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in ("balancing", "embedding_update", "sharing"):
        sys.modules.pop(name, None)


def test_balancing_holds_every_balancer_against_equal(load, tmp_path):
    out = tmp_path / "balancing.json"
    benchmark = load("balancing")
    assert {name.partition("+")[2] for name in benchmark.names()} == {
        *benchmark.components.names("balancing"), "self_auxiliary",
    }  # fmt: skip
    found = benchmark.main(wanted=["mmoe+equal", "mmoe+pcgrad"], batch_size=64, steps=2, warmup=1, out=out)
    assert found["mmoe+equal"]["ratio"] == 1.0
    assert [row["forward_passes"] for row in found.values()] == [1, 1]
    assert json.loads(out.read_text())["models"] == found


def test_embedding_update_measures_all_sizes(load, tmp_path):
    out = tmp_path / "embedding_update.json"
    document = load("embedding_update").main(sizes=(100, 1000), steps=2, warmup=1, out=out)
    assert set(document["milliseconds"]) == {"100", "1000"}
    assert set(document["milliseconds"]["100"]) == {
        "limit", "sparse_adam", "row_wise_adagrad", "keras_adam", "training_step", "peak_mebibytes",
    }  # fmt: skip
    assert json.loads(out.read_text()) == json.loads(json.dumps(document))

"""The study of lists on a small log; what it takes out of a list model; no test window is read before it is frozen."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tfmtr.cli import app
from tfmtr.documents import read_json, write_json
from tfmtr.listwise.model import ListModel
from tfmtr.listwise.parts import Factors, Parts
from tfmtr.listwise.prior import LocalShares

FILE = Path(__file__).parents[2] / "studies" / "quality" / "study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("quality_study", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_process(command, log):
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(" ".join(command) + "\n")
    return {"seconds": 1.0, "megabytes": 1}


def test_cells_are_computed_once_and_the_page_says_what_is_shown(tmp_path, study, monkeypatch, eager):
    monkeypatch.setattr(study.cells, "run", in_process)
    monkeypatch.setattr(study, "check_frozen", lambda: None)
    monkeypatch.setattr(study, "ABLATIONS", {"without the past": study.without_past})
    more = {
        "prepare": ["--num-users", "1500", "--num-titles", "60", "--num-territories", "4"],
        "train": ["--epochs", "1", "--units", "16,8"],
        "evaluate": ["--baselines", "popularity,recent"],
    }
    options = {"sets": ["simulator"], "folds": 1, "seeds": 2, "out": tmp_path, "more": more, "say": lambda line: None}
    lines = study.main(tmp_path, tmp_path / "work", **options)
    cells = [(line["arm"], line.get("seed")) for line in lines]
    assert cells == [("default", 0), ("towers", 0), ("without the past", 0), ("default", 1), ("pooled", None)]
    assert [json.loads(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()] == lines
    default, towers, _, second, pooled = lines
    assert default["setting"] in study.SETTINGS
    assert default["pr_auc"] == towers["pr_auc"]
    compared = pooled["compared"]["ndcg"]
    assert set(compared) == {"popularity", "recent", "towers", "without the past"}
    assert compared["towers"]["theirs"] == pytest.approx(towers["ndcg"], abs=1e-5)
    assert compared["recent"]["ours"] == pytest.approx((default["ndcg"] + second["ndcg"]) / 2, abs=1e-5)
    assert compared["recent"]["user_windows"] == default["lists"]
    of_users = pooled["segments"]["default"]  # cold and warm ones, all of them
    assert of_users["new users"]["user_windows"] + of_users["known users"]["user_windows"] == default["lists"]
    page = (tmp_path / "README.md").read_text()
    for words in ("| simulator |", "towers alone", "Geometric mean", "without the past", "Leave one data set out"):
        assert words in page
    log = (tmp_path / "work/simulator-3/seed-0/log.txt").read_text()
    assert study.main(tmp_path, tmp_path / "work", **options) == lines
    assert (tmp_path / "work/simulator-3/seed-0/log.txt").read_text() == log  # nothing is done again


def test_no_test_window_is_read_unless_the_procedure_is_the_frozen_one(tmp_path, study):
    study.write_json(tmp_path / "now.json", {"sha256": study.fingerprint()})
    study.check_frozen(tmp_path / "now.json")
    write_json(tmp_path / "frozen.json", {"sha256": "another"})
    with pytest.raises(SystemExit, match="not the frozen one"):
        study.check_frozen(tmp_path / "frozen.json")
    with pytest.raises(SystemExit, match="not the frozen one"):
        study.check_frozen(tmp_path / "none.json")
    lines = [json.loads(text) for text in (FILE.parent / "results.jsonl").read_text().splitlines()]
    assert {line["frozen"] for line in lines} == {read_json(FILE.parent / "frozen.json")["sha256"]}


def test_the_page_is_what_the_lines_say(study):
    lines = [json.loads(text) for text in (FILE.parent / "results.jsonl").read_text().splitlines()]
    assert (FILE.parent / "README.md").read_text() == study.page(lines)


def test_what_is_taken_out_counts_nothing_and_the_rest_stays(study):
    rng = np.random.default_rng(0)
    factors = Factors(np.array([[0.2, 0.1], [0.3, 0.4]]), 2.0, np.ones((2, 2)), np.ones(2), np.ones(4))
    model = ListModel(factors, 1.0, 0.5)
    there = LocalShares(np.zeros((2, 2)), np.array([0, 3, 6]), np.tile(np.arange(3), 2), rng.normal(size=(2, 6)), 3)
    everywhere, vectors = np.log(np.full((2, 3), 1 / 3, "float32")), np.eye(3, 2, dtype="float32")
    parts = Parts(everywhere, there, np.arange(3), np.ones((2, 3, 3), "float32"), vectors, vectors[:2])
    out = {name: change(model) for name, change in study.ABLATIONS.items()}
    assert not np.abs(parts.factorised(out["without the past"].factors, 3)).max() > 1e-6
    assert not parts.lean(out["without the past"].factors).any()
    assert out["without texts"].factors.weights.tolist() == [1, 1, 0, 0]
    assert not parts.lean(out["without activity"].factors).any()
    assert not parts.prior(out["without territories"].factors)[1].any()
    np.testing.assert_allclose(parts.prior(out["without territories"].factors)[0], parts.prior(factors)[0], rtol=1e-6)
    assert not any(value.any() for value in parts.prior(out["without popularity"].factors))
    assert not parts.lean(out["without popularity"].factors).any()
    assert out["without the towers"].model_weight == 0.0
    for name, other in out.items():
        same = [
            field.name
            for field in dataclasses.fields(model)
            if getattr(other, field.name) is getattr(model, field.name)
        ]
        assert len(same) == 2, name


def test_goals_are_judged_by_ratio_and_interval(study):
    assert study.verdict({"ratio": 1.02, "low": 0.96}) == "shown"
    assert study.verdict({"ratio": 1.20, "low": 0.94}) == "not shown"
    assert study.verdict({"ratio": 0.99, "low": 0.96}) == "not shown"
    assert study.verdict({"ratio": None, "low": None}) == "not shown"
    mean, low, high = study.geometric_mean([{"ratio": 1.0, "detectable": 1.1}, {"ratio": 1.21, "detectable": 1.1}])
    assert mean == pytest.approx(1.1)
    error = np.log(1.1) / (1.959964 + 0.841621) / np.sqrt(2)
    assert np.log(high / mean) == pytest.approx(1.959964 * error)
    assert np.log(mean / low) == pytest.approx(1.959964 * error)


def test_a_figure_is_the_mean_over_territories_and_windows(study):
    windows = {"1": {"a": {"x": 1.0}, "b": {"x": None}, "overall": {"x": 9.0}}, "2": {"a": {"x": 2.0}}}
    assert study.mean_of(windows, "x") == 1.5
    assert study.mean_of({"1": {"a": {"x": None}}}, "x") is None

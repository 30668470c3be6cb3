"""The runnable scripts, on small data."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from tfmtr.cli import app
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.simulator import simulator
from tfmtr.serving.recommendations import recommend
from tfmtr.serving.server import Server

PIPELINES = Path(__file__).parents[2] / "pipelines"
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def command(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def script(name, *arguments):
    process = [sys.executable, PIPELINES / name, *map(str, arguments)]
    return subprocess.run(process, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout


def test_fit_script_prints_pr_auc_above_prevalence(tmp_path):
    data = prepare(simulator(tmp_path / "tables", num_users=1_000, num_titles=80), tmp_path / "data", progress=False)
    words = script("two_tower.py", data.path).splitlines()[-1].replace(",", "").split()
    figures = {words[0]: float(words[1]), words[2]: float(words[3])}
    assert figures["PR-AUC"] > 1.2 * figures["prevalence"]


def test_xmarket_as_ones_own_logs_from_tables_to_recommendations(shared_data, tmp_path):
    script("xmarket_tables.py", shared_data("xmarket-electronics/ratings_5core.parquet"), tmp_path)
    tables = [f"--{name}={tmp_path / name}.parquet" for name in ("events", "users", "titles")]
    options = ["--map", "user=uid,title=asin,territory=market,time=date", "--task", "liked=liked"]
    windows = ["--window-days", 28, "--train-windows", 12, "--end", "2019-10-01"]
    output = command("prepare", "events", *tables, *options, *windows, "--out", tmp_path / "data")
    assert all(market in output for market in ("ca", "uk", "fr", "de", "mx", "jp", "in"))
    train = ("train", "--data", tmp_path / "data", "--epochs", 1, "--units", "32,16", "--no-listwise")
    command(*train, "--out", tmp_path / "run")
    assert "liked per territory" in command("evaluate", tmp_path / "run", "--baselines", "popularity")
    command("export", tmp_path / "run", "--out", tmp_path / "models")
    with Server(tmp_path / "models", model_name="m", port=0) as server:
        answer = recommend(f"127.0.0.1:{server.port}", "m", tmp_path / "data", "nobody", territory="jp", k=5)
    assert len(answer["titles"]) == 5
    assert all(row["title"].startswith("B0") for row in answer["titles"])


def test_the_demo_ends_by_what_wins():
    from types import SimpleNamespace

    import demo

    lists = {"model": {"ndcg": 0.3}, "recent": {"ndcg": 0.25}, "ease": {"ndcg": 0.2}, "als": {"ndcg": None}}
    ratio = {"ratio": 1.2, "low": 1.1, "high": 1.3}
    found = SimpleNamespace(ndcg=0.3, lists=lists, ratios={"recent": ratio, "ease": {"ratio": 1.5, "low": 1.4}})
    assert demo.what_wins(found) == (
        "The model's lists (NDCG 0.3000) are above those of the best baseline, recent (0.2500): "
        "1.200 times as good, 95 % interval 1.100 to 1.300."
    )
    ratio["low"] = 0.9
    assert "are level with those" in demo.what_wins(found)
    ratio["high"] = 0.99
    assert "are below those" in demo.what_wins(found)
    assert demo.what_wins(SimpleNamespace(ndcg=None, lists=lists, ratios={})) == "There are too few lists to say."

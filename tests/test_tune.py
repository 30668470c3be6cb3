"""A search over a recipe's values: its space, its tries, and that it reads no test window."""

import json
import math
import shutil
import subprocess
import sys
import threading
import types

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers.untraced import untraced
from typer.testing import CliRunner

import tfmtr
from tfmtr import training
from tfmtr.cli import app
from tfmtr.datasets.dataset import Dataset
from tfmtr.recipe import Recipe
from tfmtr.run import Run, weights_of

optuna = pytest.importorskip("optuna")

from tfmtr.tuning import search, tries  # noqa: E402
from tfmtr.tuning.importance import importances, plain_importances  # noqa: E402
from tfmtr.tuning.objective import Judged, Objective  # noqa: E402
from tfmtr.tuning.space import MOST_COMBINATIONS, Space, _combinations  # noqa: E402
from tfmtr.tuning.trial import Tried, rungs_of  # noqa: E402
from tfmtr.tuning.tries import JOURNAL, LOST  # noqa: E402
from tfmtr.tuning.tuning import Tuning  # noqa: E402
from tfmtr.tuning.view import training_view  # noqa: E402

RATES = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
SPACE = {**RATES, "batch_size": [256, 512]}
TWO_RATES = {"learning_rate": [1e-3, 1e-2]}
SMALL = Recipe(units=(8, 4), share="none", listwise=False)


def ledger(out):
    """The ledger without what differs from run to run."""
    return [{**row, "seconds": None} for row in tries.read_ledger(out)]


# The space.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"`space` must have a key of the recipe with a list of choices, or a range such as .* Received: none"),
        ("batch_sise = [1, 2]", r"`space` must have keys of a recipe: .* Did you mean 'batch_size'\? .*'batch_sise'"),
        ('"shar.num_experts" = [1, 2]', r"Did you mean 'share'\? Received: 'shar.num_experts'"),
        ("updates = [1, 2]", r"must not have `updates`: the budget is the same for all tries"),
        ("epochs = [1, 2]", r"must not have `epochs`: the budget"),
        ("patience = [1, 2]", r"must not have `patience`"),
        ("seed = [1, 2]", r"must not have `seed`: the best of several seeds is luck"),
        ("l2 = 1e-5", r"`l2` of `space` must be a list of choices, or a range .* Received: l2=1e-05"),
        ("l2 = {min = 0.1, max = 1.0}", r"`l2` of `space` must be a list of choices, or a range"),
        ("l2 = []", r"`l2` of `space` must have two or more choices, each once"),
        ("l2 = [0.1]", r"two or more choices"),
        ("batch_size = [1, 2, 1]", r"two or more choices, each once.* Received: \[1, 2, 1\]"),
        ("l2 = [2020-01-01, 2021-01-01]", r"`l2` of `space` must have numbers, texts, lists and tables"),
        ("l2 = {low = 0.1, hihg = 1.0}", r"must have keys of .* Did you mean 'high'\? Received: 'hihg'"),
        ("l2 = {low = 0.1}", r"The range `l2` of `space` must have `low` and `high`. Received: no high"),
        ("l2 = {low = 0.2, high = 0.1}", r"must have a `low` below `high`, or it is empty"),
        ("l2 = {low = 0.2, high = 0.2}", r"or it is empty"),
        ("l2 = {low = 0, high = 0.1, log = true}", r"`low` above 0 where `log = true`: there is no logarithm of 0"),
        ("l2 = {low = 0.1, high = 1, log = 1}", r"must have a `log` that is true or false"),
        ('l2 = {low = "a", high = 1}', r"must have a `low` that is a finite number"),
        ("l2 = {low = 0, high = inf}", r"must have a `high` that is a finite number"),
        ("l2 = {low = 0, high = 1, step = 2}", r"must have a `step` above 0 and within the range"),
        ("l2 = {low = 1, high = 2, log = true, step = 1}", r"none where `log = true`"),
        ("l2 = [1, 2", r"`space` must be a TOML file that can be read"),
        ('share = ["ple"]\nshare.num_experts = [1, 2]', r"must be a TOML file that can be read"),
        # What the recipe refuses.
        ('share = ["plee", "ple"]', r"share = plee makes none: `share` must be one of .* Did you mean 'ple'\?"),
        ('"share.num_expert" = [1, 2]', r"share.num_expert = 1 makes none: Options of `share=none`"),
        ('share = ["none", "ple"]\n"share.num_experts" = [1, 2]', r"share = none, share.num_experts = 1 makes none"),
        ("batch_size = {low = 0, high = 8}", r"batch_size = 0 makes none: `batch_size` must be an integer"),
        ("batch_size = {low = 1.5, high = 8}", r"batch_size = 1.5 makes none"),
        ("dropout = {low = 0, high = 1}", r"dropout = 1.0 makes none: `dropout` must be a finite number"),
        ("head = ['parallel', 'esmm']", r"head = esmm makes none"),
        ('"task_weights.evnt" = [1, 2]', r"task_weights.evnt = 1 makes none: .*Did you mean 'event'\?"),
        ('form = ["two_tower", "ranking"]', r"form = ranking makes none"),
        ('encode = ["fwfm", "fm"]', r"encode = fwfm makes none|encode = fm makes none"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_in_one_line_and_nothing_is_written(tiny, tmp_path, text, message):
    file = tmp_path / "space.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        tfmtr.tune(tiny, tmp_path / "out", file, SMALL, updates=4)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_form_without_lists_is_refused_where_lists_judge(tiny, tmp_path):
    with pytest.raises(
        ValueError, match=r"the recipe itself makes none: `objective=ndcg` is of lists, .*form='ranking'"
    ):
        tfmtr.tune(tiny, tmp_path / "out", RATES, Recipe(form="ranking", share="none"), updates=4)


def test_a_space_is_read_with_its_kinds_and_parts_come_before_their_options(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        '"share.num_experts" = {low = 1, high = 4}\nl2 = {low = 0, high = 1}\nshare = ["ple", "mmoe"]\n'
        "units = [[8, 4], [8]]\ndropout = {low = 0.0, high = 0.4, step = 0.2}\n[task_weights]\nevent = [1.0, 2.0]\n"
    )
    space = Space.load(file)
    assert list(space.dimensions) == ["l2", "share", "units", "dropout", "share.num_experts", "task_weights.event"]
    assert space.dimensions["share.num_experts"].ends == (1, 4)
    assert space.dimensions["l2"].ends == (0.0, 1.0)  # whole ends, but the recipe's number is any
    assert Space.of(space.document()).document() == space.document()
    drawn = {"l2": 0.5, "share": "ple", "units": "[8]", "share.num_experts": 3, "task_weights.event": "2.0"}
    recipe = space.recipe(Recipe(epochs=3, patience=1), space.values(drawn), updates=7)
    assert (recipe.share, recipe.units, recipe.l2) == (("ple", {"num_experts": 3}), (8,), 0.5)
    assert (recipe.updates, recipe.patience_updates, recipe.task_weights) == (7, 7, {"event": 2.0})
    # Neither end early nor later than the others, whatever a batch is.
    assert [recipe.epochs_of(steps) for steps in (1, 4, 7)] == [recipe.patience_of(steps) for steps in (1, 4, 7)]


def test_of_a_large_space_each_pair_of_values_is_checked():
    values = {f"k{i}": ["a", "b"] for i in range(11)}
    assert MOST_COMBINATIONS < 2**11
    chosen = list(_combinations(values))
    assert len(chosen) < 300
    pairs = {(one, other) for row in chosen for one in row for other in row}
    assert len(pairs) == (11 * 2) ** 2 - 11 * 2


# The tries, without training.


@pytest.fixture
def quick(monkeypatch):
    """Makes a try a figure of its values; returns how it is found, which a test may change."""
    way = {
        "value": lambda recipe: -abs(math.log10(recipe.learning_rate) + 2),
        "seen": [],
        "before": lambda recipe: None,
    }

    def run_trial(recipe, data, folder, objective, report, *, of, is_judged_early):
        way["seen"].append(recipe)
        way["before"](recipe)
        folder.mkdir()
        (folder / "run.json").write_text("{}")
        assert data.test_windows == []
        way["now"] = recipe
        for rung in rungs_of(recipe.updates) if is_judged_early else ():
            report(objective(None, data.schema).value, rung)
        return Tried(objective(None, data.schema), recipe.updates)

    monkeypatch.setattr(search, "run_trial", run_trial)
    monkeypatch.setattr(search, "gc", types.SimpleNamespace(collect=lambda: None))
    monkeypatch.setattr(Objective, "_ndcg", lambda self, *_: Judged(way["value"](way["now"]), {}))
    return way


def test_the_same_seed_has_the_same_ledger_and_a_search_that_goes_on_is_the_unbroken_one(tiny, tmp_path, quick):
    whole = tfmtr.tune(tiny, tmp_path / "whole", SPACE, SMALL, updates=90, trials=14)
    for trials in (2, 9, 14):
        part = tfmtr.tune(tiny, tmp_path / "parts", SPACE, SMALL, updates=90, trials=trials)
        assert len(part.trials) == trials
    assert ledger(tmp_path / "parts") == ledger(tmp_path / "whole")
    assert (tmp_path / "parts/recipe.toml").read_bytes() == (tmp_path / "whole/recipe.toml").read_bytes()
    other = tfmtr.tune(tiny, tmp_path / "other", SPACE, SMALL, updates=90, trials=3, seed=1)
    assert [row["values"] for row in other.trials] != [row["values"] for row in whole.trials[:3]]
    assert len({row["values"]["learning_rate"] for row in whole.trials}) == 14  # none is drawn twice
    assert whole.value == max(row["value"] for row in whole.trials if row["value"] is not None)
    assert whole.recipe.learning_rate == whole.figures["best"]["values"]["learning_rate"]


def test_tries_that_are_behind_are_given_up_and_all_others_have_the_same_budget(tiny, tmp_path, quick):
    tuning = tfmtr.tune(tiny, tmp_path / "out", SPACE, SMALL, updates=90, trials=12)
    states = {state: [row for row in tuning.trials if row["state"] == state] for state in ("pruned", "complete")}
    assert len(states["pruned"]) >= 4
    assert {row["updates"] for row in states["complete"]} == {90}
    assert {row["updates"] for row in states["pruned"]} <= {10, 30}
    assert {tuple(row["on_the_way"]) for row in states["complete"]} == {("10", "30")}
    assert {(recipe.updates, recipe.patience_updates) for recipe in quick["seen"]} == {(90, 90)}
    # Who is given up was below the best third of those that had come to its rung.
    for row in states["pruned"]:
        rung = str(row["updates"])
        there = sorted(r["on_the_way"][rung] for r in tuning.trials[: row["number"] + 1] if rung in r["on_the_way"])
        assert row["on_the_way"][rung] < there[-max(len(there) // 3, 1)]
    all_of_them = tfmtr.tune(tiny, tmp_path / "all", SPACE, SMALL, updates=90, trials=6, prune=False)
    assert {row["state"] for row in all_of_them.trials} == {"complete"}
    assert all(row["on_the_way"] == {} for row in all_of_them.trials)


def test_what_fails_is_listed_with_its_reason_and_is_not_the_best(tiny, tmp_path, quick):
    def value(recipe):
        if len(quick["seen"]) % 3 == 1:
            raise RuntimeError(f"no\nmemory in {tmp_path}")
        return math.nan if len(quick["seen"]) % 3 == 2 else 0.5

    quick["value"] = value
    tuning = tfmtr.tune(tiny, tmp_path / "out", SPACE, SMALL, updates=1, trials=6)
    errors = [row["error"] for row in tuning.trials]
    found = [f"RuntimeError: no memory in {tmp_path}", "The objective must be finite. Received: ndcg=nan", None]
    assert errors == 2 * found
    assert [row["state"] for row in tuning.trials] == 2 * ["failed", "failed", "complete"]
    assert (tuning.figures["best"]["number"], tuning.recipe) == (2, quick["seen"][2])
    page = (tmp_path / "out/report.md").read_text()
    assert page.count("RuntimeError: no memory") == 2
    quick["value"] = lambda recipe: math.inf
    with pytest.raises(ValueError, match=r"2 that failed, the first one: The objective must be finite. .*ndcg=inf"):
        tfmtr.tune(tiny, tmp_path / "none", SPACE, SMALL, updates=1, trials=2)
    assert [row["state"] for row in ledger(tmp_path / "none")] == ["failed", "failed"]
    assert not (tmp_path / "none/recipe.toml").exists()


def test_values_that_were_tried_to_their_end_are_not_trained_twice(tiny, tmp_path, quick):
    tuning = tfmtr.tune(tiny, tmp_path / "out", TWO_RATES, SMALL, updates=9, trials=5, prune=False)
    assert len(quick["seen"]) == len({recipe.learning_rate for recipe in quick["seen"]}) == 2
    first = {row["values"]["learning_rate"]: row for row in tuning.trials if row["same_as"] is None}
    assert [row["updates"] for row in first.values()] == [9, 9]
    for row in tuning.trials:
        if row["same_as"] is not None:
            same = first[row["values"]["learning_rate"]]
            assert (row["same_as"], row["value"], row["updates"]) == (same["number"], same["value"], 0)
    assert tuning.figures["best"]["same_as"] is None


class Killed(BaseException):
    """What no `except Exception` sees."""


def test_a_try_whose_worker_was_ended_is_listed_and_tried_again(tiny, tmp_path, quick, monkeypatch):
    def end(recipe):
        if len(quick["seen"]) == 3:
            raise Killed

    quick["before"] = end
    with monkeypatch.context() as patched:
        patched.setattr(tries.Tries, "lose", lambda *_: None)  # a kill says nothing
        with pytest.raises(Killed):
            tfmtr.tune(tiny, tmp_path / "out", SPACE, SMALL, updates=1, trials=4)
    assert [row["state"] for row in ledger(tmp_path / "out")] == ["complete", "complete", "running"]
    tuning = tfmtr.tune(None, tmp_path / "out")
    assert [row["state"] for row in tuning.trials] == ["complete", "complete", "failed", "complete", "complete"]
    assert (tuning.trials[2]["error"], tuning.trials[3]["again_of"]) == (LOST, 2)
    assert tuning.trials[2]["values"] == tuning.trials[3]["values"]
    # Ctrl-C says so at once; values that end their process twice are given up.
    quick["before"] = lambda recipe: (_ for _ in ()).throw(Killed)
    for states in (["failed", "waiting"], ["failed", "failed"]):
        with pytest.raises(Killed):
            tfmtr.tune(tiny, tmp_path / "interrupted", SPACE, SMALL, updates=1, trials=1)
        assert [row["state"] for row in ledger(tmp_path / "interrupted")] == states
    with pytest.raises(ValueError, match="2 that failed, the first one: lost: the worker that ran it was ended"):
        tfmtr.tune(tiny, tmp_path / "interrupted", trials=1)


def test_a_worker_that_is_killed_leaves_nothing_but_its_try(tiny, tmp_path, quick):
    code = (
        "import os, signal, sys, tfmtr; from tfmtr.tuning import search\n"
        "search.run_trial = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"tfmtr.tune({str(tiny)!r}, {str(tmp_path / 'out')!r}, {SPACE!r}, "
        "tfmtr.Recipe(units=(8, 4), share='none'), updates=1, trials=1)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=tmp_path)
    assert ended.returncode == -9, ended.stderr
    assert any(path.name.startswith(".worker-") for path in (tmp_path / "out").iterdir())
    tuning = tfmtr.tune(tiny, tmp_path / "out")
    assert [(row["state"], row["again_of"]) for row in tuning.trials] == [("failed", None), ("complete", 0)]
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".worker-")]


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/tries.db"])
def test_two_workers_share_the_tries_of_one_storage(tiny, tmp_path, quick, storage):
    storage, workers, errors = storage and storage.format(tmp_path), {}, []
    both = threading.Barrier(2, timeout=60)

    def value(recipe):
        if workers.setdefault(threading.get_ident(), 0) == 0:
            both.wait()  # both are at work on their first try
        workers[threading.get_ident()] += 1
        return recipe.learning_rate

    def work():
        try:
            tfmtr.tune(tiny, tmp_path / "out", SPACE, SMALL, updates=1, trials=7, storage=storage)
        except BaseException as error:
            errors.append(error)

    quick["before"], quick["value"] = value, lambda recipe: 0.5
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    rows = ledger(tmp_path / "out")
    assert [row["number"] for row in rows] == list(range(7))
    assert {row["state"] for row in rows} == {"complete"}
    assert len(workers) == 2
    assert sum(workers.values()) == 7
    assert len({row["values"]["learning_rate"] for row in rows}) == 7  # no worker draws what another one has drawn
    assert (tmp_path / "tries.db").exists() == (storage is not None) != (tmp_path / "out" / JOURNAL).exists()


def test_a_folder_of_another_search_is_refused_by_what_differs(tiny, tiny_two, tmp_path, quick):
    out = tmp_path / "out"
    tfmtr.tune(tiny, out, SPACE, SMALL, updates=3, trials=1)
    before = {path: path.read_bytes() for path in out.iterdir()}
    other = shutil.copytree(tiny, tmp_path / "data")
    report = json.loads((other / "prepare.json").read_text())
    (other / "prepare.json").write_text(json.dumps(report | {"fingerprint": "cd" * 32}))
    for arguments, words in (
        ((tiny, out, RATES), "space"),
        ((other, out), "data"),
        ((tiny, out, SPACE, Recipe(units=(8,))), "recipe"),
    ):
        with pytest.raises(ValueError, match=f"must be new, or hold the same search .* whose {words} differ"):
            tfmtr.tune(*arguments, trials=2)
    for name, value in {"objective": "loss", "updates": 4, "seed": 1, "prune": False, "storage": "x.log"}.items():
        with pytest.raises(ValueError, match=f"whose {name} differ"):
            tfmtr.tune(tiny, out, **{name: value})
    with pytest.raises(ValueError, match="whose objective and updates differ"):
        tfmtr.tune(tiny, out, objective="loss", updates=4)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert len(tfmtr.tune(shutil.copytree(tiny, tmp_path / "moved"), out, trials=2).trials) == 2  # the same data
    for make, mark in ((training.train, "search.json"), (tfmtr.tune, "prepare.json")):
        with pytest.raises(ValueError, match=rf"`out` must be a folder of its own.* made \(it has {mark}\)"):
            make(tiny, out if mark == "search.json" else tiny)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "ndgc"}, r"`objective` must be one of .* Did you mean 'ndcg'\?"),
        ({"updates": 0}, "`updates` must be an integer, from 1"),
        ({"updates": None}, "`updates` must say how many updates each try has"),
        ({"trials": 0}, "`trials` must be an integer, 1 or more"),
        ({"seconds": 0}, "`seconds` must be a finite number, greater than 0"),
        ({"seed": -1}, "`seed` must be an integer"),
        ({"prune": 1}, "`prune` must be True or False"),
        ({"keep": 1}, "`keep` must be True or False"),
        ({"storage": 3}, "`storage` must be a URL or a path"),
        ({"storage": "nothing://me:secret@host/x"}, r"`storage` must be a database .* Received: 'nothing://me@host/x'"),
        ({"recipe": "recipe.toml"}, "`recipe` must be a `Recipe`"),
        ({"space": None}, "`space` must say what may be chosen"),
        ({"data": None}, "`data` must be a directory made by `tfmtr prepare`"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(tiny, tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as refused:
        tfmtr.tune(**{"data": tiny, "out": tmp_path / "out", "space": RATES, "updates": 4, **options})
    assert "secret" not in str(refused.value)


def test_without_optuna_the_extra_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"`tfmtr tune` needs Optuna: pip install 'tfmtr\[tune\]'"):
        tfmtr.tune(tiny, tmp_path / "out", RATES, updates=1)
    assert not (tmp_path / "out").exists()


def test_no_try_begins_after_the_time_and_the_runs_are_gone_unless_they_are_kept(tiny, tmp_path, quick):
    tuning = tfmtr.tune(tiny, tmp_path / "out", SPACE, SMALL, updates=1, seconds=1e-9)
    assert (tuning.trials, tuning.value, tuning.document["trials"]) == ([], None, None)
    with pytest.raises(ValueError, match="must have a complete try"):
        tuning.recipe  # noqa: B018
    quick["value"] = lambda recipe: 0.5 if recipe.batch_size == 256 else math.nan
    tfmtr.tune(tiny, tmp_path / "out", trials=5)
    assert not (tmp_path / "out/trials").exists()
    tfmtr.tune(tiny, tmp_path / "out", trials=8, keep=True)
    assert sorted(path.name for path in (tmp_path / "out/trials").iterdir()) == ["5", "6", "7"]
    # None was in the next one's way.
    errors = {row["error"] for row in ledger(tmp_path / "out")}
    assert errors <= {None, "The objective must be finite. Received: ndcg=nan"}


def test_a_line_that_was_cut_short_does_not_spoil_the_journal(tiny, tmp_path, quick):
    tfmtr.tune(tiny, tmp_path / "out", SPACE, SMALL, updates=1, trials=2)
    with (tmp_path / "out" / JOURNAL).open("a") as journal:
        journal.write('{"op_code": 4, "wor')
    assert len(tfmtr.tune(tiny, tmp_path / "out", trials=4).trials) == 4
    assert len(tfmtr.tune(tiny, tmp_path / "out", trials=5).trials) == 5


def test_the_command_goes_on_with_what_it_began(tiny, tmp_path, quick):
    def run(*arguments):
        result = CliRunner().invoke(app, ["tune", *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    (tmp_path / "space.toml").write_text('l2 = [0.0, 1e-4]\n"share.num_experts" = {low = 1, high = 3}\n')
    (tmp_path / "recipe.toml").write_text('share = "mmoe"\nlearning_rate = 0.02\n')
    given = ("--data", tiny, "--space", tmp_path / "space.toml", "--recipe", tmp_path / "recipe.toml")
    out = tmp_path / "out"
    output = run(*given, "--set", "units=[8, 4]", "--updates", 9, "--trials", 2, "--no-prune", "--out", out)
    assert "share.num_experts" in output
    assert f"recipe: {out / 'recipe.toml'}" in output.replace("\n", "")
    assert {(r.units, r.learning_rate, r.share[0]) for r in quick["seen"]} == {((8, 4), 0.02, "mmoe")}
    run("--out", out, "--trials", 3)
    assert [row["state"] for row in Tuning(out).trials] == ["complete"] * 3
    assert (
        Tuning(Tuning(out)).table() in output.replace("2 complete", "3 complete") or "3 complete" in Tuning(out).table()
    )


def test_a_search_of_before_the_paper_s_form_was_the_default_keeps_its_normalisation(tmp_path):
    facts = {"study": "s", "fingerprint": "a", "forgotten": 0, "objective": "ndcg", "updates": 1, "seed": 0}
    before = {**facts, "prune": True, "storage": None, "space": TWO_RATES, "recipe": {"share": "ple"}}
    assert search._search_of(before).recipe == {"share": {"name": "ple", "normalize": True}}
    assert search._search_of(before | {"format": 2}).recipe == {"share": "ple"}
    choices = before | {"space": {"share": ["none", {"name": "ple", "num_experts": 2}]}}
    with pytest.raises(ValueError, match=r"of format 2 to go on with a choice of `share`: .* Received: format 1"):
        search._search_of(choices)
    assert search._search_of(choices | {"format": 2}).space == choices["space"]
    (tmp_path / "recipe.toml").write_text('share = "ple"\n')
    for document, share in ((before, ("ple", {"normalize": True})), (before | {"format": 2}, "ple")):
        (tmp_path / "search.json").write_text(json.dumps(document))
        assert Tuning(tmp_path).recipe.share == share


# What matters.


def test_the_key_that_decides_the_figure_matters_most_by_both_methods(monkeypatch):
    space = Space.of({"l2": {"low": 0.0, "high": 1.0}, "dropout": {"low": 0.0, "high": 0.5}, "literal": [True, False]})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    def drawn(trial):
        return [trial._suggest(key, one) for key, one in space.distributions.items()][0]  # noqa: RUF015 - draws all

    study.optimize(drawn, n_trials=30)
    found = importances(study, space)
    assert (found["method"], next(iter(found["values"]))) == ("fanova", "l2")
    assert sum(found["values"].values()) == pytest.approx(1)
    plain = plain_importances(study.trials, space)
    assert plain["l2"] > 0.8
    monkeypatch.setattr(optuna.importance, "get_param_importances", lambda *a, **k: 1 / 0)
    assert importances(study, space)["method"] == "plain"
    assert importances(study, space)["values"] == pytest.approx(plain)
    few = optuna.create_study()
    few.optimize(lambda trial: 1.0, n_trials=3)
    assert importances(few, space) == {"reason": "3 complete tries, 4 needed"}


# With training.


@pytest.fixture(scope="module")
def real(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("tune") / "out"
    with untraced():
        return tfmtr.tune(tiny, out, TWO_RATES, SMALL, updates=9, trials=2, keep=True)


def poisoned(tiny, folder):
    """A copy of the data whose test windows are gone or cannot be read, or are nonsense."""
    shutil.copytree(tiny, folder)
    for path in folder.glob("examples/split=*/sampling=*/window=*/*.parquet"):
        if "split=test" in str(path):
            path.unlink()
        elif int(path.parent.name.partition("=")[2]) > 0:
            path.write_bytes(b"no Parquet")
    for name in ("events.parquet", "availability.parquet"):
        table = pq.read_table(folder / name)
        known = table.filter(pc.less_equal(table["window"], 0))
        later = table.filter(pc.greater(table["window"], 0))
        later = later.set_column(
            later.column_names.index("title"), "title", pa.array(["t0"] * len(later), later["title"].type)
        )
        assert len(later)
        pq.write_table(pa.concat_tables([later, known] if name[0] == "a" else [known, later]), folder / name)
    return folder


def test_test_windows_are_never_read(tiny, real, tmp_path, eager):
    data = poisoned(tiny, tmp_path / "data")
    tuning = tfmtr.tune(data, tmp_path / "out", TWO_RATES, SMALL, updates=9, trials=2)
    assert ledger(tmp_path / "out") == ledger(real)
    assert (tmp_path / "out/recipe.toml").read_bytes() == (real / "recipe.toml").read_bytes()
    assert tuning.figures["slices"] == real.figures["slices"]
    view = training_view(Dataset(tiny), tmp_path / "view")
    assert (view.test_windows, view.next_window) == ([], 1)
    windows = {int(path.name.partition("=")[2]) for path in view.path.glob("examples/*/*/*")}
    assert (windows, [path for path in view.path.glob("examples/*") if "test" in path.name]) == ({0}, [])
    for name in ("events.parquet", "availability.parquet"):
        assert set(pq.read_table(view / name)["window"].to_pylist()) == {0}
    for split in ("train", "validation", "test"):
        assert view.examples(split, windows=[1, 2, 3]) == []
    assert pq.read_schema(view / "users.parquet").names == ["user", "territory"]


def test_the_best_recipe_trains_and_is_the_model_that_was_judged(tiny, real, tmp_path, eager):
    first = real.trials[0]
    assert (first["state"], first["updates"], list(first["on_the_way"])) == ("complete", 9, ["1", "3"])
    assert real.warnings == Objective("ndcg", training_view(Dataset(tiny), tmp_path / "view")).warnings
    assert real.warnings[0].startswith("20 lists of validation users judge the tries, and 200 are needed")
    # Judged on the way, and not in training: neither changes anything.
    run = tfmtr.train(tiny, tmp_path / "run", Recipe.load(real / "recipe.toml"), verbose=0)
    kept = real / f"trials/{real.figures['best']['number']}"
    with np.load(weights_of(run, 1)) as trained, np.load(weights_of(kept, 1)) as tried:
        assert set(trained) == set(tried)
        names = [name for name in trained if not name.endswith("_paths")]  # whose numbers are the process's
        assert [name for name in names if not np.array_equal(trained[name], tried[name])] == []
    assert (Run(kept).windows, Run(kept).recipe, Run(kept).data) == ([1], run.recipe, Dataset(tiny))
    assert training.run_document.finished_windows(kept, Dataset(tiny)) == [1]  # `train` goes on with the next window


def test_figures_are_those_of_the_validation_rows(tiny, real, tmp_path, eager):
    view = training_view(Dataset(tiny), tmp_path / "view")
    model, schema = Run(real / "trials/0").load(window=1), view.schema
    found = Objective("ndcg", view)(model, schema)
    assert found.value == pytest.approx(real.trials[0]["value"], abs=1e-12)
    assert sum(cell["count"] for cell in found.slices.values()) == 20
    from sklearn.metrics import average_precision_score, log_loss

    from tfmtr.evaluation.evaluate import predict

    columns, _, _ = predict(model, view.examples("validation"), schema, view)
    labels, scores = columns["event"], columns["event score"]
    assert Objective("pr_auc", view)(model, schema).value == pytest.approx(average_precision_score(labels, scores))
    assert Objective("loss", view)(model, schema).value == pytest.approx(log_loss(labels, scores), rel=1e-4)
    assert set(Objective("pr_auc", view)(model, schema).slices) == {"DE", "FR", "PL", "CZ", "XX"}

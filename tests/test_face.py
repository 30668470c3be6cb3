"""The public names, as the README's script uses them."""

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.untraced import untraced

import tfmtr
from tfmtr.training.run_document import Job, open_run

README = Path(__file__).parents[1] / "README.md"


def test_importing_the_package_imports_no_tensorflow():
    code = "import sys, tfmtr; dir(tfmtr); tfmtr.Recipe, tfmtr.Logs; print({'tensorflow', 'keras'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_no_public_name_is_a_module_s_and_all_can_be_had():
    for name in tfmtr.__all__:
        value = getattr(tfmtr, name)
        assert inspect.ismodule(value) == (name == "models"), name
    modules = {module.name for module in pkgutil.iter_modules(tfmtr.__path__)}
    assert modules & set(tfmtr.__all__) == {"models"}
    assert set(tfmtr.__all__) <= set(dir(tfmtr))
    with pytest.raises(AttributeError, match="module 'tfmtr' has no attribute 'nothing'"):
        tfmtr.nothing  # noqa: B018


def test_the_pages_tell_of_every_public_name():
    text = "".join(page.read_text(encoding="utf-8") for page in (README, README.parent / "docs" / "python.md"))
    assert [name for name in tfmtr.__all__ if f"tfmtr.{name}" not in text] == []


def test_what_type_checkers_see_is_what_there_is():
    tree = ast.parse(Path(tfmtr.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {**tfmtr._HOMES, "models": "tfmtr"}
    assert sorted(seen) == tfmtr.__all__


@pytest.mark.parametrize("name", [name for name in tfmtr.__all__ if name != "models"])
def test_every_public_argument_is_typed(name):
    value = getattr(tfmtr, name)
    functions = [value] if inspect.isfunction(value) else [
        member for key, member in vars(value).items() if inspect.isfunction(member) and not key.startswith("_")
    ] + ([value.__init__] if "__init__" in vars(value) else [])  # fmt: skip
    for function in functions:
        untyped = [
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        assert untyped == [], (function, untyped)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A log in the columns of the README's script."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("logs")
    users = pd.DataFrame({"uid": [f"u{i}" for i in range(300)], "market": rng.choice(["DE", "FR"], 300)})
    users["age"] = rng.integers(18, 70, 300)
    titles = pd.DataFrame({"asin": [f"t{i}" for i in range(40)], "text": [f"film {i} {i % 2}" for i in range(40)]})
    days = pd.to_timedelta(rng.integers(0, 28 * 86_400, 4000), unit="s")
    events = pd.DataFrame({"uid": rng.choice(users.uid, 4000), "asin": rng.choice(titles.asin, 4000)})
    events = events.assign(ts=pd.Timestamp("2025-01-01") + days)
    (folder / "events").mkdir()
    for i in range(2):
        events[i::2].to_parquet(folder / f"events/{i}.parquet", index=False)
    users.to_parquet(folder / "users.parquet", index=False)
    titles.to_parquet(folder / "titles.parquet", index=False)
    return folder


def test_each_step_takes_what_the_one_before_returned(tables, tmp_path):
    columns = {"user": "uid", "title": "asin", "territory": "market", "time": "ts"}
    logs = tfmtr.Logs(
        events=tables / "events/", users=tables / "users.parquet", titles=tables / "titles.parquet", columns=columns
    )
    data = tfmtr.prepare(logs, tmp_path / "data")
    recipe = tfmtr.Recipe(share=("ple", {"num_experts": 2}), head="parallel", units=(16, 8), epochs=1, batch_size=512)
    with untraced():
        run = tfmtr.train(data, tmp_path / "ple", recipe)
    assert run.recipe == recipe
    assert run.data == data
    assert run.model is run.model
    with untraced():
        evaluation = tfmtr.evaluate(run, baselines=["popularity"])
    text = evaluation.table()
    assert "popularity" in text
    assert f"{evaluation.ndcg:.4f}" in text
    assert run.evaluation == evaluation
    assert evaluation.ratios["popularity"]["users"] > 20
    assert "before" in tfmtr.calibrate(run).table()
    version = tfmtr.export(run, tmp_path / "saved_models/ple")
    assert version.number == 1
    assert version.facts["run_id"] == run.run_id
    page = tfmtr.report(run, tmp_path / "page.html")
    assert page.is_file()
    with tfmtr.serve(version) as server:
        answer = server.recommend({"territory": "DE", "age": 25}, k=5)
        assert len(answer.titles) == 5
        assert "cold_user" in answer.fallback
        assert str(answer).count("\n") > 5
        assert not set(server.recommend({"territory": "DE"}, k=5, seen=answer.titles).titles) & set(answer.titles)
        with pytest.raises(ValueError, match=r"`features` must be one of .*Did you mean 'age'\?"):
            server.recommend({"agee": 3})
    # Paths do as well, and folders of the same path are equal.
    assert tfmtr.Run(str(tmp_path / "ple")) == run
    assert tfmtr.Dataset(tfmtr.Dataset(str(tmp_path / "data"))) == data
    assert tfmtr.Version(version.path) == version


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("Run", "must be a directory made by `tfmtr train`: it has no run.json"),
        ("Dataset", "must be a directory made by `tfmtr prepare`: it has no prepare.json"),
        ("Version", "must be a version made by `tfmtr export`, `<model>/<number>`: it has no assets.extra/tfmtr.json"),
    ],
)
def test_what_is_no_such_folder_is_refused(what, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        getattr(tfmtr, what)(tmp_path)


@pytest.mark.parametrize(
    ("what", "file"), [("Run", "run.json"), ("Dataset", "prepare.json"), ("Version", "assets.extra/tfmtr.json")]
)
def test_a_folder_of_a_newer_version_is_refused(what, file, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"must be of format [23] or older.* make it anew with .*Received: format 99"):
        getattr(tfmtr, what)(tmp_path)


def test_evaluations_can_be_in_a_set():
    evaluations = {tfmtr.Evaluation({"k": 10}, Path("run")), tfmtr.Evaluation({"k": 5}, Path("run"))}
    assert len(evaluations) == 2


ODD = (3, 2.5, True, b"a", {}, [3], object(), float("nan"))


def refused(argument, call, values, *more):
    """Cases `(argument, call, value)` of values that the argument cannot have."""
    return [(argument, call, value) for value in (*values, *more)]


SCENARIO = tfmtr.Scenario(["land"], {("DE",): "west"})
SCHEMA = tfmtr.Schema([tfmtr.Feature("age", "user", "number")], [tfmtr.Task("click")], SCENARIO)
LOGS = {"events": "e", "columns": {"user": "u", "title": "t", "time": "s"}}
NUMBERS = (None, "3", b"3", [3], float("nan"))


@pytest.mark.parametrize(
    ("argument", "call", "value"),
    [
        *refused("name", lambda v: tfmtr.Feature(v, "user", "number"), ODD, None, ""),
        *refused("vocabulary", lambda v: tfmtr.Feature("a", "user", "id", v), (None, 3, "DE", b"a", [1], [None])),
        *refused("mean", lambda v: tfmtr.Feature("a", "user", "number", mean=v), NUMBERS),
        *refused("std", lambda v: tfmtr.Feature("a", "user", "number", std=v), NUMBERS, 0.0),
        *refused("width", lambda v: tfmtr.Feature("a", "user", "string", width=v), ("3", 2.5, True, -1)),
        *refused("name", lambda v: tfmtr.Task(v), ODD, None, ""),
        *refused("column", lambda v: tfmtr.Task("a", column=v), ODD),
        *refused("after", lambda v: tfmtr.Task("a", after=v), ODD),
        *refused("weight", lambda v: tfmtr.Task("a", weight=v), NUMBERS, -1.0),
        *refused("mean", lambda v: tfmtr.Task("a", mean=v), NUMBERS),
        *refused("columns", lambda v: tfmtr.Scenario(v, {}), (None, 3, "land", b"a", [3])),
        *refused("groups", lambda v: tfmtr.Scenario(["a"], v), (None, 3, "x", [("a", "b")], {("a",): 3}, {3: "a"})),
        *refused("groups", lambda v: tfmtr.Scenario(["a", "b"], v), ({"DE": "west"}, {("DE", 3): "west"})),
        *refused("features", lambda v: tfmtr.Schema(v, [tfmtr.Task("a")], SCENARIO), (None, 3, "a", ["a"])),
        *refused("tasks", lambda v: tfmtr.Schema([], v, SCENARIO), (None, 3, "a", ["a"])),
        *refused("scenario", lambda v: tfmtr.Schema([], [tfmtr.Task("a")], v), (None, 3, ["land"])),
        *refused("slices", lambda v: tfmtr.Schema([], [tfmtr.Task("a")], SCENARIO, v), (None, 3, "land", [3])),
        *refused("path", lambda v: tfmtr.Schema.load(v), ODD, None),
        *refused("length", lambda v: tfmtr.Calendar(v), (3, "1 day", True)),
        *refused("num_train", lambda v: tfmtr.Calendar(num_train=v), ("3", 2.5, True)),
        *refused("end", lambda v: tfmtr.Calendar(end=v), ("2025-01-01", 3)),
        *refused("warm_up", lambda v: tfmtr.Calendar(warm_up=v), NUMBERS),
        *refused("events", lambda v: tfmtr.Logs(**LOGS | {"events": v}), ODD, None),
        *refused("users", lambda v: tfmtr.Logs(**LOGS, users=v), ODD),
        *refused("columns", lambda v: tfmtr.Logs("e", columns=v), (None, 3, "user", ["user"], {"user": 3})),
        *refused("tasks", lambda v: tfmtr.Logs(**LOGS, tasks=v), (None, 3, "like", ["like"], {"like": 3})),
        *refused("training", lambda v: tfmtr.Logs(**LOGS, training=v), (None, "a", {"a": 3})),
        *refused("groups", lambda v: tfmtr.Logs(**LOGS, groups=v), (3, "a", {"DE": 3})),
        *refused("calendar", lambda v: tfmtr.Logs(**LOGS, calendar=v), (None, 3, {})),
        *refused("has_times", lambda v: tfmtr.Logs(**LOGS, has_times=v), (None, 1, "no")),
        *refused("split_column", lambda v: tfmtr.Logs(**LOGS, split_column=v), ODD),
        *refused("logs", lambda v: tfmtr.prepare(v, "out"), ODD, None, "events.parquet"),
        *refused("out", lambda v: tfmtr.prepare(tfmtr.Logs(**LOGS), v), ODD, None),
        *refused("address", lambda v: tfmtr.Client(v, "m"), ODD, None, "", "localhost"),
        *refused("model", lambda v: tfmtr.Client("localhost:1", v), ODD, None, ""),
        *refused("version", lambda v: tfmtr.Client("localhost:1", "m", version=v), ("1", 1.5, True, -1)),
        *refused("timeout", lambda v: tfmtr.Client("localhost:1", "m", timeout=v), NUMBERS, 0),
        *refused("out", lambda v: tfmtr.report(["run"], v), ODD, None),
        *refused("runs", lambda v: tfmtr.report(v, "out.html"), (None, 3, object())),
        *refused("share", lambda v: tfmtr.models.ranking(SCHEMA, share=v), (lambda: 0, lambda x: 0)),
        *refused("head", lambda v: tfmtr.models.ranking(SCHEMA, head=v), (lambda: 0,)),
    ],
)
def test_an_argument_of_another_kind_is_named(argument, call, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"`{argument}`.* must ") as error:
        call(value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", ["alpha", "seed", "test_fraction", "random_fraction", "num_groups"])
@pytest.mark.parametrize("value", ["3", b"3", [3]])
def test_options_of_prepare_are_numbers(number, value, tmp_path):
    with pytest.raises(ValueError, match=f"`{number}` must "):
        tfmtr.prepare(tfmtr.Logs(**LOGS), tmp_path / "out", **{number: value})


@pytest.mark.parametrize(
    ("argument", "changes", "values"),
    [
        ("local_share", "evaluate", NUMBERS),
        ("k", "evaluate", (*NUMBERS, True, 0)),
        ("recall_users", "evaluate", (*NUMBERS, 0)),
        ("baselines", "evaluate", (3, "ease", [3])),
        ("metrics", "evaluate", (None, 3, "a:b", [3])),
        ("min_count", "calibrate", (*NUMBERS, 0)),
        ("signatures", "export", (None, 3, "a:b")),
        ("out", "export", (None, 3, b"a")),
        ("out", "train", (None, 3, b"a")),
    ],
)
def test_options_of_steps_are_of_their_kind(tiny, unfinished, argument, changes, values):
    for value in values:
        with pytest.raises(ValueError, match=f"`{argument}` must "):
            {
                "evaluate": lambda **one: tfmtr.evaluate(unfinished, **one),
                "calibrate": lambda **one: tfmtr.calibrate(unfinished, **one),
                "export": lambda **one: tfmtr.export(unfinished, **{"out": "v"} | one),
                "train": lambda **one: tfmtr.train(tiny, **one),
            }[changes](**{argument: value})


@pytest.fixture(scope="module")
def unfinished(tiny, tmp_path_factory):
    """A run directory without weights."""
    data, out = tfmtr.Dataset(tiny), tmp_path_factory.mktemp("run") / "run"
    open_run(None, Job(out, data, tfmtr.Recipe(), data.schema, "float32"))
    return out


def test_a_path_may_begin_at_home(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny.parent))
    assert tfmtr.Dataset(f"~/{tiny.name}") == tfmtr.Dataset(tiny)
    assert tfmtr.Logs(**LOGS | {"events": "~/events"}).events == tiny.parent / "events"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tiny.parent)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_text("")
    with pytest.raises(ValueError, match=f"`out` must be a new folder .*{tmp_path}/there"):
        tfmtr.prepare(tfmtr.Logs(**LOGS), "~/there")


def test_a_group_of_one_column_may_be_named_by_its_value():
    assert tfmtr.Scenario(["land"], {"DE": "west", ("PL",): "east"}) == tfmtr.Scenario(
        ["land"], {("DE",): "west", ("PL",): "east"}
    )

"""The command from logs to served answers, and what it says to wrong input."""

import dataclasses
import datetime
import gc
import inspect
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.few_signatures import keep_signatures
from helpers.html_page import Page
from helpers.untraced import untraced
from typer.testing import CliRunner

from tfmtr import cli, inputs, training
from tfmtr.calibration import calibrate
from tfmtr.cli import app
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.simulator import simulator
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.index_lists import ListCase, ranking_of
from tfmtr.evaluation.past import Past
from tfmtr.operations.day import daily
from tfmtr.reporting.page import report
from tfmtr.retrieval.index import build_index
from tfmtr.run import Run
from tfmtr.serving.recommendations import recommend, user_inputs
from tfmtr.serving.request_counts import METRICS
from tfmtr.serving.server import Server
from tfmtr.tuning.search import tune

tf = pytest.importorskip("tensorflow")


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared simulator, a run on it, and its export, all made by the command."""
    folder = tmp_path_factory.mktemp("cli")
    prepare = ("prepare", "simulator", "--num-users", 2_000, "--num-titles", 80, "--num-territories", 8)
    output = run(*prepare, "--out", folder / "data", "--num-groups", 2)
    assert "overall" in output
    train = (
        "train",
        "--data",
        folder / "data",
        "--epochs",
        1,
        "--units",
        "32,16",
        "--batch-size",
        4096,
        "--no-listwise",
    )
    with untraced():
        run(*train, "--out", folder / "run", "--share", "territory_branches", "--head", "parallel")
    run("export", folder / "run", "--titles", folder / "data", "--out", folder / "models")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with Server(folder / "models", model_name="two_tower", port=0) as server:
        yield server


def test_importing_and_help_bring_no_tensorflow():
    code = "import sys, tfmtr, tfmtr.cli; assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    code += "sys.argv = ['tfmtr', '--help']; from tfmtr.cli import main\ntry: main()\nfinally: "
    code += "assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("option", ["--epochs=0", "--late-days=-1", "--max-drop=0", "--signature=no.such:thing"])
def test_a_service_is_not_started_for_a_day_with_a_wrong_option(option, tmp_path, monkeypatch):
    monkeypatch.setattr("tfmtr.operations.service.Run", None)  # what is asked next
    day = ["daily", "--service", str(tmp_path / "s"), "--day", "2025-02-17", "--start", str(tmp_path / "run"), option]
    refused = CliRunner().invoke(app, day)
    assert f"`{option[2:].partition('=')[0].replace('-', '_')}" in str(refused.exception)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "command",
    [
        *([], ["prepare"], ["prepare", "events"], ["prepare", "movielens"], ["prepare", "online-retail"]),
        *(["prepare", "simulator"], ["train"], ["evaluate"], ["calibrate"], ["export"], ["serve"], ["recommend"]),
        *(["tune"], ["index"], ["daily"], ["rollback"], ["forget"], ["report"], ["prepare", "xmarket"]),
    ],
)
def test_every_level_has_help(command):
    assert "Usage: " in run(*command, "--help")


def test_the_command_s_defaults_are_those_of_the_functions():
    """They are written down twice, because `--help` must not import TensorFlow."""
    pairs = [(cli.prepare_simulator, prepare), (cli.prepare_simulator, simulator), (cli.calibrate, calibrate)]
    pairs += [(cli.daily, daily), (cli.report, report), (cli.tune, tune)]
    for command, function in [*pairs, (cli.evaluate, evaluate), (cli.recommend, recommend)]:
        ours, theirs = (inspect.signature(f).parameters for f in (command, function))
        empty = inspect.Parameter.empty
        common = [n for n in ours.keys() & theirs.keys() if empty not in (ours[n].default, theirs[n].default)]
        assert common
        for name in set(common) - {"seed", "units"}:
            own = ours[name].default
            assert (str(own) if isinstance(own, Path) else own) == theirs[name].default, (function.__name__, name)


def test_the_options_of_train_are_the_recipe_s_fields():
    """None of them has a value of its own: what is not typed is the recipe file's, or the recipe's default."""
    parameters = inspect.signature(cli.train).parameters
    fields = {field.name for field in dataclasses.fields(training.Recipe)}
    assert set(parameters) == fields | {"data", "out", "recipe", "changes", "strategy"}
    assert all(parameters[name].default is None for name in fields)
    output = " ".join(run("train", "--help").split())
    assert "Rows of one step. [default: 8192]" in output
    assert (
        "--upsample / --no-upsample Whether the disjoint set of active users is trained on too. [default: --ups"
        in output
    )


def test_a_recipe_file_options_and_changes_come_in_this_order(tiny, tmp_path, eager):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('epochs = 3\nbatch_size = 7000\nl2 = 1e-5\n[share]\nname = "ple"\nnum_experts = 3\n')
    given = ("--epochs", 2, "--units", "8,4", "--batch-size", 6000, "--task-weights", "event=2")
    changes = ("--set", "epochs=1", "--set", "share.num_experts=2", "--no-listwise")
    run("train", "--data", tiny, "--recipe", recipe, *given, *changes, "--out", tmp_path / "run")
    expected = {"epochs": 1, "batch_size": 6000, "l2": 1e-5, "units": (8, 4), "task_weights": {"event": 2.0}}
    recipe = training.Recipe(share=("ple", {"num_experts": 2}), listwise=False, **expected)
    assert Run(tmp_path / "run").recipe == recipe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "share.num_expert=4", "--share", "ple"], "Did you mean 'num_experts'?"),
        (["--set", "balance.alpha=4"], "`--balance` must be there before it has options: `--set balance=...`"),
        (
            ["--set", "share=ple", "--set", "share=mmoe"],
            "`--set` must name each key once, and a part before its options.",
        ),
        (["--set", "batch_size=x"], "`--set batch_size` must be an integer"),
        (["--task-weights", "event=nan"], "`--task-weights event` must be a finite number"),
        (["--share", "{{num_experts=4}}"], "`--share` must have the key `name` beside its options."),
        (["--set", "nothing=4"], "A recipe must have keys of"),
        (["--set", "share"], "`--set` must be key=value"),
        (["--task-weights", "event=x"], "`--task-weights` must be task=number pairs. Received: 'event=x'"),
        (["--task-weights", "evnt=2"], "`--task-weights` must be one of ['event']. Did you mean 'event'?"),
        (
            ["--row-weights", "share"],
            "`--row-weights` must be a training-only number, and the data have none: name its column",
        ),
        (["--recipe", "{tmp}/none.toml"], "`--recipe` must be a TOML file that can be read. Received: {tmp}/none.toml"),
        (["--share", "no.module:part"], "`--share` must be the import path of a function"),
        (["--form", "graph"], "`--form` must be one of ['two_tower', 'ranking']: graph is not built yet."),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line_and_nothing_is_written(
    tiny, tmp_path, arguments, message, monkeypatch, capsys
):
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    words = ["tfmtr", "train", "--data", str(tiny), "--out", str(tmp_path / "run"), *arguments]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    text = capsys.readouterr().err
    assert message.format(tmp=tmp_path) in text
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_parts_with_options_are_tables_and_what_comes_last_counts(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(training, "train", lambda data, workdir, recipe: trained.append(recipe))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('balance = "pcgrad"\nprecision = "mixed_bfloat16"\nl2 = 0.1\n')
    given = ("--share", '{name="ple", num_experts=4}', "--schedule", '{name="cosine_decay", decay_steps=50}')
    given += ("--balance", "none", "--precision", "none", "--head", "esmm", "--groups", '{DE="a"}')
    changes = ("--set", "head=parallel", "--set", "share.num_experts=2")
    run("train", "--data", tmp_path, "--out", tmp_path, "--recipe", recipe, *given, *changes)
    cosine = ("cosine_decay", {"decay_steps": 50})
    assert trained == [training.Recipe(share=("ple", {"num_experts": 2}), schedule=cosine, l2=0.1, groups={"DE": "a"})]
    run("train", "--data", tmp_path, "--out", tmp_path, "--share", "mmoe", *("--set", "share=ple"), *changes[2:])
    assert trained[1] == training.Recipe(share=("ple", {"num_experts": 2}))
    text = " ".join(run("train", "--help").split())
    assert "--share '{name=\"ple\", num_experts=4}'" in text


@pytest.mark.parametrize("name", ["nope:x", "tfmtr.checks:check_integer"])
def test_a_data_set_that_is_none_is_one_line_of_help_too(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tfmtr", "prepare", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    text = capsys.readouterr().err
    assert (ended.value.code, len(text.splitlines())) == (1, 1)
    assert text.startswith("error: `data set` must be ")


def test_a_recipe_s_path_is_no_recipe(tiny, tmp_path):
    with pytest.raises(
        ValueError, match=r"`recipe` must be a `Recipe`; `Recipe.load\(file\)` reads a file. Received: "
    ):
        training.train(tiny, tmp_path / "run", "recipe.toml")


def test_the_server_s_modules_are_out_of_the_garbage_collector_s_sight(monkeypatch):
    """Else a full collection walks them all and no request is answered meanwhile."""
    tracked = []
    monkeypatch.setattr("tfmtr.serving.server.serve", lambda *a, **k: tracked.append(len(gc.get_objects())))
    before = len(gc.get_objects())
    try:
        cli.serve(model_base_path="models")
    finally:
        gc.unfreeze()
    assert tracked[0] < 0.1 * before


def test_the_simulator_s_options_reach_it(tmp_path, monkeypatch):
    asked = {}

    def simulator(out, **options):
        asked.update(options)
        raise ValueError("that is all")

    monkeypatch.setattr("tfmtr.datasets.simulator.simulator", simulator)
    options = {"num_users": 5, "num_titles": 11, "num_territories": 6, "days": 19, "heterogeneity": 0.1}
    options |= {"feedback": 0.2, "impressions": True, "widths": (512, 768), "seed": 3}
    arguments = ["prepare", "simulator", "--out", str(tmp_path / "data"), "--impressions", "--widths", "512", "768"]
    for name, value in options.items():
        if name not in ("impressions", "widths"):
            name = "simulator_seed" if name == "seed" else name
            arguments.append(f"--{name.replace('_', '-')}={value}")
    CliRunner().invoke(app, arguments)
    assert asked == options


def test_the_day_s_options_reach_their_functions(tmp_path, monkeypatch):
    asked = []
    result = {"day": "2025-02-17", "status": "promoted", "version": 3, "reasons": []}
    monkeypatch.setattr("tfmtr.operations.service.start_service", lambda *a, **k: asked.append((a, k)))
    monkeypatch.setattr("tfmtr.operations.day.daily", lambda *a, **k: asked.append((a, k)) or result)
    monkeypatch.setattr("tfmtr.operations.service.rollback", lambda *a: asked.append((a, {})))
    monkeypatch.setattr("tfmtr.operations.forgetting.forget", lambda *a, **k: asked.append((a, k)) or ["a line"])
    (tmp_path / "groups.json").write_text('{"PL": "east"}')
    tables = {name: tmp_path / name for name in ("events", "users", "titles", "availability")}
    tables |= {"user_vectors": tmp_path / "uv", "title_vectors": tmp_path / "tv"}
    options = {"late_days": 3, "max_drop": 0.1, "max_shift": 0.4, "max_loss": 0.2, "max_share": 0.01}
    options |= {"max_move": 0.5, "epochs": 2, "missing_vectors": "zero"}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in {**tables, **options}.items()]
    arguments += ["--from=gate", "--signature=a.b:c", "--signature=a.b:d"]
    day = ("daily", "--service", tmp_path / "s", "--day", "2025-02-17", "--retry", *arguments)
    run(*day, "--start", tmp_path / "run", "--out", tmp_path / "out", "--groups", tmp_path / "groups.json")
    signatures = {"signatures": ["a.b:c", "a.b:d"]}
    second = {"candidates": 500}
    assert asked[0] == ((tmp_path / "s", tmp_path / "run", tmp_path / "out"), tables | signatures | second)
    assert asked[1][0] == (tmp_path / "s", datetime.date(2025, 2, 17))
    assert asked[1][1] == {**options, **signatures, "groups": {"PL": "east"}, "retry": True, "again_from": "gate"}
    run("daily", "--service", tmp_path / "s", "--day", "2025-02-17", "--signature", "none")
    run("daily", "--service", tmp_path / "s", "--day", "2025-02-17")
    assert [given["signatures"] for _, given in asked[2:]] == [[], None]
    del asked[2:]
    result["status"] = "refused"
    refused = CliRunner().invoke(app, ["daily", "--service", str(tmp_path / "s"), "--day", "2025-02-18"])
    assert refused.exit_code == 3
    assert len(asked) == 3  # no second start
    run("rollback", "--service", tmp_path / "s")
    text = run("forget", "--user-id", "u1", "--service", "s", "--data", "d", "--data", "e", "--embeddings", "v")
    assert text == "a line\n"
    assert asked[-2:] == [
        ((tmp_path / "s",), {}),
        (("u1",), {"service": Path("s"), "data": [Path("d"), Path("e")], "embeddings": [Path("v")]}),
    ]


def test_prepare_prints_its_warnings(tmp_path, monkeypatch):
    report = {"warnings": ["7 users live nowhere", "3 titles have no name"]}
    monkeypatch.setattr("tfmtr.datasets.prepare.prepare", lambda *_, **__: types.SimpleNamespace(report=report))
    monkeypatch.setattr("tfmtr.evaluation.tables.statistics_table", lambda report: "")
    output = run("prepare", "simulator", "--num-users", 50, "--num-titles", 10, "--out", tmp_path / "out")
    for warning in report["warnings"]:
        assert f"warning: {warning}" in output


def test_every_option_reaches_its_function(tmp_path, monkeypatch, tiny):
    recipe = training.Recipe(
        share="none", head="esmm", upsample=False, groups="one", units=(8, 4), literal=True, epochs=3, patience=5,
        batch_size=7, learning_rate=0.5, seed=9, deterministic=False, balance="pcgrad", optimizer="sparse_adam",
    )  # fmt: skip
    trained = []
    monkeypatch.setattr(training, "train", lambda data, workdir, recipe: trained.append(recipe))
    run(
        *("train", "--data", tmp_path, "--out", tmp_path / "run", "--share", "none", "--head", "esmm"),
        *("--no-upsample", "--groups", "one", "--units", "8,4", "--literal", "--epochs", 3, "--patience", 5),
        *("--batch-size", 7, "--learning-rate", 0.5, "--seed", 9, "--no-deterministic"),
        *("--balance", "pcgrad", "--optimizer", "sparse_adam"),
    )
    assert trained == [recipe]

    asked = {}

    def prepared(logs, out, **options):
        asked.update(options, logs=logs)
        raise ValueError("enough")

    monkeypatch.setattr("tfmtr.datasets.prepare.prepare", prepared)
    options = {
        "seed": 3, "alpha": 4.0, "test_fraction": 0.2, "validation_fraction": 0.15, "random_fraction": 0.6,
        "num_groups": 5, "memory_limit": "1GB", "missing_vectors": "zero", "contradictions": "keep",
        "text_encoder": tmp_path / "preset", "overwrite": True, "engine": "spark", "spark_master": "local[2]",
        "negatives": "logged", "low_ratings": "negatives", "seen": "events", "counter_prior": 5.0,
        "examples": "impressions",
    }  # fmt: skip
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not True]
    arguments.append(f"--like={tiny}")
    (tmp_path / "zones.json").write_text('{"DE": "Europe/Berlin"}')
    with pytest.raises(ValueError, match="enough"):
        run(
            *("prepare", "events", "--events", "e", "--users", "u", "--titles", "t", "--map", "user=uid,name=text"),
            *(
                "--task",
                "click=c",
                "--task",
                "buy=b:after=click",
                "--training",
                "position=p:id",
                "--time-zones",
                tmp_path / "zones.json",
                "--window-days",
                2,
                "--train-windows",
                5,
            ),
            *("--test-windows", 4, "--end", "2025-03-01", "--availability", "anywhere", "--overwrite"),
            *("--fold", "2/5", "--out", tmp_path / "out", "--counters", "user", "--counter-days", "3,9", *arguments),
        )
    logs = asked.pop("logs")
    others = {"fold": "2/5", "counters": ["user"], "counter_days": (3, 9)}
    assert asked == {**options, "like": Dataset(tiny), **others}
    assert (logs.columns, logs.tasks) == ({"user": "uid", "name": "text"}, {"click": "c", "buy": "b:after=click"})
    assert logs.training == {"position": "p:id"}
    assert logs.time_zones == {"DE": "Europe/Berlin"}
    assert (logs.calendar.length.days, logs.calendar.num_train, logs.calendar.num_test) == (2, 5, 4)
    assert (logs.calendar.end.month, logs.availability) == (3, "anywhere")
    bare = ("prepare", "events", "--events", "e", "--map", "user=uid", "--task", "liked = rating >= 3.5:after=click")
    with pytest.raises(ValueError, match="enough"):
        run(*bare, "--out", tmp_path / "out")
    assert (asked["logs"].users, asked["logs"].titles) == (None, None)
    assert asked["logs"].tasks == {"liked": "rating >= 3.5:after=click"}
    assert (asked["negatives"], asked["low_ratings"], asked["seen"]) == ("both", "hide", "rated")


def test_evaluate_prints_a_table_and_writes_json(folder, eager):
    output = run("evaluate", folder / "run", "--data", folder / "data", "--baselines", "recent, ease")
    assert "event per territory" in output
    assert "Lists of 10 titles that the user did not have before the window" in output
    assert "ease" in output
    assert (folder / "run" / "evaluation.json").exists()


def test_the_report_s_options_reach_its_function(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("tfmtr.reporting.page.report", lambda *a, **k: asked.append((a, k)) or "a file")
    options = ("--data", tmp_path, "--compare", "--task", "like", "--num-samples", 7)
    assert run("report", "a", "b", "--out", tmp_path / "page.html", *options) == "a file\n"
    keywords = {"data": tmp_path, "compare": True, "task": "like", "num_samples": 7}
    assert asked == [(([Path("a"), Path("b")], tmp_path / "page.html"), keywords)]


def test_a_report_is_written_of_a_run_as_it_is(folder, eager):
    options = ("--k", 5, "--local-share", 0.25, "--baselines", "none")
    run("evaluate", folder / "run", "--data", folder / "data", *options)
    file = folder / "report.html"
    assert run("report", folder / "run", "--out", file, "--num-samples", 20) == f"{file}\n"
    page, document = Page(file.read_text()), json.loads((folder / "run" / "evaluation.json").read_text())
    assert (document["k"], document["local_share"]) == (5, 0.25)
    windows = [cells["overall"]["recall"] for cells in document["lists"]["ranking"].values()]
    known = [recall for recall in windows if recall is not None]  # of so few users, most are n/a
    recall = page.column("metrics-overall", "run")["recall@5"]
    assert recall == (pytest.approx(sum(known) / len(known), abs=1e-4) if known else None)
    assert sum(page.column("data-territories", "users").values()) == 2_000
    labels = [attributes["aria-label"] for attributes in page.all("svg")]
    assert "User vectors of run before the branch in a plane, a colour a territory group" in labels


def test_calibrate_prints_errors_before_and_after(folder):
    output = run("calibrate", folder / "run", "--data", folder / "data", "--method", "isotonic")
    document = json.loads((folder / "run" / "calibration.json").read_text())
    (folder / "run" / "calibration.json").unlink()
    assert (document["by"], document["method"]) == ("territory", "isotonic")
    assert f"{document['error']['event']['']['before']:.4f}" in output
    with pytest.raises(ValueError, match=r"`by` must be one of .* Received: by='nothing'"):
        run("calibrate", folder / "run", "--data", folder / "data", "--by", "nothing")
    run("calibrate", folder / "run", "--data", folder / "data", "--min-count", 10**6, "--by", "scenario")
    cells = json.loads((folder / "run" / "calibration.json").read_text())["error"]["event"]
    assert {cell["map"] for group, cell in cells.items() if group} <= {"of all", "identity"}  # no map of their own
    (folder / "run" / "calibration.json").unlink()


def test_a_client_of_the_protocol_alone_gets_what_numpy_computes(folder, server):
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    data = Dataset(folder / "data")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{server.port}"))

    def predict(signature, values):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "two_tower", signature
        for name, value in values.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return {name: tf.make_ndarray(value) for name, value in stub.Predict(request, timeout=30).outputs.items()}

    table = next(inputs.read_tables([data.path / "titles.parquet"], rows=1000))
    titles = {
        "title_vector": np.asarray(data.vectors("title").vectors, "float32"),
        "language": table["language"].to_pylist(),
        "genres": [[*row, "", ""][:2] for row in table["genres"].to_pylist()],
    }
    vectors = predict("title_embedding", titles)["title_embedding"]
    user = pq.read_table(data.path / "users.parquet").slice(3, 1).to_pylist()[0]
    row = user_inputs(data, user)
    query = predict("user_embedding", row)["event"]

    catalogue = pq.read_table(data.path / "availability.parquet").to_pylist()
    allowed = {r["title"] for r in catalogue if r["territory"] == user["territory"] and r["window"] == 4}
    ids = table["title"].to_pylist()
    scores = np.where([title in allowed for title in ids], vectors @ query[0], -np.inf)
    order = np.argsort(-scores)[:10]
    asked = {"request_territory": [user["territory"]], "seen": [[""]], "k": np.asarray([10], "int32")}
    answer = predict("recommend", {**row, **asked})
    assert [title.decode() for title in answer["titles"][0]] == [ids[i] for i in order]
    np.testing.assert_allclose(answer["scores"][0], scores[order], rtol=1e-5)

    assert answer["is_exact"].tolist() == [True]

    # What a request may have beside: conditions, another order, the weight of a task.
    genre = table["genres"].to_pylist()[order[0]][0]
    fits = np.asarray([genre in row for row in table["genres"].to_pylist()])
    answer = predict("recommend", {**row, **asked, "where": [[f"genres={genre}"]], "weight_event": np.float32([2])})
    order = [i for i in np.argsort(-scores) if fits[i] and scores[i] > -np.inf][:10]
    assert [title.decode() for title in answer["titles"][0][: answer["count"][0]]] == [ids[i] for i in order]
    np.testing.assert_allclose(answer["scores"][0][: len(order)], 2 * scores[order], rtol=1e-5)
    ranked = predict("recommend", {**row, **asked, "rank_by": ["event"]})
    assert np.all((ranked["scores"] > 0) & (ranked["scores"] < 1))
    with pytest.raises(grpc.RpcError, match="`rank_by` must be empty or one of"):
        predict("recommend", {**row, **asked, "rank_by": ["nothing"]})

    # A pair's served score equals its offline score.
    pairs = next(inputs.read_tables(data.examples("test", windows=[3]), rows=50))
    offline = (
        Run(folder / "run")
        .load()
        .predict(inputs.model_inputs(pairs, data.schema, inputs.open_stores(data)), verbose=0)["event"]
    )
    one = {name: [] for name in (*row, *titles)}
    for pair in pairs.to_pylist():
        for name, value in user_inputs(data, pair).items():
            one[name].append(value[0])
        one["title_vector"].append(titles["title_vector"][pair["title_row"]])
        one["language"].append(pair["language"])
        one["genres"].append([*pair["genres"], "", ""][:2])
    served = predict("serving_default", {name: np.asarray(value) for name, value in one.items()})["event"]
    np.testing.assert_allclose(served, offline, atol=1e-5)


def test_a_served_list_is_the_offline_one(folder, server):
    """The list that an evaluation of the window that is served would judge: the same titles in the same order."""
    data = Dataset(folder / "data")
    model, past, window = Run(folder / "run").load(), Past(data), data.next_window
    users = pq.read_table(data.path / "users.parquet")
    had = np.diff(past.had(np.arange(len(users)), window).indptr)
    index = build_index(model, data, data.schema)
    chosen = np.concatenate([np.argsort(-had)[:5], np.argsort(had)[:5]])  # of a long past, and of a short one
    rows = users.take(chosen).append_column("title_row", pa.array(np.zeros(len(chosen), int)))
    case = ListCase(rows, index.catalogue, most=100)
    case.had = past.had(past.numbers(case.users), window)
    rank = ranking_of(model, index, data.schema, data, k=10, popularity=past.popularity(window))
    found = case.lists(rank).ranked_titles
    titles = pq.read_table(data.path / "titles.parquet")["title"].to_pylist()
    for user, ranked in zip(case.users, found, strict=True):
        answer = recommend(f"127.0.0.1:{server.port}", "two_tower", data.path, user, k=10)
        assert [row["title"] for row in answer["titles"]] == [titles[title] for title in ranked if title >= 0]


def test_recommend_prints_names_and_leaves_out_what_was_seen(folder, server):
    data, address = Dataset(folder / "data"), f"127.0.0.1:{server.port}"
    seen = pq.read_table(data.path / "events.parquet").to_pandas().groupby("user").title.agg(set)
    user = seen.map(len).idxmax()
    answer = recommend(address, "two_tower", data.path, user, k=10)
    titles = [row["title"] for row in answer["titles"]]
    catalogue = pq.read_table(data.path / "availability.parquet").to_pandas().query("window == 4")
    unseen = set(catalogue.title[catalogue.territory == answer["territory"]]) - seen[user]
    assert len(titles) == min(10, len(unseen))
    assert set(titles) <= unseen
    assert len(set(titles)) == len(titles)
    output = run(
        "recommend", "--server", address, "--model", "two_tower", "--data", data.path, "--user-id", user, "-k", 3
    )
    assert answer["titles"][0]["name"] in output


def test_a_cold_user_is_served_in_a_named_territory(folder, server):
    address = f"127.0.0.1:{server.port}"
    territory = pq.read_table(folder / "data/users.parquet")["territory"][0].as_py()
    answer = recommend(address, "two_tower", folder / "data", "nobody", territory=territory, k=4)
    assert (answer["is_known"], answer["fallback"], len(answer["titles"])) == (False, ["cold_user"], 4)
    ask = ("recommend", "--server", address, "--model", "two_tower", "--data", folder / "data", "--user-id", "nobody")
    output = " ".join(run(*ask, "--territory", "Atlantis").split())
    assert "Not in the users table. A cold user: what is popular in the territory. No group has" in output
    lines = METRICS.text().splitlines()
    counts = [line for line in lines if line.startswith('tfmtr_fallbacks{model_name="two_tower",')]
    kinds = {line.partition('kind="')[2].partition('"')[0]: int(line.split()[-1]) for line in counts}
    assert kinds["cold_user"] >= 2
    assert kinds["default_branch"] >= 1
    assert kinds["unknown_territory"] >= 1
    with pytest.raises(ValueError, match=r"`user_id` must be in .*users.parquet, or a `territory`.*user_id='nobody'"):
        recommend(address, "two_tower", folder / "data", "nobody")


def test_a_k_beyond_the_catalogue_is_refused_with_the_number_of_titles(folder, server):
    with pytest.raises(Exception, match="`k` must be at most 80, the number of titles in the index"):
        recommend(f"127.0.0.1:{server.port}", "two_tower", folder / "data", "u00000003", k=81)
    with pytest.raises(ValueError, match=r"`k` must be positive. Received: k=0"):
        recommend(f"127.0.0.1:{server.port}", "two_tower", folder / "data", "u00000003", k=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "{tmp}", "--out", "{tmp}/run"], "must be a directory made by `tfmtr prepare`"),
        (["train", "--data", "{data}", "--out", "{tmp}/r", "--share", "pel"], "`--share` must be one of"),
        (["evaluate", "{tmp}/no", "--data", "{data}"],
         "/no`, which does not exist, must be a directory made by `tfmtr train`: "),
        (["export", "{tmp}", "--titles", "{data}"], "must be a directory made by `tfmtr train`"),
        (["prepare", "events", "--events", "e", "--users", "u", "--titles", "t", "--map", "user", "--out", "{tmp}/o"],
         "`--map` must be name=column pairs. Received: 'user'"),
    ],
)  # fmt: skip
def test_wrong_input_is_an_error_message_and_exit_code_1(folder, tmp_path, arguments, message, monkeypatch, capsys):
    arguments = [argument.format(tmp=tmp_path, data=folder / "data") for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["tfmtr", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    text = capsys.readouterr().err
    assert message in text
    assert "Traceback" not in text


def test_what_a_server_refuses_is_a_message_too(folder, server, monkeypatch, capsys):
    ask = ["tfmtr", "recommend", "--model", "two_tower", "--data", str(folder / "data")]
    for address, k, message in (
        (f"127.0.0.1:{server.port}", "81", "`-k` must be at most 80, the number of titles in the index.\n"),
        ("127.0.0.1:1", "3", "error: No server answers at `--server 127.0.0.1:1`; it must be the gRPC port"),
    ):
        monkeypatch.setattr(sys, "argv", [*ask, "--user-id", "u00000003", "--server", address, "-k", k])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        assert message in capsys.readouterr().err


def test_prepared_report_says_what_was_done(folder):
    report = json.loads((folder / "data/prepare.json").read_text())
    assert len(report["windows"]) == 17
    assert len({row["group"] for row in report["statistics"]["territories"].values()}) == 2


def test_the_index_alone_is_exported_and_what_it_needs_is_said(folder, tmp_path, monkeypatch):
    keep_signatures(monkeypatch, "recommend_by_vector")
    index = ("index", folder / "run", "--titles", folder / "data", "--out", tmp_path / "index")
    left = tmp_path / "index" / "tmp-scratch-abcdefgh" / "version"  # by an export that was killed
    left.mkdir(parents=True)
    (left.parent / ".lock").touch()
    assert run(*index).strip() == str(tmp_path / "index" / "1")
    output = run(*index, "--index", "scann")
    assert str(tmp_path / "index" / "2") in output
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == ["1", "2"]
    found = " ".join(output.split())
    assert "needs: an image of TensorFlow Serving with ScaNN's operations (Scann>ScannSearchBatched" in found


def test_a_shell_completes_commands():
    words = {"_TFMTR_COMPLETE": "complete_bash", "COMP_WORDS": "tfmtr ev", "COMP_CWORD": "1"}
    command = Path(sys.executable).with_name("tfmtr")
    result = subprocess.run([command], env={**os.environ, **words}, capture_output=True, text=True)
    assert (result.returncode, result.stdout.split()) == (0, ["evaluate"])


def test_tensorflow_s_own_log_lines_are_hidden_unless_they_are_asked_for(folder, tmp_path):
    without = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "tfmtr", "index", str(folder / "run"), "--out", str(tmp_path / "model")]
    result = subprocess.run(command, env=without, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    shown = {**without, "TF_CPP_MIN_LOG_LEVEL": "0"}
    with subprocess.Popen(command, env=shown, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert any("cpu_feature_guard" in line for line in process.stderr)
        process.kill()  # it has said so

"""Days of a service whose index finds what a ranking model orders: `tfmtr.operations.day_ranking`."""

import io
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.days_log import DAYS, RECIPE, Tables, copy_of, date, quiet, run_day
from helpers.few_signatures import keep_signatures
from helpers.untraced import untraced
from rich.console import Console

from tfmtr import training
from tfmtr.candidates import prepare_candidates
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.prepare import prepare
from tfmtr.documents import read_facts, read_json, write_json
from tfmtr.evaluation.evaluate import predict
from tfmtr.operations import day_ranking, day_steps, list_gate
from tfmtr.operations.forgetting import forget
from tfmtr.operations.gating import gate
from tfmtr.operations.record import page
from tfmtr.operations.service import read_live, rollback, start_service
from tfmtr.run import Run
from tfmtr.version import Version

CANDIDATES, NEGATIVES = 20, 6
DOWN = "click is down by 50.0% overall, in the last window"
RANKING = training.Recipe(form="ranking", share="shared_bottom", epochs=1, batch_size=4096, deterministic=False)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    """A service of two stages before its first day: the second one learns from candidates of the first."""
    folder = tmp_path_factory.mktemp("stages") / "base"
    tables = Tables(folder / "log")
    tables.write(events=tables.events[tables.events.time < pd.Timestamp(date(DAYS))])
    options = {"validation_fraction": 0.4, "test_fraction": 0.1, "num_groups": 2, "progress": False}
    data = prepare(tables.logs(), folder / "data", **options)
    first = training.Recipe(**{**RECIPE.document(), "listwise": True})
    with untraced():  # one epoch of a few steps
        training.train(data.path, folder / "run", first, verbose=0)
        prepare_candidates(folder / "run", folder / "candidates", candidates=CANDIDATES, negatives=NEGATIVES)
        training.train(folder / "candidates", folder / "ranking", RANKING, verbose=0)
        stages = {"ranking": folder / "ranking", "candidates": CANDIDATES, "first_weight": 0.5}
        start_service(folder / "service", folder / "run", folder / "model", **stages)
    tables.write(events=tables.of_day(DAYS), name="events/first")
    return folder


def killed(*arguments, **options):
    raise KeyboardInterrupt


def killed_in_second(run, *arguments, go_on=training.go_on, **options):
    """The first stage's training ends."""
    return killed() if Run(run).recipe.form == "ranking" else go_on(run, *arguments, **options)


@pytest.fixture(scope="module")
def after_one_day(base_folder, tmp_path_factory):
    """The service after a day that was killed in each part of the second stage, and the day's record."""
    tables = copy_of(base_folder, tmp_path_factory.mktemp("one") / "day")
    places = ("prepare_candidates", "late_files", "training.go_on", "gate", "calibrate_like")
    with untraced(), pytest.MonkeyPatch.context() as patch:
        keep_signatures(patch, "recommend", "serving_default")
        for place in places:
            module, _, name = f"tfmtr.operations.day_ranking.{place}".rpartition(".")
            with pytest.MonkeyPatch.context() as kill:
                kill.setattr(f"{module}.{name}", killed_in_second if name == "go_on" else killed)
                with pytest.raises(KeyboardInterrupt):
                    run_day(tables)
            assert read_live(tables.folder.parent / "service")["day"] is None
            patch.setattr(day_steps, "prepare", lambda *a, **k: pytest.fail("prepared again"))
        record = run_day(tables)
    return tables.folder.parent, record


def publish(self):
    """A day that ends with the gate: what an export does the other day sees."""
    write_json(self.folder / "day.json", {**self.record, "version": 1, "live": {"day": None, "version": None}})


@pytest.fixture
def quick(monkeypatch, eager):
    monkeypatch.setattr(day_steps.DaySteps, "export", lambda self, data: None)
    monkeypatch.setattr(day_steps.DaySteps, "publish", publish)


def weights(run):
    with np.load(Run(run).weights()) as archive:
        return {name: archive[name] for name in archive.files if not name.endswith("_paths")}


def test_both_stages_go_on_and_are_one_version(after_one_day):
    folder, record = after_one_day
    assert (record["status"], record["version"], record["reasons"]) == ("promoted", 1, [])
    day = folder / "service" / "days" / record["day"]
    for name, before in (("run", "run"), ("ranking", "ranking")):
        assert Run(day / name).document["start"] == Run(folder / before).run_id
    rows = Dataset(day / "candidates")
    assert rows.report["candidates"]["run_id"] == Run(day / "run").run_id
    assert rows.log_fingerprint == Dataset(day / "data").report["fingerprint"]
    late = [file for file in (day / "late-candidates").glob("*.parquet")]
    numbers = [pq.read_metadata(file).num_rows for file in (*rows.examples("train", windows=[0]), *late)]
    assert record["ranking"]["fitted"]["rows"] == sum(numbers)
    facts = read_facts(Version(folder / "model" / "1").path)
    assert facts["run_id"] == Run(day / "run").run_id
    assert facts["ranking"]["run_id"] == Run(day / "ranking").run_id
    assert (facts["ranking"]["candidates"], facts["ranking"]["first_stage"]["weight"]) == (CANDIDATES, 0.5)
    live = read_live(folder / "service")
    assert (live["ranking"], live["before"][0]["ranking"]) == (str(day / "ranking"), str(folder / "ranking"))
    assert read_json(folder / "service/live.json")["ranking"] == f"days/{record['day']}/ranking"
    assert (day / "ranking" / "calibration.json").is_file()
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(page(record))
    text = console.export_text()
    assert "gate of the second stage" in text
    assert "log loss of click, the day" in text


def test_a_day_that_was_interrupted_ends_as_one_that_was_not(after_one_day, base_folder, tmp_path, quick):
    folder, record = after_one_day
    other = run_day(copy_of(base_folder, tmp_path / "copy"))
    days = [root / "service" / "days" / record["day"] for root in (folder, tmp_path / "copy")]
    for name in ("run", "ranking"):
        ours, theirs = (weights(day / name) for day in days)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            np.testing.assert_array_equal(value, theirs[key], err_msg=key)
    assert other["gate"] == record["gate"]
    assert other["lists"] == record["lists"]
    assert other["ranking"]["gate"] == record["ranking"]["gate"]
    names = [{file.relative_to(day) for file in day.rglob("*") if "logs" not in file.parts} for day in days]
    assert names[0] - names[1] <= {file for file in names[0] if file.name == "calibration.json"}
    assert not names[1] - names[0]


@pytest.fixture
def refused(after_one_day, tmp_path, quick, monkeypatch):
    """The service after a second day whose ranking model the gate refused: tables, record, lines, what gates got."""
    tables = copy_of(after_one_day[0], tmp_path / "copy")
    asked = {"ranking": [], "lists": []}

    def closed(*arguments, **options):
        asked["ranking"].append(arguments)
        return gate(*arguments, **options) | {"reasons": [DOWN], "is_open": False}

    def held(*arguments, **options):
        asked["lists"].append(options)
        return list_gate.judge_lists(*arguments, **options)

    tables.write(events=tables.of_day(DAYS + 1), name="events/second")
    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(day_ranking, "gate", closed)
        patch.setattr("tfmtr.operations.gating.judge_lists", held)
        record = run_day(tables, DAYS + 1, lines=lines)
    return tables, record, lines, asked


def test_the_second_stage_can_refuse_and_what_it_learnt_from_is_what_no_day_before_had(refused, after_one_day):
    tables, record, lines, asked = refused
    service = tables.folder.parent / "service"
    day, first = (service / "days" / one["day"] for one in (record, after_one_day[1]))
    reason = f"second stage: {DOWN}"
    assert (record["status"], record["reasons"], record["refused_by"]) == ("refused", [reason], ["ranking"])
    assert any(reason in line for line in lines)
    live = read_live(service)
    assert (live["day"], live["ranking"], live["version"]) == (first.name, str(first / "ranking"), 1)
    # Lists are held once, of both stages: a ranking model makes none by itself.
    ((before, after),) = [options["seconds"] for options in asked["lists"]]
    assert (before.candidates, before.first_weight) == (CANDIDATES, 0.5)
    for second, run in ((before, first / "ranking"), (after, day / "ranking")):
        for ours, theirs in zip(second.model.weights, Run(run).load().weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert asked["ranking"] == [(str(first / "ranking"), day / "ranking", day / "candidates")]

    def taken(folder, window):
        files = Dataset(folder / "candidates").examples("train", windows=[window])
        rows = pd.concat([pq.read_table(file, partitioning=None).to_pandas() for file in files])
        return set(rows[rows.click > 0][["user", "title"]].itertuples(index=False, name=None))

    late = pq.read_table(day / "late-candidates" / "random.parquet").to_pandas()
    expected = (taken(day, -1) - taken(first, 0)) | (taken(day, -2) - taken(first, -1))
    assert set(late[late.click > 0][["user", "title"]].itertuples(index=False, name=None)) == expected
    assert record["ranking"]["late_rows"] == len(late)
    assert run_day(tables, DAYS + 1, retry=True, again_from="gate")["status"] == "promoted"


def test_probabilities_that_are_wrong_close_the_gate_though_their_order_is_right(after_one_day, tmp_path):
    folder, record = after_one_day
    day = folder / "service" / "days" / record["day"]
    wrong = shutil.copytree(day / "ranking", tmp_path / "wrong")
    with np.load(Run(wrong).weights()) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for place, path in enumerate(arrays["model_paths"]):
        if "logit/bias" in path:
            arrays[f"model/{place}"] = arrays[f"model/{place}"] + 3
    np.savez(Run(wrong).weights(), **arrays)
    with untraced():
        found = gate(day / "ranking", wrong, day / "candidates")
    assert found["parts"]["last"]["click"]["territory"]["overall"]["change"] == pytest.approx(0, abs=1e-3)
    assert len(found["reasons"]) == 2
    assert all("click: log loss is up by " in reason for reason in found["reasons"])
    assert (found["lists"], found["notes"]) == (None, [])
    with untraced():
        model, data = Run(wrong).load(), Dataset(day / "candidates")
        columns, _, _ = predict(model, data.examples("validation", windows=[0]), Run(wrong).schema, data)
    p, label = columns["click score"], columns["click"]
    expected = -np.mean(np.where(label == 1, np.log(p), np.log1p(-p)))
    cell = found["parts"]["last"]["click"]["territory"]["overall"]["log_loss"]
    assert cell["candidate"] == pytest.approx(expected, rel=1e-4)
    assert cell["change"] == pytest.approx(1 - expected / cell["live"], rel=1e-3)


def test_the_way_back_has_both_models(after_one_day, tmp_path):
    folder = copy_of(after_one_day[0], tmp_path / "copy").folder.parent
    exported = []
    with pytest.MonkeyPatch.context() as patch:
        real = shutil.copytree

        def export(run, out, **options):
            exported.append((run, options))
            real(out / "1", out / "2")
            facts = read_json(out / "2/assets.extra/tfmtr.json")
            write_json(out / "2/assets.extra/tfmtr.json", {**facts, "run_id": Run(run).run_id})

        patch.setattr("tfmtr.operations.service.export", export)
        live = rollback(folder / "service", say=quiet)
    ((run, options),) = exported
    assert (live["day"], live["version"], live["ranking"]) == (None, 2, str(folder / "ranking"))
    assert run == str(folder / "run")
    assert options["ranking"] == str(folder / "ranking")
    assert (options["candidates"], options["first_weight"]) == (CANDIDATES, 0.5)


def test_a_user_is_forgotten_in_both_stages_files(after_one_day, tmp_path):
    folder = copy_of(after_one_day[0], tmp_path / "copy").folder.parent
    day = folder / "service" / "days" / after_one_day[1]["day"]
    (file,) = Dataset(day / "candidates").examples("train", windows=[0])
    user = pq.read_table(file, partitioning=None)["user"][0].as_py()
    lines = forget(user, service=folder / "service")
    files = [file for file in folder.rglob("*.parquet") if not file.is_relative_to(folder / "log")]
    assert {"candidates", "data", "service"} <= {file.relative_to(folder).parts[0] for file in files}
    for file in files:
        assert all(user not in column.to_pylist() for column in pq.read_table(file, partitioning=None).columns), file
    assert all(user not in file.read_text() for file in folder.rglob("*.json"))
    for name in ("candidates", f"service/days/{after_one_day[1]['day']}/candidates"):
        assert any(line.startswith(f"{folder / name}: ") and "0 rows" not in line.split(":")[1] for line in lines)
    assert any("trained on in" in line and str(day / "candidates") in line for line in lines)


def test_what_cannot_be_a_second_stage_is_said(base_folder, tiny_two, tmp_path):
    folder = base_folder
    new = tmp_path / "new"
    with pytest.raises(ValueError, match=r"must be of form=ranking for this step.*Received: form=two_tower"):
        start_service(new, folder / "run", tmp_path / "out", ranking=folder / "run")
    with pytest.raises(ValueError, match=r"must be of form=two_tower for this step.*Received: form=ranking"):
        start_service(new, folder / "ranking", tmp_path / "out")
    shutil.copytree(folder / "candidates", tmp_path / "others")
    report = read_json(tmp_path / "others/prepare.json")
    report["candidates"]["fingerprint"] = "of another log"
    write_json(tmp_path / "others/prepare.json", report)
    shutil.copytree(folder / "ranking", tmp_path / "ranking")
    write_json(
        tmp_path / "ranking/run.json", read_json(folder / "ranking/run.json") | {"data": str(tmp_path / "others")}
    )
    with pytest.raises(ValueError, match=r"`ranking` must be a run on the log of `run`.*Received: .*others"):
        start_service(new, folder / "run", tmp_path / "out", ranking=tmp_path / "ranking")
    with pytest.raises(ValueError, match="`candidates` must be"):
        start_service(new, folder / "run", tmp_path / "out", ranking=folder / "ranking", candidates=0)
    assert not new.exists()

"""What real days bring, row by row of the cases of a service's days."""

import datetime
import io
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.days_log import DAYS, OPTIONS, Tables, begin, copy_of, date, run_day
from rich.console import Console

from tfmtr import training
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.drift import changed_vectors
from tfmtr.datasets.prepare import prepare
from tfmtr.documents import read_json, write_json
from tfmtr.exporting import export, export_index
from tfmtr.operations import day_steps as module
from tfmtr.operations.day import BadDataError, NoDataError, daily
from tfmtr.operations.forgetting import forget
from tfmtr.operations.record import page
from tfmtr.operations.service import LockedError, owned, read_live, start_service
from tfmtr.run import Run
from tfmtr.serving.recommendations import recommend
from tfmtr.serving.server import Server
from tfmtr.training.run_document import Job, new_run


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    """A service before its first day."""
    folder = tmp_path_factory.mktemp("days") / "base"
    begin(folder)
    return folder


@pytest.fixture(scope="module")
def after_one_day(base_folder, tmp_path_factory):
    """The service after an ordinary day: new and changed titles, new values, other means, removed titles."""
    tables = copy_of(base_folder, tmp_path_factory.mktemp("one") / "day")
    change_catalogue(tables)
    tables.write(events=tables.of_day(DAYS), name="events/first")
    record = run_day(tables)
    return tables.folder.parent, record


@pytest.fixture
def service(base_folder, tmp_path):
    """A copy of the service before its first day."""
    return copy_of(base_folder, tmp_path / "copy")


@pytest.fixture
def second(after_one_day, tmp_path):
    """A copy of the service after its first day."""
    tables = copy_of(after_one_day[0], tmp_path / "copy")
    change_catalogue(tables)
    return tables


@pytest.fixture
def quick(monkeypatch, eager):
    """Days end with the gate: what an export does other tests see. Nothing is traced for a day's single batch."""

    def publish(self):
        entry = {name: self.live[name] for name in ("day", "run", "version")}
        new = {"day": self.day.isoformat(), "run": str(self.folder / "run"), "version": 1}
        write_json(self.service / "live.json", {**new, "before": [*self.live["before"], entry]})
        write_json(self.folder / "day.json", {**self.record, "version": 1, "live": new})

    monkeypatch.setattr(module.DaySteps, "export", lambda self, data: None)
    monkeypatch.setattr(module.DaySteps, "publish", publish)


def change_catalogue(tables):
    """A new drama of a new length, titles of another genre, of a new one, without a length; one is gone."""
    new = {"title": "t900", "name": "A new one", "genre": "drama", "length": 5000.0}
    tables.titles = pd.concat([tables.titles[1:], pd.DataFrame([new])], ignore_index=True)
    tables.titles.loc[2, "genre"] = "comedy" if tables.titles.genre[2] == "drama" else "drama"
    tables.titles.loc[3, "genre"] = "opera"
    tables.titles.loc[4, "length"] = None
    tables.vectors["t900"] = np.full(6, 0.5, "float32")
    is_new = tables.events.title == "t001"
    tables.events.loc[is_new & (tables.events.time >= pd.Timestamp(date(DAYS))), "title"] = "t900"


def failing(record):
    """Names of the checks that closed the gate."""
    return [check["name"] for check in record["checks"] if not check["is_open"]]


def test_a_day_with_new_changed_and_removed_titles_is_an_ordinary_day(after_one_day):
    """Row 1."""
    folder, record = after_one_day
    assert (record["status"], record["reasons"], record["version"]) == ("promoted", [], 1)
    assert record["grown"]  # the new genre
    served = pq.read_table(folder / "model" / "1" / "assets.extra" / "titles.parquet")["title"].to_pylist()
    assert "t900" in served
    assert "t000" not in served
    old = Run(folder / "run").schema
    new = Run(record["run"]).schema
    length = {feature.name: feature for feature in old.features}["length"]
    assert length in new.features  # the mean stays the model's
    data = folder / "service" / "days" / record["day"] / "data"
    lengths = pq.read_table(data / "titles.parquet").to_pandas().set_index("title").length
    assert np.isnan(lengths["t005"])


def test_signatures_are_kept_for_the_days_to_come_and_checked_at_the_start(service, monkeypatch, tmp_path, eager):
    folder = service.folder.parent / "service"
    monkeypatch.setattr(module, "calibrate_like", lambda *a, **k: None)
    monkeypatch.setattr(module, "try_version", lambda version, data: None)
    ended = {"status": "rolled back"}  # so that the second day can be done again
    monkeypatch.setattr(
        module.DaySteps, "publish", lambda self: write_json(self.folder / "day.json", self.record | ended)
    )
    asked = []
    monkeypatch.setattr(module, "export", lambda run, out, *, signatures, **k: out.mkdir() or asked.append(signatures))
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for signatures, message in (
        (["own:lengths"], r"`signatures` must be the import path of a function.* No module named 'own'"),
        (["tfmtr.signatures.recommend:no"], "has no attribute 'no'"),
        (["tfmtr.checks:nearest"], "must ask for parts of"),
        ("own:lengths", "`signatures` must be a list of import paths"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            run_day(service, signatures=signatures)
        assert "\n" not in str(refused.value)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    (tmp_path / "own_lengths.py").write_text("def lengths(served, *, title): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    service.write(events=service.of_day(DAYS), name="events/first")
    service.write(events=service.of_day(DAYS + 1), name="events/second")
    run_day(service, signatures=["own_lengths:lengths"])
    assert read_json(folder / "service.json")["signatures"] == ["own_lengths:lengths"]
    run_day(service, DAYS + 1)
    run_day(service, DAYS + 1, retry=True, signatures=())
    assert asked == [["own_lengths:lengths"], ["own_lengths:lengths"], []]
    assert "signatures" not in read_json(folder / "service.json")


@pytest.mark.parametrize("function", [export, export_index])
def test_newer_titles_are_exported_with_an_older_model(after_one_day, tmp_path, function):
    """Row 1: `tfmtr export --titles`, `tfmtr index`, and `recommend` with the newer data."""
    folder, record = after_one_day
    data = folder / "service" / "days" / record["day"] / "data"
    version = function(folder / "run", tmp_path / "out", titles=data)
    facts = read_json(version / "assets.extra" / "tfmtr.json")
    assert facts["titles"] == 40
    with Server(version.parent, model_name="older", port=0) as server:
        answer = recommend(f"127.0.0.1:{server.port}", "older", data, "u0001", k=40)
    assert "t000" not in [title["title"] for title in answer["titles"]]


def test_what_a_model_needs_of_titles_is_named(after_one_day, tmp_path):
    folder, record = after_one_day
    data = tmp_path / "data"
    shutil.copytree(folder / "service" / "days" / record["day"] / "data", data)
    schema = (data / "schema.json").read_text().replace('"name": "length"', '"name": "minutes"')
    (data / "schema.json").write_text(schema.replace('"width": 6', '"width": 7'))
    text = (
        r"`titles` must have the features.*no 'length', which is of the kind number; 'title_vector' of 7 numbers, not 6"
    )
    with pytest.raises(ValueError, match=text):
        export(folder / "run", tmp_path / "out", titles=data)
    assert not (tmp_path / "out").exists()


def half_of_the_users(tables):
    tables.users = tables.users[::2]


def two_territories_silent(tables):
    homes = tables.users.set_index("user").territory
    tables.silent = ~tables.events.user.map(homes).isin(["US", "DE"])


def a_territory_renamed(tables):
    tables.users["territory"] = tables.users.territory.replace("US", "USA")


def half_of_the_rows(tables):
    tables.events = tables.events[::2]


def unknown_titles(tables):
    late = tables.events.time >= pd.Timestamp(date(DAYS))
    tables.events.loc[late & (tables.events.index % 5 == 0), "title"] = "nowhere"


def values_in_other_words(tables):
    tables.titles["genre"] = tables.titles.genre.str.upper()


def values_that_are_missing(tables):
    tables.users["age"] = tables.users.age.where(tables.users.index % 3 > 0).astype("float64")


def vectors_of_another_model(tables):
    tables.vectors = {title: vector[::-1].copy() for title, vector in tables.vectors.items()}


def numbers_of_another_unit(tables):
    tables.titles["length"] *= 60.0


def a_number_of_the_other_sign(tables):
    tables.users["age"] *= -1


def territories_exchanged(tables):
    tables.users["territory"] = tables.users.territory.replace({"US": "DE", "DE": "US"})


def titles_without_vectors(tables):
    for title in list(tables.vectors)[:10]:
        tables.vectors[title] = np.zeros(6, "float32")


CLOSING = {
    numbers_of_another_unit: ["median of 'length' of the titles"],
    a_number_of_the_other_sign: ["median of 'age' of the users"],
    territories_exchanged: ["users who live in another territory"],
    titles_without_vectors: ["titles without a vector"],
    half_of_the_users: ["users in the table", "rows of a user who is not in the users table"],
    two_territories_silent: ["events of territories that have none on the day"],
    a_territory_renamed: [
        "events of territories that have none on the day",
        "events of territories of no group, on the default branch",
    ],
    half_of_the_rows: ["rows of the day"],
    unknown_titles: ["rows of a title that is not in the titles table"],
    values_in_other_words: ["values that the live model does not know, 'genre' of the titles"],
    values_that_are_missing: ["values that are missing, 'age' of the users"],
    vectors_of_another_model: ["vectors that changed, of titles that did not"],
}


@pytest.mark.parametrize("change", CLOSING, ids=lambda change: change.__name__)
def test_data_unlike_those_before_close_the_gate_before_any_training(service, change, monkeypatch):
    """Rows 2, 3 and 12, and their kinds."""
    monkeypatch.setattr(training, "go_on", lambda *a, **k: pytest.fail("trained"))
    change(service)
    rows = service.of_day(DAYS)
    if hasattr(service, "silent"):
        rows = rows[service.silent[rows.index]]
    service.write(events=rows, name="events/new")
    lines = []
    record = run_day(service, lines=lines)
    assert record["status"] == "refused"
    assert set(CLOSING[change]) <= set(failing(record))
    if change is titles_without_vectors:
        assert "vectors that changed, of titles that did not" not in failing(record)
    assert len(record["reasons"]) == len(failing(record))
    assert all(any(reason in line for line in lines) for reason in record["reasons"])
    assert read_live(service.folder.parent / "service")["day"] is None
    if change is a_territory_renamed:
        assert any("USA; new ones get their group with --groups" in reason for reason in record["reasons"])
        assert any(": US" in reason for reason in record["reasons"])
    if change is half_of_the_users:
        assert any("events of users that are not in the users table" in warning for warning in record["warnings"])


def test_a_title_that_comes_before_its_vector(service, quick):
    new = {"title": "t900", "name": "A new one", "genre": "drama", "length": 20.0}
    service.titles = pd.concat([service.titles, pd.DataFrame([new])], ignore_index=True)
    service.write(events=service.of_day(DAYS), name="events/new")
    with pytest.raises(BadDataError, match=r"must have a vector for each title.*t900"):
        run_day(service)
    assert run_day(service, missing_vectors="zero")["status"] == "promoted"
    settings = read_json(service.folder.parent / "service" / "service.json")
    assert settings["options"]["missing_vectors"] == "zero"


def test_what_is_refused_can_be_let_through(service, quick):
    rows = service.of_day(DAYS)
    service.write(events=rows[np.arange(len(rows)) % 5 < 3], name="events/new")
    assert failing(run_day(service)) == ["rows of the day"]
    lines = []
    assert run_day(service, lines=lines)["status"] == "refused"
    assert "--retry" in lines[0]
    record = run_day(service, retry=True, max_loss=0.9, lines=lines)
    assert (record["status"], record["reasons"]) == ("promoted", [])
    assert any("prepared before, from the same files" in line for line in lines)


def test_a_territory_that_was_closed_on_a_day_of_the_week_before_may_be_closed_again(service, monkeypatch):
    two_territories_silent(service)
    rows = service.of_day(DAYS)
    service.write(events=rows[service.silent[rows.index]], name="events/new")
    monkeypatch.setattr(training, "go_on", lambda *a, **k: pytest.fail("trained"))
    silent = "events of territories that have none on the day"
    record = run_day(service, max_loss=0.99)
    assert silent in failing(record)
    share = next(check["value"] for check in record["checks"] if check["name"] == silent)

    def bound(shares, records=()):
        monkeypatch.setattr(module, "silent_shares", lambda data, **_: dict(shares))
        day = types.SimpleNamespace(
            settings=read_json(service.folder.parent / "service" / "service.json"), day=date(DAYS)
        )
        return module.DaySteps.usually_silent(day, records)

    week_ago, longer_ago = (date(DAYS - days).isoformat() for days in (7, 8))
    assert bound({longer_ago: share}) == 0.0
    assert bound({longer_ago: 1.0, week_ago: share}) == share
    checks = [{"name": "rows", "value": 1.0}, {"name": silent, "value": share}]
    assert bound({}, [{"day": week_ago, "status": "refused", "checks": checks}]) == 0.0
    assert bound({}, [{"day": week_ago, "status": "promoted", "checks": checks}]) == share
    monkeypatch.setattr(module.DaySteps, "usually_silent", lambda self, records: share)
    monkeypatch.setattr(module.DaySteps, "train", lambda *arguments: None)
    monkeypatch.setattr(module.DaySteps, "judge", lambda self, *arguments: self.record["reasons"].append("seen"))
    record = run_day(service, retry=True, max_loss=0.99)
    assert (failing(record), record["reasons"]) == ([], ["seen"])


def test_labels_of_another_type_are_refused(service, quick):
    """Row 4."""
    rows = service.of_day(DAYS)
    for labels in (rows.click.where(rows.click == 1, 0.6), rows.click.map(str)):
        service.write(events=rows.assign(click=labels), name="events/new")
        with pytest.raises(BadDataError, match="click") as error:
            run_day(service)
        assert error.value.exit_code == 5
        assert not (service.folder.parent / "service" / "days" / date(DAYS).isoformat()).exists()
    service.write(events=service.of_day(DAYS), name="events/new")
    assert run_day(service)["status"] == "promoted"


def test_events_that_are_later_than_the_late_days_are_counted(second, quick):
    """Row 5: the rows of the second day before are trained on, those of the third are said."""
    stray = second.events.sample(200, random_state=0)
    for number, name in ((DAYS - 2, "c"), (DAYS, "b")):
        stray["time"] = pd.Timestamp(date(number)) + pd.to_timedelta(np.arange(200) * 60, unit="s")
        second.write(events=stray, name=f"events/{name}")
    second.write(events=second.of_day(DAYS + 1), name="events/second")
    record = run_day(second, DAYS + 1, late_days=2)
    assert record["late"]["new"] == {date(DAYS - 2).isoformat(): 200}
    assert record["late_rows"] > 0
    text = " ".join(page_of(record).split())
    assert "rows that came too late, and are left: 200 (2024-03-23 200); --late-days takes older ones" in text


def test_the_service_begins_with_the_data_of_its_run(base_folder, tmp_path, monkeypatch):
    """Row 6."""
    shutil.copytree(base_folder / "run", tmp_path / "run")
    monkeypatch.chdir(base_folder)
    other = prepare_again(base_folder, tmp_path / "work" / "data")
    run = read_json(tmp_path / "run" / "run.json")
    job = Job(tmp_path, Dataset("data"), training.Recipe(), Dataset("data").schema, "float32")
    assert os.path.isabs(new_run(job)["data"])
    report = read_json(other.path / "prepare.json")
    assert all(os.path.isabs(report["logs"][name]) for name in ("events", "users", "titles", "title_vectors"))
    monkeypatch.chdir(tmp_path / "work")
    write_json(tmp_path / "run" / "run.json", {**run, "data": "data"})
    with pytest.raises(ValueError, match="must have the data that it was trained on, with the fingerprint"):
        start_service(tmp_path / "service", tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "service").exists()


def prepare_again(folder, out):
    """The same log with another number of negatives."""
    out.parent.mkdir(parents=True)
    logs = Tables(folder / "log").logs(events="log/events")
    return prepare(logs, out, alpha=1.0, num_groups=2, progress=False)


def test_a_day_whose_rest_arrives_after_an_interruption_is_prepared_again(service, quick, monkeypatch):
    """Row 7."""
    rows = service.of_day(DAYS)
    service.write(events=rows[:250], name="events/new")

    with monkeypatch.context() as patch:
        patch.setattr(module.training, "go_on", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_day(service, max_loss=1.0)
    service.write(events=rows, name="events/new")
    lines = []
    record = run_day(service, lines=lines)
    assert record["status"] == "promoted"
    assert next(row["rows"] for row in record["funnel"] if row["window"] == 0) == len(rows)
    assert any("prepare again, and what comes after it: since then events " in line for line in lines)


def test_a_day_that_failed_is_mended(service, quick):
    """Row 8: a day of one event, of a clock that is one day ahead, and as it should be."""
    rows = service.of_day(DAYS)
    for first in (rows[:1], rows.assign(time=rows.time + pd.Timedelta(days=1))):
        service.write(events=pd.concat([rows[:1], first]), name="events/new")
        record = run_day(service, retry=True)
        assert record["status"] == "refused"
        assert "rows of the day" in failing(record)
    service.write(events=rows, name="events/new")
    assert run_day(service, retry=True)["status"] == "promoted"


@pytest.mark.parametrize("rows", ["no file", "an empty file", "the day after only"])
def test_a_day_without_events_has_an_exit_code_of_its_own(service, rows):
    """Row 9."""
    folder = service.folder.parent / "service"
    before = {file: file.read_bytes() for file in folder.rglob("*.json")}
    if rows == "an empty file":
        service.write(events=service.of_day(DAYS)[:0], name="events/new")
    if rows == "the day after only":
        service.write(events=service.of_day(DAYS + 1), name="events/new")
    with pytest.raises(NoDataError, match=f"no events on {date(DAYS)}; nothing has changed") as error:
        run_day(service, groups={"XX": "new"})
    assert error.value.exit_code == 4
    assert {file: file.read_bytes() for file in folder.rglob("*.json")} == before


def test_groups_of_territories_that_are_not_there_are_said(service):
    """Row 10."""
    half_of_the_rows(service)
    service.write(events=service.of_day(DAYS), name="events/new")
    record = run_day(service, groups={"XX": "north", "US": "north"})
    assert "`groups` names territories that no user lives in: XX" in record["notes"]


def test_late_rows_of_users_who_moved_stay_where_they_were(second, quick):
    """Row 11."""
    rows = second.of_day(DAYS)
    homes = second.users.set_index("user").territory.copy()
    movers = homes.index[homes == "US"][:30]
    second.users.loc[second.users.user.isin(movers), "territory"] = "DE"
    late = rows.sample(len(movers), random_state=0).assign(user=movers, click=1)
    second.write(events=late, name="events/late")
    second.write(events=second.of_day(DAYS + 1), name="events/second")
    record = run_day(second, DAYS + 1)
    assert {"from": "US", "to": "DE", "users": 30} in record["moved"]
    assert "30 users moved from US to DE; their earlier rows stay in US" in " ".join(page_of(record).split())
    folder = second.folder.parent / "service" / "days" / record["day"]
    late = pd.concat([pq.read_table(file).to_pandas() for file in (folder / "late").glob("*.parquet")])
    assert len(late)
    assert (late.territory == late.user.map(homes)).all()
    day = pd.concat(
        [pq.ParquetFile(file).read().to_pandas() for file in (folder / "data").glob("examples/**/window=0/*")]
    )
    assert set(day[day.user.isin(movers)].territory) == {"DE"}


@pytest.mark.parametrize("gone", ["a third of all", "the day before"])
def test_rows_of_earlier_days_that_are_gone_close_the_gate(second, gone):
    if gone == "the day before":
        (second.folder / "events" / "first.parquet").unlink()
    else:
        earlier = second.events[(second.events.time < pd.Timestamp(date(DAYS))) & (second.events.index % 3 > 0)]
        second.write(events=earlier, name="events/all")
    second.write(events=second.of_day(DAYS + 1), name="events/second")
    assert "rows of earlier days that are gone" in failing(run_day(second, DAYS + 1))


def test_half_a_day_that_comes_twice_is_half_a_day(service):
    rows = service.of_day(DAYS)[::2]
    service.write(events=rows, name="events/new")
    service.write(events=rows, name="events/again")
    assert "rows of the day" in failing(run_day(service))


def test_a_day_that_comes_twice_is_promoted(service, quick):
    for name in ("events/new", "events/again"):
        service.write(events=service.of_day(DAYS), name=name)
    assert run_day(service)["status"] == "promoted"


def test_a_failed_run_leaves_the_day_as_it_was(service, monkeypatch):
    """A refused day whose mended file is empty or wrong: the record and the rows that it had stay."""
    rows = service.of_day(DAYS)
    service.write(events=rows[::2], name="events/new")
    refused = run_day(service)
    folder = service.folder.parent / "service" / "days" / refused["day"]
    fingerprint = Dataset(folder / "data").report["fingerprint"]
    service.write(events=rows.assign(click="no"), name="events/new")
    with pytest.raises(BadDataError):
        run_day(service, retry=True)
    assert read_json(folder / "day.json") == refused
    assert Dataset(folder / "data").report["fingerprint"] == fingerprint
    service.write(events=service.of_day(DAYS + 1), name="events/new")
    with pytest.raises(NoDataError):
        run_day(service, retry=True)
    service.write(events=rows, name="events/new")
    with monkeypatch.context() as patch:
        patch.setattr(module, "prepare", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_day(service, retry=True)
    assert not (folder / "data").exists()
    module.restore(folder)
    assert read_json(folder / "day.json") == refused
    assert Dataset(folder / "data").report["fingerprint"] == fingerprint


def raise_interrupt(*arguments, **options):
    raise KeyboardInterrupt


def test_the_order_of_days(second, quick):
    later = second.of_day(DAYS + 2)
    second.write(events=later[:3], name="events/later")
    assert run_day(second, DAYS + 2)["status"] == "refused"  # a wrong date: it does not keep others out
    second.write(events=second.of_day(DAYS + 1), name="events/second")
    assert run_day(second, DAYS + 1)["status"] == "promoted"
    with pytest.raises(ValueError, match="was promoted, and what came after it goes on from there"):
        run_day(second, DAYS, retry=True)
    second.write(events=later, name="events/later")
    assert run_day(second, DAYS + 2, retry=True)["status"] == "promoted"


def test_a_skipped_day_cannot_be_run_after_later_ones(second, quick):
    """Its rows were trained on as late ones."""
    second.write(events=second.of_day(DAYS + 1), name="events/second")
    second.write(events=second.of_day(DAYS + 2), name="events/third")
    assert run_day(second, DAYS + 2)["late_rows"] > 100
    with pytest.raises(ValueError, match="rows of days that were skipped are trained on as late ones"):
        run_day(second, DAYS + 1, retry=True)


def test_a_service_may_be_moved(second, quick):
    second.write(events=second.of_day(DAYS + 1), name="events/second")
    folder = second.folder.parent / "service"
    moved = folder.rename(folder.with_name("elsewhere"))
    record = daily(moved, date(DAYS + 1), say=lambda line: None, **OPTIONS)
    assert record["status"] == "promoted"
    assert read_live(moved)["before"][-1]["run"] == str(moved / "days" / date(DAYS).isoformat() / "run")


def test_who_is_forgotten_is_forgotten_by_the_model_of_the_day(service, quick, monkeypatch):
    service.write(events=service.of_day(DAYS), name="events/new")
    with monkeypatch.context() as patch:
        patch.setattr(module, "gate", lambda *a, **k: {"is_open": False, "reasons": ["no"], "notes": [], "parts": {}})
        rows = run_day(service)["fitted"]["rows"]
    folder = service.folder.parent / "service"
    data = Dataset(folder / "days" / date(DAYS).isoformat() / "data")
    user = pq.ParquetFile(data.examples("train", windows=[0])[0]).read(["user"])["user"][0].as_py()
    forget(user, service=folder)
    lines = []
    record = run_day(service, again_from="gate", lines=lines)
    assert record["fitted"]["rows"] < rows
    assert any("train again" in line for line in lines)


def test_a_day_from_a_step_on(second, quick, monkeypatch):
    second.write(events=second.of_day(DAYS + 1), name="events/second")
    with monkeypatch.context() as patch:
        patch.setattr(module, "gate", lambda *a, **k: {"is_open": False, "reasons": ["no"], "notes": [], "parts": {}})
        assert run_day(second, DAYS + 1)["reasons"] == ["no"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "prepare", lambda *a, **k: pytest.fail("prepared again"))
        patch.setattr("tfmtr.training.going_on.fit_stage", lambda *a, **k: pytest.fail("trained again"))
        assert run_day(second, DAYS + 1, retry=True)["reasons"] == ["no"]  # nothing has changed
        assert run_day(second, DAYS + 1, again_from="gate")["status"] == "promoted"
    with pytest.raises(ValueError, match="must not be live to be done again"):
        run_day(second, DAYS + 1, again_from="train")
    with pytest.raises(ValueError, match=r"`again_from` must be one of.*Did you mean 'train'"):
        run_day(second, DAYS + 2, again_from="training")


def test_days_of_titles_whose_vectors_are_of_their_text(tmp_path, quick):
    """What was fitted on the texts of the first data is used again, so a title keeps its vector."""
    tables = begin(tmp_path / "text", title_vectors=None)
    change_catalogue(tables)
    tables.write(events=tables.of_day(DAYS), name="events/new")
    record = run_day(tables)
    assert record["status"] == "promoted"
    two = [Dataset(tmp_path / "text" / "data"), Dataset(Path(record["run"]).parent / "data")]
    compared, changed = changed_vectors(two[1], two[0])
    assert compared > 30
    assert changed == 0
    other = prepare(tables.logs(title_vectors=None), tmp_path / "other", num_groups=2, progress=False)
    with pytest.raises(ValueError, match=r"`titles` must have the vectors of the model's data.*prepare with --like"):
        export(tmp_path / "text" / "run", tmp_path / "out", titles=other.path)


def test_options_are_checked_before_anything_is_done(service):
    for options, text in (
        ({"late_days": -1}, "`late_days` must be"),
        ({"epochs": 0}, "`epochs` must be"),
        ({"max_loss": 0}, r"`max_loss` must be in \(0, 1\]"),
        ({"max_share": 1.5}, r"`max_share` must be in \(0, 1\]"),
    ):
        with pytest.raises(ValueError, match=text):
            run_day(service, **options)
    assert not (service.folder.parent / "service" / "days").exists()


def test_two_owners(service):
    """A second process leaves with its exit code; the lock of a dead owner is taken over."""
    folder = service.folder.parent / "service"
    script = (
        "import sys, time, pathlib; from tfmtr.operations.service import owned\n"
        "with owned(pathlib.Path(sys.argv[1])): print('has it', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "has it\n"
        with pytest.raises(
            LockedError, match=rf"Another process works on the service .*: process {process.pid} on"
        ) as error:
            run_day(service)
        assert error.value.exit_code == 6
        process.kill()
        process.wait()
        with owned(folder):
            assert f"process {os.getpid()} on" in (folder / ".lock").read_text()


def page_of(record):
    """The record's page as text of 80 columns."""
    console = Console(width=80, file=io.StringIO())
    console.print(page(record))
    return console.file.getvalue()


def test_the_page_tells_the_day(after_one_day):
    _, record = after_one_day
    text = page_of(record)
    assert text.startswith(f"{record['day']}: promoted (as version 1)\n")
    for line in (
        "positives",
        "rows of the day",
        "late rows trained on: ",
        "fitted: ",
        "click, the day",
        "live: 2024-03-25",
    ):
        assert line in text, text
    assert max(map(len, text.splitlines())) <= 80
    assert datetime.date.fromisoformat(record["day"]) == date(DAYS)

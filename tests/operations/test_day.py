import json
import shutil
from pathlib import Path

import daily_week
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import read_json, write_json
from tfmtr.operations import day as of_day
from tfmtr.operations import day_steps as module
from tfmtr.operations import late_rows
from tfmtr.operations import service as of_service
from tfmtr.operations.day import daily
from tfmtr.operations.forgetting import forget
from tfmtr.operations.service import LockedError, owned, read_live, rollback, start_service
from tfmtr.retrieval.embeddings import write_embeddings
from tfmtr.run import Run
from tfmtr.serving.versions import find_versions


def quiet(line):
    """Says nothing."""


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """A service after three days: a good one, one whose log is wrong, and one more; the second has a new group."""
    folder = tmp_path_factory.mktemp("week")
    log, service = daily_week.start(folder, num_users=6_000, units=(16, 8), batch_size=1024, epochs=6)
    lines, results = [], []
    days = daily_week.run_days(log, service, days=3, bad_day=2, new_day=3, max_drop=0.2, say=lines.append)
    for result, _ in days:
        results.append(result)
    return log, service, results, lines


def copy_of(service, target):
    """A copy of the service, its versions included, whose paths are its own."""
    shutil.copytree(service.parent, target)
    for file in target.rglob("*.json"):
        file.write_text(file.read_text().replace(str(service.parent), str(target)))
    return target / "service"


@pytest.fixture
def copy(week, tmp_path):
    """The log, and a copy of the service."""
    return week[0], copy_of(week[1], tmp_path / "copy")


@pytest.fixture(scope="module")
def interrupted(week, tmp_path_factory):
    """A service whose third day was killed in the gate, before the publication of its version, and before its note.

    Returns:
        `(service, [(live before, live, versions) of each kill])`.
    """
    service = copy_of(week[1], tmp_path_factory.mktemp("published") / "copy")
    rewind(service)
    live, states = before_of(service), []

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    settle = of_service.settle

    def killed_after_publication(*arguments):
        if versions(service) == [1, 2]:
            raise KeyboardInterrupt
        settle(*arguments)

    for places in (
        {(module, "gate"): killed},
        {(of_service.shutil, "copytree"): killed},
        {(of_service, "settle"): killed_after_publication, (of_day, "settle"): killed_after_publication},
    ):
        leave_scratch(service)
        with pytest.MonkeyPatch.context() as patch:
            forbid_work_of_before(patch)
            for place, function in places.items():
                patch.setattr(*place, function)
            with pytest.raises(KeyboardInterrupt):
                daily(service, daily_week.date_of(3), max_drop=0.2, say=quiet)
        states.append((live, read_live(service), versions(service)))
    return service, states


@pytest.fixture(scope="module")
def published(interrupted):
    """A service that was killed between the publication of the third day and the note of it."""
    return interrupted[0]


def leave_scratch(service):
    """Folders of the third day as SIGKILL leaves them."""
    folder, out = service / "days" / daily_week.date_of(3).isoformat(), service.parent / "saved_models" / "two_tower"
    left = [folder / "version" / "1", out / "tmp-scratch-abcdefgh", folder / "tmp-late-scratch-abcdefgh"]
    for place in (*left, folder / ".data.scratch-abcdefgh"):
        place.mkdir(parents=True, exist_ok=True)
        (place / ".lock").touch()


def forbid_work_of_before(patch):
    """Neither data nor model of the day are made again."""
    patch.setattr(module, "prepare", lambda *a, **k: pytest.fail("prepared again"))
    patch.setattr("tfmtr.training.going_on.fit_stage", lambda *a, **k: pytest.fail("trained again"))


def versions(service):
    return sorted(find_versions(service.parent / "saved_models" / "two_tower")[0])


def test_good_days_are_promoted_and_the_bad_one_is_not(week):
    _, service, results, lines = week
    assert [result["status"] for result in results] == ["promoted", "refused", "promoted"]
    assert [result["version"] for result in results] == [1, None, 2]
    assert versions(service) == [1, 2]
    live = read_live(service)
    assert (live["day"], live["version"]) == (results[2]["day"], 2)
    assert [entry["version"] for entry in live["before"]] == [None, 1]
    assert any("the gate is closed" in line for line in lines)
    assert any("unlike those before" in reason for reason in results[1]["reasons"])
    assert all(any(reason in line for line in lines) for reason in results[1]["reasons"])
    assert read_json(service / "days" / results[1]["day"] / "gate.json")["reasons"] == results[1]["reasons"]


def test_a_server_takes_each_version_and_its_titles_are_of_the_territory(week):
    _, _, results, _ = week
    assert [result["served"]["version"] for result in results] == [1, 1, 2]
    assert all(len(result["served"]["titles"]) == 3 for result in results)
    table = daily_week.table_of([*results, {"rolled back to": "x", "version": 3, "served": results[0]["served"]}])
    assert table.row_count == 4


def test_the_third_day_goes_on_from_the_first(week):
    _, service, results, _ = week
    runs = [Run(result["run"]).document for result in results]
    assert runs[2]["start"] == runs[0]["run_id"]
    assert runs[1]["start"] == runs[0]["run_id"]
    assert runs[0]["start"] == Run(service.parent / "run").run_id


def test_a_new_territory_and_its_group_are_in_the_model_and_the_catalogue(week):
    log, _, results, _ = week
    assert results[0]["grown"] == []
    assert "event_branches/kernel_5" in results[2]["grown"]
    schema = Run(results[2]["run"]).schema
    assert schema.scenario.names[-1] == "a new group"
    assert schema.scenario.groups[(log.new,)] == "a new group"
    old = Run(results[0]["run"]).schema
    assert schema.scenario.names[:-1] == old.scenario.names
    assert log.new in schema.features[0].vocabulary + schema.features[1].vocabulary + schema.features[2].vocabulary


def test_late_rows_are_those_that_no_slice_had_before(week):
    _, service, results, _ = week
    folder = service / "days" / results[2]["day"]
    late = pa.concat_tables([pq.read_table(file) for file in (folder / "late").glob("*.parquet")])

    def positives_of(day, window):
        files = Dataset(day / "data").examples("train", windows=[window], sampling=late_rows.SAMPLINGS)
        rows = [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
        return {(row["user"], row["title"]): row["event"] for row in rows}

    wanted = set()
    for back in (1, 2):  # yesterday and the day before, as they are known today and as they were
        now, then = positives_of(folder, -back), positives_of(service / "days" / results[2 - back]["day"], 0)
        wanted |= {pair for pair, label in now.items() if label > 0 and pair not in then}
    rows = late.to_pylist()
    assert {(row["user"], row["title"]) for row in rows if row["event"] > 0} == wanted
    positives = int(np.sum(late["event"].to_numpy() > 0))
    assert 0 < positives < 0.3 * results[0]["rows"] / 11
    assert len(late) - positives <= 10 * positives + 1
    assert results[2]["late_rows"] == len(late)


def test_a_day_that_ended_is_not_done_again(week, monkeypatch):
    _, service, results, _ = week
    monkeypatch.setattr(module, "prepare", lambda *a, **k: pytest.fail("prepared again"))
    lines = []
    for number, result in enumerate(results, start=1):
        again = daily(service, daily_week.date_of(number), say=lines.append)
        assert again == {name: value for name, value in result.items() if name != "served"}
    assert "was there, refused" in lines[1]


def test_a_table_that_lost_a_column_is_refused_before_anything_is_made_of_it(copy):
    _, service = copy
    users = Path(read_json(service / "service.json")["logs"]["users"])
    assert users.is_relative_to(service.parent)
    table = pq.read_table(users)
    pq.write_table(table.drop_columns("device"), users)
    day = daily_week.date_of(4)
    with pytest.raises(ValueError, match=r"`users` must have the columns.* Received: lost {'device': 'id'}"):
        daily(service, day, say=quiet)
    assert not (service / "days" / day.isoformat()).exists()


def test_an_interrupted_day_goes_on_where_it_was(interrupted, tmp_path, monkeypatch):
    """The last day again, killed in the gate, before its version is published, and before that is noted."""
    published, states = interrupted
    assert all(live == before for before, live, _ in states)
    assert [there for _, _, there in states] == [[1], [1], [1, 2]]
    service = copy_of(published, tmp_path / "copy")
    folder, out = service / "days" / daily_week.date_of(3).isoformat(), service.parent / "saved_models" / "two_tower"
    leave_scratch(service)
    forbid_work_of_before(monkeypatch)
    result = daily(service, daily_week.date_of(3), max_drop=0.2, say=quiet)
    assert (result["status"], result["version"]) == ("promoted", 2)
    assert versions(service) == [1, 2]
    assert (read_live(service)["day"], read_live(service)["version"]) == (result["day"], 2)
    assert read_json(folder / "day.json") == result
    assert sorted(path.name for path in out.iterdir()) == ["1", "2"]
    names = ["data", "day.json", "gate.json", "keys.json", "late", "run"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert not (service / of_service.PLAN).exists()


def rewind(service):
    """Makes the third day one that was judged and not published."""
    shutil.rmtree(service.parent / "saved_models" / "two_tower" / "2")
    folder = service / "days" / daily_week.date_of(3).isoformat()
    write_json(service / "live.json", before_of(service))
    (folder / "day.json").unlink()
    (folder / "gate.json").unlink()


def before_of(service):
    """What was live before."""
    live = read_live(service)
    if live["day"] == daily_week.date_of(3).isoformat():
        live = {**live["before"][-1], "before": live["before"][:-1]}
    return live


def test_a_day_that_was_published_is_promoted_whatever_comes_then(published, tmp_path):
    """Killed between the publication and the note of it; then the day's file is gone, or another command runs."""
    service = copy_of(published, tmp_path / "copy")
    log = Path(read_json(service / "service.json")["logs"]["events"])
    newest = sorted(log.glob("*.parquet"))[-1]
    newest.rename(newest.with_suffix(".gone"))
    record = daily(service, daily_week.date_of(3), say=quiet)
    assert (record["status"], record["version"], record["live"]["version"]) == ("promoted", 2, 2)
    assert Path(read_live(service)["run"]).is_dir()
    live = rollback(service, say=quiet)
    assert (live["day"], live["version"], versions(service)) == (daily_week.date_of(1).isoformat(), 3, [1, 2, 3])
    record = read_json(service / "days" / daily_week.date_of(3).isoformat() / "day.json")
    assert (record["status"], record["version"], record["live"]["version"]) == ("rolled back", 2, 3)


def test_a_rollback_that_was_interrupted_is_ended_by_the_next_command(copy, monkeypatch):
    _, service = copy
    with monkeypatch.context() as patch:
        real = of_service.settle
        patch.setattr(of_service, "settle", lambda *a: real(*a) if not (service / of_service.PLAN).exists() else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rollback(service, say=quiet)
    assert versions(service) == [1, 2, 3]
    again = daily(service, daily_week.date_of(3), say=quiet)
    assert again["status"] == "rolled back"
    assert (read_live(service)["day"], read_live(service)["version"]) == (daily_week.date_of(1).isoformat(), 3)


def test_a_refused_day_is_done_again_once_its_log_is_right(copy):
    log, service = copy
    day = daily_week.FIRST_DAY + 1
    log.folder, folder = service.parent / "log", log.folder
    try:
        log.write(day, day, is_open=True)
    finally:
        log.folder = folder
    result = daily(service, daily_week.date_of(2), max_drop=0.2, max_shift=0.5, retry=True, say=quiet)
    assert (result["status"], result["version"]) == ("promoted", 3)


def test_back_to_the_model_before_and_before_that(copy):
    _, service = copy
    lines = []
    live = rollback(service, say=lines.append)
    assert (live["version"], live["day"]) == (3, daily_week.date_of(1).isoformat())
    assert versions(service) == [1, 2, 3]
    out = service.parent / "saved_models" / "two_tower"
    facts = [read_json(out / str(number) / "assets.extra" / "tfmtr.json") for number in (1, 2, 3)]
    assert facts[2] == facts[0] != facts[1]
    assert read_json(service / "days" / daily_week.date_of(3).isoformat() / "day.json")["status"] == "rolled back"
    live = rollback(service, say=lines.append)  # the run that it all began with was never published
    assert (live["version"], live["day"], live["before"]) == (4, None, [])
    facts = read_json(out / "4" / "assets.extra" / "tfmtr.json")
    assert facts["run_id"] == Run(service.parent / "run").run_id
    with pytest.raises(ValueError, match="nothing to go back to"):
        rollback(service)
    assert "as version 4" in lines[1]


def test_what_cannot_be_done_is_said(week, tmp_path, tiny):
    _, service, _, _ = week
    with pytest.raises(ValueError, match=r"`service` must be a service's directory.*--start"):
        daily(tmp_path, daily_week.date_of(1))
    with pytest.raises(ValueError, match="must not lie in the data of the run"):
        daily(service, daily_week.date_of(-5), retry=True)
    with pytest.raises(ValueError, match="must come after the newest one"):
        daily(service, daily_week.date_of(0))
    with pytest.raises(ValueError, match="must be new to start it"):
        start_service(service, service.parent / "run", tmp_path)
    with owned(service), pytest.raises(LockedError, match="Another process works"):
        daily(service, daily_week.date_of(4))
    with pytest.raises(ValueError, match=r"tables must be there.*\(--events\).*nowhere"):
        start_service(tmp_path / "other", service.parent / "run", tmp_path / "out", events=tmp_path / "nowhere")
    report = json.loads((service.parent / "data" / "prepare.json").read_text())
    report["logs"]["title_vectors"] = None
    shutil.copytree(service.parent / "data", tmp_path / "data")
    (tmp_path / "data" / "prepare.json").write_text(json.dumps(report))
    shutil.copytree(service.parent / "run", tmp_path / "run")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**run, "data": str(tmp_path / "data")}))
    with pytest.raises(ValueError, match=r"prepared by an earlier version, without text\.npz"):
        start_service(tmp_path / "other", tmp_path / "run", tmp_path / "out")
    for changes, option in (({"has_times": False}, "--no-times"), ({"split_column": "part"}, "--split-column")):
        text = json.dumps({**report, "logs": {**report["logs"], "title_vectors": "v", **changes}})
        (tmp_path / "data" / "prepare.json").write_text(text)
        (tmp_path / "v").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=f"`run` must be of data with times.*prepared with {option}"):
            start_service(tmp_path / "other", tmp_path / "run", tmp_path / "out", title_vectors=tmp_path / "v")


def test_a_user_is_forgotten_and_nobody_else(copy):
    _, service = copy
    live = read_live(service)
    write_embeddings(live["run"], service.parent / "vectors", data=service / "days" / live["day"] / "data")
    files = sorted([*service.parent.glob("data/**/*.parquet"), *service.glob("days/**/*.parquet")])
    files += sorted(service.parent.glob("vectors/users/*.parquet"))
    counts = {}
    for file in files:
        table = pq.read_table(file, partitioning=None)
        if "user" in table.column_names:
            counts[file] = table
    seen = pa.concat_tables([table.select(["user"]) for file, table in counts.items() if "train" in str(file)])
    user = seen["user"].value_counts().field("values")[0].as_py()
    lines = forget(user, service=service, embeddings=[service.parent / "vectors"])
    removed = 0
    for file, before in counts.items():
        after = pq.read_table(file, partitioning=None)
        mine = pc.equal(before["user"], user)
        if file.name == "ids.parquet":
            row = mine.to_pylist().index(True)
            vectors = np.load(file.with_name("vectors.npy"))
            assert (len(after), after["user"][row].as_py()) == (len(before), None)
            assert not vectors[row].any()
            assert vectors.any(axis=1).sum() == len(vectors) - 1
        else:
            assert after.equals(before.filter(pc.invert(mine))), file
            removed += len(before) - len(after)
    assert removed > 8
    text = "\n".join(lines)
    assert "vectors: 1 vectors removed" in text
    assert "may hold traces" in text
    assert f"served: version {live['version']}" in text
    assert f"remove the user from {service.parent / 'log' / 'events'}" in text
    assert read_json(service.parent / "data" / "prepare.json")["forgotten"] == 1
    assert all("0 rows" in line or "rows removed" not in line for line in forget(user, service=service))
    with pytest.raises(ValueError, match="Name what to forget in"):
        forget(user)
    with pytest.raises(ValueError, match="made by `tfmtr embeddings`"):
        forget(user, embeddings=[service])

"""A service's day: prepare, train, gate, calibrate, export, promote; and the way back.

    SERVICE/
      service.json                 how days are prepared, where versions go, and which run it all began with
      live.json                    the live model: day, run and version, and those that were live before it
      days/2025-02-17/data/        the day and the late days before it, prepared
      days/2025-02-17/late/        rows of the days before that earlier slices did not have
      days/2025-02-17/run/         the live model, trained on the day
      days/2025-02-17/gate.json    the gate's figures and reasons
      days/2025-02-17/version/     the export, until it is promoted
      days/2025-02-17/day.json     how the day ended; written last

Every step leaves its result under its own name only when it is whole, and a day that was interrupted goes on with the
step that has no result yet.
"""

import contextlib
import datetime
import fcntl
import shutil
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tfmtr import training
from tfmtr.calibration import calibrate
from tfmtr.datasets.engines.duckdb import read_files
from tfmtr.datasets.groups import to_globe
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.prepared import Prepared
from tfmtr.datasets.sampling import digest
from tfmtr.documents import read_facts, read_json, write_json
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.export import export, publish
from tfmtr.gate import gate
from tfmtr.scratch import scratch, sweep
from tfmtr.serving.errors import ServerError
from tfmtr.serving.recommend import recommend
from tfmtr.serving.server import Server
from tfmtr.serving.versions import find_versions

DAY = datetime.timedelta(days=1)
PATHS = ("events", "users", "titles", "availability", "user_vectors", "title_vectors")
LOOKBACKS = ("activity_lookback", "discovery_lookback")
SAMPLINGS = ("random", "active")
LATE = "tmp-late-"


def start_service(service, run, out, **tables):
    """Makes a service directory of a trained run; the days then go on from there.

    The tables, columns, tasks and options are those that the run's data were prepared with.

    Args:
        service: Directory to make.
        run: Run directory made by `tfmtr train`.
        out: Directory of the served model, where versions are published.
        **tables: Paths that replace those of the run's data: `events`, `users`, `titles`, `availability`,
            `user_vectors`, `title_vectors`.

    Raises:
        ValueError: If the service exists already, a table is not there any more, or title vectors would change their
            meaning every day.
    """
    service, run = Path(service), Path(run).absolute()
    data = Prepared(Path(training.read_run(run)["data"]).absolute())
    report = data.report
    if (service / "service.json").exists():
        raise ValueError(f"`service` must be new to start it from a run; leave out --start. Received: {service}")
    logs = {**report["logs"], **{name: str(path) for name, path in tables.items()}}
    if logs["title_vectors"] is None and report["options"]["text_encoder"] is None:
        raise ValueError(
            "Titles need vectors that mean the same every day: prepare and train with --title-vectors of an upstream "
            "store or with --text-encoder. TF-IDF is fitted anew to each day's titles, and the model would not know "
            f"them again. Received: {run}, trained with TF-IDF"
        )
    logs |= {name: str(path.absolute()) for name, path in _paths(logs).items()}
    gone = [name for name, path in _paths(logs).items() if not path.exists()]
    if gone:
        raise ValueError(
            "The log's tables must be there and grow day after day: prepare with `tfmtr prepare events`, or say where "
            f"they are now (--{gone[0].replace('_', '-')}). Received: {', '.join(f'{n} {logs[n]}' for n in gone)}"
        )
    tests = [window for window in report["windows"] if window["window"] > 0]
    document = {
        "run": str(run),
        "data": str(data.path),
        "out": str(Path(out).absolute()),
        "logs": {name: value for name, value in logs.items() if name != "calendar"},
        "options": report["options"],
        "since": tests[-1]["start"] if tests else report["windows"][-1]["end"],  # the last slice is not trained on
    }
    service.mkdir(parents=True, exist_ok=True)
    write_json(service / "service.json", document)


def daily(service, day, *, groups=None, late_days=2, max_drop=0.05, max_shift=0.3, epochs=1, retry=False, say=print):
    """Brings a service one day further.

    1. Prepares the day's rows (with a `time_zones` table each territory's own day) and those of `late_days` before.
    2. Trains the live model on the day's rows and on those of the days before that came late.
    3. Compares it with the live model; if the gate is closed, the live model stays, and the day's rows are left out of
       the days to come, until `retry`.
    4. Calibrates, exports with the title index of the day after, asks the export for some users' titles.
    5. Publishes the version, from which a server takes it, and notes it as the live one.

    Args:
        service: Directory made by `start_service`.
        day: `datetime.date`, the day whose events are complete.
        groups: `{territory: group}` of territories or groups that are new, kept for the days to come; a territory that
            is in no group joins that of its nearest neighbour, or has the default branch.
        late_days: Days that late events may be of.
        max_drop: As for `tfmtr.gate.gate`.
        max_shift: As for `tfmtr.gate.gate`.
        epochs: Times that each row is seen.
        retry: Whether to do a day again that was refused or rolled back.
        say: Function that shows a line.

    Returns:
        The document `day.json`: `day`, `status` (`"promoted"` or `"refused"`), `reasons`, `version`, `run`, `rows`,
        `late_rows`, `grown`, `fallbacks`.

    Raises:
        ValueError: If there is no such service, the day lies before the newest one, or a table has other columns than
            the data that the live model was trained on.
    """
    service = Path(service).absolute()
    settings = read_service(service)
    folder = service / "days" / day.isoformat()
    with _locked(service):
        if groups:
            settings["logs"]["groups"] = {**(settings["logs"]["groups"] or {}), **groups}
            write_json(service / "service.json", settings)
        live = read_live(service)
        if live["day"] == day.isoformat():  # published before an interruption: go on from the model before
            live = {**live["before"][-1], "before": live["before"][:-1]}
        done = read_json(folder / "day.json")
        if done and not (retry and done["status"] != "promoted"):
            say(f"{day}: was there, {done['status']}")
            return done
        newest = max(((read_json(d / "day.json") or {}).get("day", "") for d in service.glob("days/*")), default="")
        if day.isoformat() < newest and not retry:
            raise ValueError(f"`day` must come after the newest one, {newest}. Received: {day}")
        if day.isoformat() < settings["since"][:10]:
            raise ValueError(
                f"`day` must not lie in the data of the run that the service began with, which end on "
                f"{settings['since'][:10]}. Received: {day}"
            )
        if done:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for parent, prefix in ((folder, ".data."), (folder, LATE), (Path(settings["out"]), "tmp-")):
            sweep(parent, prefix)  # a step whose result is there leaves them to nobody else
        data = _prepare(settings, live, folder / "data", day, late_days)
        rows = _count(data.examples("train", windows=[0], sampling=SAMPLINGS))
        say(f"{day}: prepared {rows} rows")
        late = _late(service, data, folder / "late", day, settings)
        grown = training.go_on(
            live["run"], data.path, _files(live["run"], data, late), folder / "run", epochs=epochs, verbose=0
        )
        say(f"{day}: trained, {_count(late)} late rows, {len(grown)} variables grew")
        found = read_json(folder / "gate.json")
        if found is None:
            found = gate(live["run"], folder / "run", data.path, max_drop=max_drop, max_shift=max_shift)
            write_json(folder / "gate.json", found)
        result = {
            "day": day.isoformat(),
            "status": "promoted" if found["is_open"] else "refused",
            "reasons": found["reasons"],
            "version": None,
            "run": str(folder / "run"),
            "rows": rows,
            "late_rows": _count(late),
            "grown": grown,
            "fallbacks": count_fallbacks(data),
        }
        if found["is_open"]:
            result["version"] = _promote(service, settings, live, folder, data, day)
        write_json(folder / "day.json", result)
    for line in _summary(result, found):
        say(f"{day}: {line}")
    return result


def rollback(service, *, say=print):
    """Makes the model live again that was so before; its version is published anew, under the next number.

    Returns:
        The new document `live.json`.

    Raises:
        ValueError: If no model was live before.
    """
    service = Path(service).absolute()
    settings = read_service(service)
    with _locked(service):
        live = read_live(service)
        if not live["before"]:
            raise ValueError(f"No model was live before; there is nothing to go back to. Received: {service}")
        *earlier, previous = live["before"]
        out = Path(settings["out"])
        source = out / str(previous["version"])
        if previous["version"] is None or not source.is_dir():  # the run that the service began with
            number = int(export(previous["run"], _data(settings, previous["run"]).path, out).name)
        else:
            number = _publish(source, out)
        new = {**previous, "version": number, "before": earlier}
        if live["day"]:
            file = service / "days" / live["day"] / "day.json"
            write_json(file, {**read_json(file), "status": "rolled back"})
        write_json(service / "live.json", new)
    say(f"live: {new['day'] or 'the run it began with'}, as version {number}; was {live['day']}, {live['version']}")
    return new


def read_service(service):
    """The document `service.json`.

    Raises:
        ValueError: If there is none.
    """
    document = read_json(Path(service) / "service.json")
    if document is None:
        raise ValueError(
            f"`service` must be a service's directory; make one with `tfmtr daily --start RUN`. Received: {service}"
        )
    return document


def read_live(service):
    """The document `live.json`; before the first day the run that the service began with."""
    live = read_json(Path(service) / "live.json")
    return live or {"day": None, "run": read_service(service)["run"], "version": None, "before": []}


def count_fallbacks(data):
    """How many users and titles of a prepared day are served by a fallback.

    Args:
        data: A `Prepared`.

    Returns:
        `{"users_of_the_default_branch", "cold_users", "cold_titles"}`: users of territories without a group; users
        without an event or a vector, who get what is popular in their territory; titles of the next catalogue that
        nobody has had yet, whose vectors come from their features alone.
    """
    con = ibis.duckdb.connect()
    users = read_files(con, [data.path / "users.parquet"])
    seen = read_files(con, [data.path / "seen.parquet"])
    titles = read_files(con, [data.path / "availability.parquet"])
    titles = titles.filter(titles.window == data.next_window).select("title").distinct()
    known = [territory for (territory,) in data.schema.scenario.groups]
    cold = users.anti_join(seen, "user")
    if data.vectors("user") is not None:
        cold = cold.filter(cold.user_row < 0)
    return {
        "users_of_the_default_branch": int(con.execute(users.filter(~users.territory.isin(known)).count())),
        "cold_users": int(con.execute(cold.count())),
        "cold_titles": int(con.execute(titles.anti_join(seen, "title").count())),
    }


def _paths(logs):
    """The tables and stores that a log has, `{name: Path}`."""
    return {name: Path(logs[name]) for name in PATHS if logs[name] not in (None, "anywhere")}


def _data(settings, run):
    """The `Prepared` directory of the first run or of a day's."""
    return Prepared(settings["data"] if run == settings["run"] else Path(run).parent / "data")


def _prepare(settings, live, out, day, late_days):
    """Prepares the day and the days before it, with the live model's groups."""
    if (out / "prepare.json").is_file():
        return Prepared(out)
    logs = dict(settings["logs"])
    like = _data(settings, live["run"])
    groups = {territory: group for (territory,), group in like.schema.scenario.groups.items()}
    logs["groups"] = _join_neighbours({**groups, **(logs["groups"] or {})}, logs["neighbours"] or {})
    end = datetime.datetime.combine(day, datetime.time()) + DAY
    logs |= _paths(logs)
    logs["calendar"] = Calendar(DAY, late_days + 1, 0, end=end)
    options = dict(settings["options"])
    options |= {name: pd.Timedelta(options[name].replace(",", "")).to_pytimedelta() for name in LOOKBACKS}
    return prepare(Logs(**logs), out, **options, like=like, progress=False)


def _join_neighbours(groups, places):
    """The groups, with territories that have none but a place in the group of the nearest one."""
    known = [territory for territory in places if territory in groups]
    if not known:
        return groups
    points = to_globe([places[territory] for territory in known])
    new = {}
    for territory in sorted(set(places) - set(groups)):
        distances = np.sum((points - to_globe([places[territory]])) ** 2, axis=1)
        new[territory] = groups[known[int(np.argmin(distances))]]
    return {**groups, **new}


def _late(service, data, out, day, settings):
    """Files of the rows of earlier days that no slice before had: positives, and `alpha` negatives for each."""
    if not out.is_dir():
        with scratch(out.parent, LATE) as place:
            staging = place / out.name
            staging.mkdir()
            _write_late(service, data, staging, day, settings)
            staging.rename(out)
    return [file for file in sorted(out.glob("*.parquet")) if pq.read_metadata(file).num_rows]


def _write_late(service, data, out, day, settings):
    con = ibis.duckdb.connect()
    windows = [w for w in data.report["windows"] if w["window"] < 0 and w["start"] >= settings["since"]]
    earlier = [d for d in sorted(service.glob("days/*")) if d.name < day.isoformat() and (d / "day.json").exists()]
    task = data.schema.tasks[0]
    for sampling in SAMPLINGS:
        tables = []
        for window in windows:
            files = data.examples("train", windows=[window["window"]], sampling=[sampling])
            if files:
                rows = read_files(con, files)
                known = [file for d in earlier for file in _slices(d, window["start"], sampling)]
                if known:
                    rows = rows.anti_join(read_files(con, known).select("user", "title"), ("user", "title"))
                positive = rows[task.column] > 0
                wanted = round(settings["options"]["alpha"] * con.execute(rows.filter(positive).count()))
                others = rows.filter(~positive).order_by(digest(0, "late", rows.user, rows.title)).limit(wanted)
                tables += [rows.filter(positive), others]
        if tables:
            table = con.to_pyarrow(ibis.union(*tables).order_by("user", "title"))
            pq.write_table(table, out / f"{sampling}.parquet")


def _slices(folder, start, sampling):
    """Training files of an earlier day's directory whose window starts at `start`: trained on, or refused."""
    data = Prepared(folder / "data")
    numbers = [window["window"] for window in data.report["windows"] if window["start"] == start]
    if read_json(folder / "day.json")["status"] != "promoted":
        numbers = [number for number in numbers if number == 0]  # what came late that day may still be trained on
    return data.examples("train", windows=numbers, sampling=[sampling])


def _files(run, data, late):
    """What the recipe of a run is trained on."""
    sampling = SAMPLINGS if training.recipe_of(training.read_run(run)).upsample else SAMPLINGS[:1]
    return [
        *data.examples("train", windows=[0], sampling=sampling),
        *(file for file in late if file.stem in sampling),
    ]


def _promote(service, settings, live, folder, data, day):
    """Calibrates, exports, tries and publishes; returns the version's number."""
    now = read_json(service / "live.json")
    if now and now["day"] == day.isoformat():  # published before an interruption
        shutil.rmtree(folder / "version", ignore_errors=True)
        return now["version"]
    before = read_json(Path(live["run"]) / "calibration.json") or {"by": "territory", "method": "platt"}
    calibrate(folder / "run", data.path, by=before["by"], method=before["method"])
    shutil.rmtree(folder / "version", ignore_errors=True)
    version = export(folder / "run", data.path, folder / "version")
    try_version(version, data)
    out = Path(settings["out"])
    run_id, (versions, _) = training.read_run(folder / "run")["run_id"], find_versions(out)
    there = [number for number, path in versions.items() if (read_facts(path) or {}).get("run_id") == run_id]
    number = max(there) if there else _publish(version, out)
    entry = {name: live[name] for name in ("day", "run", "version")}
    new = {"day": day.isoformat(), "run": str(folder / "run"), "version": number, "before": [*live["before"], entry]}
    write_json(service / "live.json", new)
    shutil.rmtree(folder / "version", ignore_errors=True)
    return number


def try_version(version, data, *, num_users=20):
    """Serves a version on a port of its own and asks for the titles of some users.

    Args:
        version: Directory of the version.
        data: The `Prepared` directory that the users are from.
        num_users: How many are asked for, the first of the table.

    Raises:
        ValueError: If it does not load, or an answer holds no title, or a score that is not finite.
    """
    users = read_files(ibis.duckdb.connect(), [data.path / "users.parquet"]).limit(num_users).to_pyarrow()["user"]
    try:
        with Server(version.parent, model_name="trial", port=0) as server:
            for user in users.to_pylist():
                titles = recommend(f"127.0.0.1:{server.port}", "trial", data.path, user, k=1)["titles"]
                if not titles or not np.isfinite(titles[0]["score"]):
                    raise ValueError(f"`{version}` must have a title for every user. Received: {titles} for {user!r}")
    except ServerError as error:
        raise ValueError(f"`{version}` must load and answer. Received: {error}") from error


def _publish(version, out):
    """Copies a version to the next free number of `out`, there at once; returns the number."""
    with scratch(out, "tmp-") as folder:
        shutil.copytree(version, folder / "version")
        return int(publish(folder / "version", out).name)


def _summary(result, found):
    """The lines that a day ends with."""
    for task, slices in found["parts"]["last"].items():
        cell = next(iter(slices.values()))[OVERALL]
        if cell["change"] is not None:
            yield f"{task}: live {cell['live']:.4f}, new {cell['candidate']:.4f} ({cell['change']:+.1%})"
    if result["status"] == "promoted":
        yield f"promoted as version {result['version']}"
    else:
        yield "the gate is closed, the live model stays"
        yield from result["reasons"]


def _count(files):
    return sum(pq.read_metadata(file).num_rows for file in files)


@contextlib.contextmanager
def _locked(service):
    """Keeps a second process out of a service; the lock goes with the process that holds it."""
    with (service / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"Another process works on the service {service}; wait until it has ended.") from None
        yield

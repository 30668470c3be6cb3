"""The directory of a service, which model is live, and the way back.

The directory has

SERVICE/
  service.json           how days are prepared, where versions go, and which runs it all began with
  live.json              the live model: day, run and version, and those that were live before it
  days/2025-02-17/       a day; see `tfmtr.operations.day`
  .lock                  who works on it
"""

import contextlib
import datetime
import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfmtr.checks import check_integer, check_number
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.logs import PATHS
from tfmtr.datasets.text import TEXT
from tfmtr.documents import read_facts, read_json, write_json
from tfmtr.export_sources import Ranker, Source
from tfmtr.exporting import export, publish
from tfmtr.folders import FORMATS, check_format
from tfmtr.retrieval.second_stage import CANDIDATES
from tfmtr.run import Run
from tfmtr.scratch import scratch
from tfmtr.serving.versions import find_versions
from tfmtr.signatures._signature import functions_of
from tfmtr.version import RANKING

PLAN = "publishing.json"
SIGNATURES = "signatures"  # key of service.json, where there are any
RUNS = ("run", RANKING)  # keys of live.json; the second one where the service has two stages, as of service.json


class LockedError(ValueError):
    """Another process works on the service."""

    exit_code = 6


def start_service(
    service: str | os.PathLike,
    run: str | os.PathLike,
    out: str | os.PathLike,
    *,
    signatures: Sequence[str] | None = None,
    ranking: str | os.PathLike | None = None,
    candidates: int = CANDIDATES,
    first_weight: float | None = None,
    **tables: str | os.PathLike,
) -> None:
    """Makes a service directory of a trained run; the days then go on from there.

    The tables, columns, tasks and options are those that the run's data were prepared with.

    Args:
        service: Directory to make.
        run: Run directory made by `tfmtr train`.
        out: Directory of the served model, where versions are published.
        signatures: Import paths of further signatures of the exports; see `tfmtr.exporting.export`.
        ranking: Run directory of a ranking model on the same log, which orders what the index finds and goes on day by
            day likewise: on candidates if it was trained on candidates, otherwise on the day's own examples.
        candidates: As for `tfmtr.exporting.export`.
        first_weight: As for `tfmtr.exporting.export`, chosen here by default; it stays the same on all days.
        **tables: Paths that replace those of the run's data: `events`, `users`, `titles`, `availability`,
            `user_vectors`, `title_vectors`.

    Raises:
        ValueError: If the service exists already, the run's data or a table are not there any more, title vectors would
            change their meaning every day, as those of earlier versions' data would, or there is no such signature; or
            if `ranking` is none that `export` would take with `run`, or was trained on another log.
    """
    functions_of(signatures or ())
    candidates = check_integer("candidates", candidates, least=1)
    if first_weight is not None:
        first_weight = check_number("first_weight", first_weight)
    service, run = Path(service), Path(run).absolute()
    if (service / "service.json").exists():
        raise ValueError(f"`service` must be new to start it from a run; leave out --start. Received: {service}")
    Run(run).check_form()
    data = Run(run).data
    report = data.report
    logs = {**report["logs"], **{name: str(path) for name, path in tables.items()}}
    if not logs.get("has_times", True) or logs.get("split_column") is not None:
        raise ValueError(
            "`run` must be of data with times and without a given split, to go on day by day. Received: "
            f"{data.path}, prepared with {'--split-column' if logs.get('split_column') is not None else '--no-times'}"
        )
    is_fitted = logs["title_vectors"] is None and report["options"]["text_encoder"] is None
    if is_fitted and not (data.path / TEXT).is_file():
        raise ValueError(
            "Titles need vectors that mean the same every day; prepare and train anew, and what is fitted on texts is "
            f"kept. Received: {data.path}, prepared by an earlier version, without {TEXT}"
        )
    logs |= {name: str(path.absolute()) for name, path in table_paths(logs).items()}
    gone = [name for name, path in table_paths(logs).items() if not path.exists()]
    if gone:
        raise ValueError(
            "The log's tables must be there and grow day after day: prepare with `tfmtr prepare events`, or say where "
            f"they are now (--{gone[0].replace('_', '-')}). Received: {', '.join(f'{n} {logs[n]}' for n in gone)}"
        )
    if (columns := data.schema.scenario.columns) != ("territory",):
        raise ValueError(
            "`run` must be of data whose scenarios are groups of territories, to go on day by day; prepare without "
            f"--scenario. Received: {data.path}, whose scenario is {list(columns)}"
        )
    tests = [window for window in report["windows"] if window["window"] > 0]
    document = {
        "format": FORMATS["service"],
        "run": str(run),
        "data": str(data.path.absolute()),
        "out": str(Path(out).absolute()),
        "logs": {name: value for name, value in logs.items() if name != "calendar"},
        "options": report["options"],
        "since": tests[-1]["start"] if tests else report["windows"][-1]["end"],  # the last slice is not trained on
    }
    if ranking is not None:
        document[RANKING] = _second_stage(run, Path(ranking).absolute(), candidates, first_weight)
    keep_signatures(document, signatures)
    service.mkdir(parents=True, exist_ok=True)
    write_json(service / "service.json", document)


def _second_stage(run: Path, ranking: Path, candidates: int, first_weight: float | None) -> dict[str, Any]:
    """What `service.json` says of a ranking model."""
    source = Source.of(run, None)
    ranker, data = Ranker.of(ranking, source), Run(ranking).data
    if data.log_fingerprint != source.titles.log_fingerprint:
        raise ValueError(
            "`ranking` must be a run on the log of `run`, on its own examples or on candidates of them: a day is "
            f"prepared once for both. Received: {ranking}, on {data.path}"
        )
    if first_weight is None:
        first_weight = ranker.choose_first_weight(source, candidates)["weight"]
    made = data.report.get("candidates")
    lists = None
    if made is not None:
        lists = {"candidates": made["number"], "negatives": made["negatives"], "seed": made["seed"]}
    return {
        "run": str(ranking),
        "data": str(data.path.absolute()),
        "candidates": candidates,
        "first_weight": first_weight,
        "lists": lists,
    }


def stages_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How a service's second stage is served: `candidates` and `first_weight`, nothing if it has none."""
    return {name: settings[RANKING][name] for name in ("candidates", "first_weight")} if RANKING in settings else {}


def keep_signatures(document: dict[str, Any], signatures: Sequence[str] | None) -> None:
    """Notes in the document `service.json` which further signatures exports have; `None` leaves those that it has."""
    if signatures is not None:
        document.pop(SIGNATURES, None)
        document |= {SIGNATURES: list(signatures)} if signatures else {}


def signatures_in(document: Mapping[str, Any]) -> list[str]:
    """Import paths of the further signatures that exports of a service have."""
    return document.get(SIGNATURES, [])


def rollback(service: str | os.PathLike, *, say: Callable[[str], object] = print) -> dict[str, Any]:
    """Makes the model live again that was so before; its version is published anew, under the next number.

    Returns:
        The new document `live.json`, with the run's whole path.

    Raises:
        ValueError: If no model was live before.
        LockedError: If another process works on the service.
    """
    service = Path(service).absolute()
    settings = read_service(service)
    with owned(service):
        settle(service, settings)
        live = read_live(service)
        if not live["before"]:
            raise ValueError(f"No model was live before; there is nothing to go back to. Received: {service}")
        *earlier, previous = live["before"]
        out, run = Path(settings["out"]), previous["run"]
        source = out / str(previous["version"])
        records = {}
        if live["day"]:
            records[live["day"]] = {**read_json(service / "days" / live["day"] / "day.json"), "status": "rolled back"}  # pyright: ignore[reportGeneralTypeIssues]

        def put() -> None:
            if previous["version"] is None or not source.is_dir():  # the run that the service began with
                options: dict[str, Any] = {"signatures": signatures_in(settings)}
                if RANKING in settings:
                    options |= {"ranking": previous[RANKING], **stages_of(settings)}
                export(run, out, titles=data_of(settings, run).path, **options)
            else:
                publish_copy(source, out)

        new = make_live(service, settings, {**previous, "before": earlier}, records, put)
    name = new["day"] or "the run it began with"
    say(f"live: {name}, as version {new['version']}; was {live['day']}, {live['version']}")
    return new


def make_live(
    service: Path,
    settings: Mapping[str, Any],
    live: Mapping[str, Any],
    records: Mapping[str, Mapping[str, Any]],
    put: Callable[[], object],
) -> dict[str, Any]:
    """Publishes a version and notes it as the live one; what is interrupted in between, `settle` brings to an end.

    Args:
        service: Directory of the service.
        settings: The document `service.json`.
        live: The document `live.json` to be, but for its version.
        records: `{day: document day.json to be}`; one that is promoted gets the version, all of them what is live.
        put: Function that publishes a version of the run.

    Returns:
        The new document, as `read_live` returns it.
    """
    versions, _ = find_versions(Path(settings["out"]))
    run_id = Run(live["run"]).run_id
    plan = {"after": max(versions, default=0), "run_id": run_id, "live": live, "records": records}
    write_json(service / PLAN, plan)
    put()
    settle(service, settings)
    return read_live(service)


def settle(service: Path, settings: Mapping[str, Any]) -> None:
    """Ends what an interruption left half done: a version that is published is live, one that is not never was meant.

    Servers take what is published, so that is the moment that counts.
    """
    plan = read_json(service / PLAN)
    if plan is None:
        return
    versions, _ = find_versions(Path(settings["out"]))
    newer = [n for n, path in versions.items() if n > plan["after"]]
    newer = [n for n in newer if (read_facts(versions[n]) or {}).get("run_id") == plan["run_id"]]
    if newer:
        live = {**plan["live"], "version": max(newer)}
        shown = {name: live[name] for name in ("day", "run", "version")}
        for day, record in plan["records"].items():
            version = live["version"] if record["status"] == "promoted" else record["version"]
            write_json(service / "days" / day / "day.json", {**record, "version": version, "live": shown})
        entries = [
            {**entry, **{name: _inside(service, entry[name]) for name in RUNS if name in entry}}
            for entry in (live, *live["before"])
        ]
        write_json(service / "live.json", {**entries[0], "before": entries[1:]})
    (service / PLAN).unlink()


def _inside(service: Path, run: str | os.PathLike) -> str:
    """The path of a run, from the service's directory if it is in it: the directory may be moved."""
    run = Path(run)
    return str(run.relative_to(service)) if run.is_relative_to(service) else str(run)


def read_service(service: str | os.PathLike) -> dict[str, Any]:
    """The document `service.json`.

    Raises:
        ValueError: If there is none, or a newer version of this package wrote it.
    """
    document = read_json(Path(service) / "service.json")
    if document is None:
        raise ValueError(
            f"`service` must be a service's directory; make one with `tfmtr daily --start RUN`. Received: {service}"
        )
    check_format("service", document, service)
    return document


def read_live(service: str | os.PathLike) -> dict[str, Any]:
    """The document `live.json` with whole paths; before the first day the run that the service began with."""
    live = read_json(Path(service) / "live.json")
    if live is None:
        settings = read_service(service)
        runs = {"run": settings["run"]} | ({RANKING: settings[RANKING]["run"]} if RANKING in settings else {})
        return {"day": None, **runs, "version": None, "before": []}
    root = Path(service).absolute()
    first, *before = [
        {**entry, **{name: str(root / entry[name]) for name in RUNS if name in entry}}
        for entry in (live, *live["before"])
    ]
    return {**first, "before": before}


def table_paths(logs: Mapping[str, Any]) -> dict[str, Path]:
    """The tables and stores that a log has, `{name: Path}`."""
    return {name: Path(logs[name]) for name in PATHS if logs[name] not in (None, "anywhere")}


def data_of(settings: Mapping[str, Any], run: str) -> Dataset:
    """The `Dataset` directory of a service's first run or of a day's."""
    return Dataset(settings["data"] if run == settings["run"] else Path(run).parent / "data")


def publish_copy(version: Path, out: Path) -> int:
    """Copies a version to the next free number of `out`, there at once; returns the number."""
    with scratch(out, "tmp-") as folder:
        shutil.copytree(version, folder / "version")
        return int(publish(folder / "version", out).name)


@contextlib.contextmanager
def owned(service: Path) -> Iterator[None]:
    """Keeps a second process out of a service; the lock goes with the process that holds it, however that ends.

    Raises:
        LockedError: If another process holds it; the message says which, on which machine, since when.
    """
    with (service / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise LockedError(
                f"Another process works on the service {service}: {file.read().strip() or 'it just began'}. Wait until "
                "it has ended; the lock of one that was killed is free."
            ) from None
        file.truncate(0)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}\n")
        file.flush()
        yield

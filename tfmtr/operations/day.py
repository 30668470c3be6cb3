"""A service's day: prepare, check the data, train, gate, calibrate, export, publish.

    days/2025-02-17/data/        the day and the late days before it, prepared
    days/2025-02-17/late/        rows of the days before that earlier slices did not have
    days/2025-02-17/run/         the live model, trained on the day
    days/2025-02-17/gate.json    the gate's figures and reasons
    days/2025-02-17/version/     the export, until it is published
    days/2025-02-17/keys.json    what each step was made from
    days/2025-02-17/day.json     the day's record; written last

Every step leaves its result under its own name only when it is whole. A day that is run again, interrupted or mended,
goes on with the first step that has no result yet or whose inputs have changed since.
"""

import datetime
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ibis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tfmtr import training
from tfmtr.calibration import calibrate
from tfmtr.checks import check_integer
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.discovery import EmptyWindowError
from tfmtr.datasets.drift import moved_users, silent_shares
from tfmtr.datasets.engines.duckdb import read_files
from tfmtr.datasets.groups import to_globe
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.seen import had_pairs
from tfmtr.documents import read_json, write_json
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.exporting import export
from tfmtr.operations.checks import (
    MAX_LOSS,
    MAX_MOVE,
    MAX_SHARE,
    SILENT,
    SURE,
    WEEK,
    check_data,
    days_expected,
    notes_of,
    reasons_of,
)
from tfmtr.operations.gating import check_bounds, gate
from tfmtr.operations.late_rows import LATE, SAMPLINGS, account, ended_days, late_files
from tfmtr.operations.service import (
    SIGNATURES,
    data_of,
    keep_signatures,
    make_live,
    owned,
    publish_copy,
    read_live,
    read_service,
    settle,
    signatures_in,
    table_paths,
)
from tfmtr.operations.steps import Steps, state_of
from tfmtr.run import Run
from tfmtr.schema import Schema, check_choice
from tfmtr.scratch import remove, sweep
from tfmtr.serving.errors import ServerError
from tfmtr.serving.recommend import recommend
from tfmtr.serving.server import Server
from tfmtr.serving.versions import find_versions
from tfmtr.signatures._signature import functions_of
from tfmtr.version import Version

Result = TypeVar("Result")

DAY = datetime.timedelta(days=1)
LOOKBACKS = ("activity_lookback", "discovery_lookback")
BEFORE = "data-before"  # of a day that is done again, until it is prepared
RESULTS = {"prepare": ("late", "data"), "train": ("run",), "gate": ("gate.json",), "export": ("version",)}


class NoDataError(ValueError):
    """The log has no event on the day; nothing has changed."""

    exit_code = 4


class BadDataError(ValueError):
    """A table is not what it must be; nothing is made of it."""

    exit_code = 5


def daily(
    service: str | os.PathLike,
    day: datetime.date,
    *,
    groups: Mapping[str, str] | None = None,
    late_days: int = 2,
    max_drop: float = 0.05,
    max_shift: float = 0.3,
    max_loss: float = MAX_LOSS,
    max_share: float = MAX_SHARE,
    max_move: float = MAX_MOVE,
    epochs: int = 1,
    missing_vectors: str | None = None,
    signatures: Sequence[str] | None = None,
    retry: bool = False,
    again_from: str | None = None,
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Brings a service one day further.

    1. Prepares the day's rows (with a `time_zones` table each territory's own day) and those of `late_days` before.
    2. Judges the data: if they are unlike those of the live model beyond a bound, nothing is trained on them.
    3. Trains the live model on the day's rows and on those of the days before that came late.
    4. Compares it with the live model; if the gate is closed, here or in step 2, the live model stays, and the day's
       rows are left out of the days to come, until the day is done again.
    5. Calibrates, exports with the title index of the day after, asks the export for some users' titles.
    6. Publishes the version, from which a server takes it, and notes it as the live one.

    A day that failed or was interrupted is run again by the same call. Results of steps whose inputs are the same as
    before are used again: the tables' files, the options, the live model.

    Args:
        service: Directory made by `start_service`.
        day: `datetime.date`, the day whose events are complete.
        groups: `{territory: group}` of territories or groups that are new, kept for the days to come; a territory that
            is in no group joins that of its nearest neighbour, or has the default branch.
        late_days: Days that late events may be of.
        max_drop: As for `tfmtr.operations.gating.gate`.
        max_shift: As for `tfmtr.operations.gating.gate`.
        max_loss: As for `tfmtr.operations.checks.check_data`.
        max_share: As for `tfmtr.operations.checks.check_data`.
        max_move: As for `tfmtr.operations.checks.check_data`.
        epochs: Times that each row is seen.
        missing_vectors: As for `tfmtr.datasets.prepare.prepare`, from this day on; as before by default.
        signatures: Import paths of further signatures of the export, from this day on (see
            `tfmtr.exporting.export`); `()` for none, as before by default.
        retry: Whether to do a day again that was refused or rolled back.
        again_from: Step from which a day is done again, whatever its results are made from: `"prepare"`, `"train"`,
            `"gate"` or `"export"`.
        say: Function that shows a line.

    Returns:
        The day's record, `day.json`; see `tfmtr.operations.record`.

    Raises:
        ValueError: If there is no such service or signature, an option is not what it must be, or the day lies before
            the newest one.
        LockedError: If another process works on the service.
        NoDataError: If the log has no event on the day.
        BadDataError: If a table cannot be prepared, or has other columns than the live model's data.
    """
    limits = {"max_drop": max_drop, "max_shift": max_shift, "max_loss": max_loss, "max_share": max_share}
    limits |= {"max_move": max_move}
    check_options(limits, late_days=late_days, epochs=epochs, missing_vectors=missing_vectors, again_from=again_from)
    service, late_days, epochs = Path(service).absolute(), int(late_days), int(epochs)
    settings = read_service(service)
    functions_of(signatures_in(settings) if signatures is None else signatures)
    keep_signatures(settings, signatures)
    folder, again = service / "days" / day.isoformat(), retry or again_from is not None

    def tell(line: str) -> None:
        say(f"{day}: {line}")

    with owned(service):
        settle(service, settings)
        for earlier in service.glob("days/*"):
            restore(earlier)
        for parent, prefix in ((folder, ".data."), (folder, LATE), (Path(settings["out"]), "tmp-")):
            sweep(parent, prefix)  # a step whose result is there leaves them to nobody else
        live = read_live(service)
        done = read_json(folder / "day.json")
        if done and not (again and done["status"] != "promoted"):
            if again and live["day"] != day.isoformat():
                raise ValueError(f"`day` was promoted, and what came after it goes on from there. Received: {day}")
            if again:
                raise ValueError(
                    f"`day` must not be live to be done again; go back first (tfmtr rollback). Received: {day}"
                )
            tell(f"was there, {done['status']}" + ("" if done["status"] == "promoted" else "; --retry does it again"))
            return done
        if day.isoformat() < settings["since"][:10]:
            raise ValueError(
                f"`day` must not lie in the data of the run that the service began with, which end on "
                f"{settings['since'][:10]}. Received: {day}"
            )
        newest = max(
            (d.name for d in ended_days(service) if read_json(d / "day.json")["status"] != "refused"), default=""
        )
        if day.isoformat() < newest and not done:
            raise ValueError(
                f"`day` must come after the newest one, {newest}; rows of days that were skipped are trained on as "
                f"late ones, as far as --late-days looks back. Received: {day}"
            )
        if missing_vectors is not None:
            settings["options"]["missing_vectors"] = missing_vectors
        if groups:
            settings["logs"]["groups"] = {**(settings["logs"]["groups"] or {}), **groups}
        folder.mkdir(parents=True, exist_ok=True)
        steps = Steps(folder, RESULTS, tell, again_from)
        record = _Day(service, settings, live, folder, day, steps, tell).run(late_days, epochs, limits, groups or {})
    for line in _summary(record):
        tell(line)
    return record


def check_options(
    limits: Mapping[str, float], *, late_days: int, epochs: int, missing_vectors: str | None, again_from: str | None
) -> None:
    """Raises a `ValueError` unless the options of `daily` are what they must be."""
    check_integer("late_days", late_days, least=0)
    check_integer("epochs", epochs, least=1)
    if missing_vectors is not None:
        check_choice("missing_vectors", missing_vectors, ("error", "zero"))
    if again_from is not None:
        check_choice("again_from", again_from, RESULTS)
    check_bounds(max_drop=limits["max_drop"], max_shift=limits["max_shift"])
    if not limits["max_move"] > 0:
        raise ValueError(f"`max_move` must be positive, such as 1.0. Received: max_move={limits['max_move']}")
    for name in ("max_loss", "max_share"):
        if not 0 < limits[name] <= 1:
            raise ValueError(f"`{name}` must be in (0, 1], such as 0.3 for 30 %. Received: {name}={limits[name]}")


class _Day:
    """One day of a service, step by step; keeps what the record tells."""

    def __init__(
        self,
        service: Path,
        settings: dict[str, Any],
        live: dict[str, Any],
        folder: Path,
        day: datetime.date,
        steps: Steps,
        tell: Callable[[str], object],
    ) -> None:
        self.service, self.settings, self.live = service, settings, live
        self.folder, self.day, self.steps, self.tell = folder, day, steps, tell
        self.seconds = {}
        self.record = {"day": day.isoformat(), "status": "refused", "reasons": [], "version": None}

    def run(
        self, late_days: int, epochs: int, limits: Mapping[str, float], groups: Mapping[str, str]
    ) -> dict[str, Any]:
        """The steps up to the first one that closes the gate; returns the record."""
        data = self.timed("prepare", self.prepare, late_days)
        write_json(self.service / "service.json", self.settings)  # with new groups and options
        unknown = sorted(set(groups) - set(data.report["statistics"]["territories"]))
        nobody = [f"`groups` names territories that no user lives in: {', '.join(unknown[:10])}"] if unknown else []
        late = self.timed("prepare", self.find_late, data)
        checks = self.timed("check", self.check, data, limits)
        self.record |= {"checks": checks, "notes": [*nobody, *notes_of(checks)], "reasons": reasons_of(checks)}
        self.record["fallbacks"] = count_fallbacks(data)
        if not self.record["reasons"]:
            self.timed("train", self.train, data, late, epochs)
            self.timed("gate", self.judge, data, limits)
        self.record |= {"limits": limits, "seconds": self.seconds}
        if not self.record["reasons"]:
            self.record["status"] = "promoted"
            self.timed("export", self.export, data)
            self.publish()
        else:
            self.record["live"] = {name: self.live[name] for name in ("day", "run", "version")}
            write_json(self.folder / "day.json", self.record)
        return read_json(self.folder / "day.json")  # pyright: ignore[reportReturnType]

    def timed(self, step: str, function: Callable[..., Result], *arguments: Any) -> Result:
        """Calls a function of a step and adds up its seconds."""
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            self.seconds[step] = round(self.seconds.get(step, 0.0) + time.perf_counter() - began, 2)

    def prepare(self, late_days: int) -> Dataset:
        """The `Dataset` directory of the day and the days before it, with the live model's groups."""
        settings, out = self.settings, self.folder / "data"
        logs = dict(settings["logs"])
        like = data_of(settings, self.live["run"])
        key = {
            **{name: state_of(path) for name, path in table_paths(logs).items()},
            "how it is prepared": {name: settings[name] for name in ("logs", "options")},
            "the number of late days": late_days,
            "the live model": Run(self.live["run"]).run_id,
        }
        self.steps.open("prepare", key, keep=BEFORE if (self.folder / "day.json").exists() else None)
        if (out / "prepare.json").is_file():
            self.tell("prepared before, from the same files")
            return Dataset(out)
        groups = {territory: group for (territory,), group in like.schema.scenario.groups.items()}
        logs["groups"] = _join_neighbours({**groups, **(logs["groups"] or {})}, logs["neighbours"] or {})
        end = datetime.datetime.combine(self.day, datetime.time()) + DAY
        logs |= table_paths(logs)
        logs["calendar"] = Calendar(DAY, late_days + 1, 0, end=end)
        options = dict(settings["options"])
        options |= {
            name: pd.Timedelta(options[name].replace(",", "")).to_pytimedelta()  # pyright: ignore[reportAttributeAccessIssue]
            for name in LOOKBACKS
            if options[name]
        }
        try:
            data = prepare(Logs(**logs), out, **options, like=like, progress=False)
        except EmptyWindowError as error:
            self.withdraw()
            raise NoDataError(f"no events on {self.day}; nothing has changed. {error}") from None
        except ValueError as error:
            self.withdraw()
            bad = BadDataError(str(error))
            for warning in getattr(error, "__notes__", ()):
                bad.add_note(warning)
            raise bad from error
        remove(self.folder / BEFORE)
        self.tell(f"prepared {_count(self.examples(data))} rows")
        return data

    def withdraw(self) -> None:
        """Leaves the day as it was: with the record and the data of an earlier run, or not begun."""
        if not (self.folder / "day.json").exists():
            shutil.rmtree(self.folder)
        else:
            restore(self.folder)

    def find_late(self, data: Dataset) -> list[Path]:
        """Files of late rows that are trained on; the record tells of those that are not, and of users who moved."""
        report, day = data.report, self.day.isoformat()
        rows = {date: counts["rows"] for date, counts in report["days"].items()}
        since = self.settings["since"][:10]
        windows = [w["start"][:10] for w in report["windows"] if w["start"][:10] >= since]
        earlier = ended_days(self.service, day)
        known = read_json(earlier[-1] / "day.json").get("late") if earlier else None
        if known is None:  # the first day, or the first one that this is counted on
            base = Dataset(self.settings["data"]).report.get("days", report["days"])
            known = {"accounted": {date: c["rows"] for date, c in base.items() if earlier or date < since}, "left": {}}
        counts = account(rows, windows, accounted=known["accounted"], left=known["left"], since=since)
        files = late_files(self.service, data, self.folder / "late", day, self.settings)
        moved = moved_users(data, data_of(self.settings, self.live["run"]))
        self.record |= {
            "rows": _count(self.examples(data)),
            "late_rows": _count(files),
            "funnel": report["funnel"],
            "warnings": report["warnings"],
            "late": {name: counts[name] for name in ("accounted", "left", "new")},
            "lost": counts["lost"],
            "moved": [{"from": then, "to": now, "users": users} for (then, now), users in moved.items()],
        }
        return files

    def check(self, data: Dataset, limits: Mapping[str, float]) -> list[dict[str, Any]]:
        """The checks of the data, and what is worth a look."""
        like, schema = data_of(self.settings, self.live["run"]), Schema.load(self.live["run"])
        records: Sequence[Mapping[str, Any]] = [
            read_json(folder / "day.json")  # pyright: ignore[reportAssignmentType]
            for folder in ended_days(self.service, self.day.isoformat())
        ]
        refused = {record["day"] for record in records if record["status"] != "promoted"}
        limits = {name: limits[name] for name in ("max_loss", "max_share", "max_move")}
        return check_data(
            data,
            like,
            schema,
            day=self.day.isoformat(),
            days=days_expected(data.report, refused),
            lost=self.record["lost"],
            usually_silent=self.usually_silent(records),
            **limits,
        )

    def usually_silent(self, records: Sequence[Mapping[str, Any]]) -> float:
        """The greatest share of the log that is of territories without an event, of one of the last seven days."""
        base, since = Path(self.settings["data"]), (self.day - WEEK * DAY).isoformat()
        is_near = self.settings["since"][:10] > since  # the data that the service began with end there
        shares = silent_shares(Dataset(base), most=WEEK, sure=SURE) if is_near and base.is_dir() else {}
        for record in records:
            for check in record.get("checks", ()):
                if check["name"] == SILENT and record["status"] == "promoted":
                    shares[record["day"]] = check["value"]
        return max((share for day, share in shares.items() if day >= since), default=0.0)

    def examples(self, data: Dataset) -> list[Path]:
        """Files of the day's own training rows, of random and of active users."""
        return data.examples("train", windows=[0], sampling=SAMPLINGS)

    def train(self, data: Dataset, late: Sequence[Path], epochs: int) -> None:
        """The live model goes on."""
        before, run = Run(self.live["run"]), self.folder / "run"
        key = {
            "the data": [data.report["fingerprint"], data.report.get("forgotten", 0)],
            "the late rows": [state_of(file) for file in late],
            "the live model": before.run_id,
            "the number of epochs": epochs,
        }
        self.steps.open("train", key)
        sampling = SAMPLINGS if before.recipe.upsample else SAMPLINGS[:1]
        files = data.examples("train", windows=[0], sampling=sampling)
        files += [file for file in late if file.stem in sampling]
        grown = training.go_on(self.live["run"], data.path, files, run, epochs=epochs, verbose=0)
        self.tell(f"trained on {_count(files)} rows, {_count(late)} of them late; {len(grown)} variables grew")
        self.record |= {"run": str(run), "grown": grown}
        self.record["fitted"] = {"rows": _count(files), "epochs": epochs, "stages": Run(run).document["stages"]}

    def judge(self, data: Dataset, limits: Mapping[str, float]) -> None:
        """The gate's second half: the new model against the live one."""
        bounds: dict[str, Any] = {name: limits[name] for name in ("max_drop", "max_shift")}
        earlier = self.earlier_lists()
        runs = [Run(run).run_id for run in (self.live["run"], self.folder / "run")]
        key = {"the live model": runs[0], "the new model": runs[1], "earlier days' lists": list(earlier), **bounds}
        self.steps.open("gate", key)
        found = read_json(self.folder / "gate.json")
        if found is None:
            found = gate(self.live["run"], self.folder / "run", data.path, earlier=list(earlier.values()), **bounds)
            write_json(self.folder / "gate.json", found)
        self.tell("judged")
        self.record |= {"reasons": found["reasons"], "gate": _overall(found), "lists": found.get("lists")}
        self.record["notes"] += found.get("notes", [])

    def earlier_lists(self) -> dict[str, Any]:
        """`{day: values of lists}` of the last days, the last one first, that were promoted and had any."""
        found = {}
        for folder in reversed(ended_days(self.service, self.day.isoformat())):
            values = (read_json(folder / "gate.json") or {}).get("list_values")
            if values and read_json(folder / "day.json")["status"] == "promoted":
                found[folder.name] = values
        return dict(list(found.items())[:WEEK])

    def export(self, data: Dataset) -> None:
        """Calibrates, exports and tries."""
        live, run, version = self.live, self.folder / "run", self.folder / "version"
        signatures = signatures_in(self.settings)
        self.steps.open(
            "export", {"the new model": Run(run).run_id, **({SIGNATURES: signatures} if signatures else {})}
        )
        before = read_json(Path(live["run"]) / "calibration.json") or {"by": "territory", "method": "platt"}
        calibrate(run, data.path, by=before["by"], method=before["method"])
        remove(version)
        try_version(export(run, version, titles=data.path, signatures=signatures), data)
        self.tell("exported and tried")

    def publish(self) -> None:
        """Publishes the version, makes it the live one and writes the record."""
        (version,) = find_versions(self.folder / "version")[0].values()
        entry = {name: self.live[name] for name in ("day", "run", "version")}
        live = {"day": self.day.isoformat(), "run": str(self.folder / "run"), "before": [*self.live["before"], entry]}
        records = {self.day.isoformat(): self.record}
        out = Path(self.settings["out"])
        make_live(self.service, self.settings, live, records, lambda: publish_copy(version, out))
        remove(self.folder / "version")


def restore(folder: Path) -> None:
    """Brings the data of a day back that was done again, and not prepared to the end: its rows are known by them.

    Of a day that has ended it removes the version, which is published, or was not to be.
    """
    if (folder / "day.json").exists():
        remove(folder / "version")
    if (folder / BEFORE).exists() and (folder / "data").exists():
        remove(folder / BEFORE)
    elif (folder / BEFORE).exists():
        Steps(folder, RESULTS, print).forget("prepare")
        (folder / BEFORE).rename(folder / "data")


def count_fallbacks(data: Dataset) -> dict[str, int]:
    """How many users and titles of a prepared day are served by a fallback.

    Args:
        data: A `Dataset`.

    Returns:
        `{"users_of_the_default_branch", "cold_users", "cold_titles"}`: users of territories without a group; users
        without an event or a vector, who get what is popular in their territory; titles of the next catalogue that
        nobody has had yet, whose vectors come from their features alone.
    """
    con = ibis.duckdb.connect()
    users = read_files(con, [data.path / "users.parquet"])
    had = had_pairs(con, data)
    titles = read_files(con, [data.path / "availability.parquet"])
    titles = titles.filter(titles.window == data.next_window).select("title").distinct()
    known = [territory for (territory,) in data.schema.scenario.groups]
    cold = users.anti_join(had, "user")
    if data.vectors("user") is not None:
        cold = cold.filter(cold.user_row < 0)  # pyright: ignore[reportOperatorIssue]
    outside = users.filter(~users.territory.isin(known))  # pyright: ignore[reportArgumentType]
    return {
        "users_of_the_default_branch": int(con.execute(outside.count())),
        "cold_users": int(con.execute(cold.count())),
        "cold_titles": int(con.execute(titles.anti_join(had, "title").count())),
    }


def try_version(version: Path | Version, data: Dataset, *, num_users: int = 20) -> None:
    """Serves a version on a port of its own and asks for the titles of some users.

    Args:
        version: Directory of the version.
        data: The `Dataset` directory that the users are from.
        num_users: How many are asked for, the first of the table.

    Raises:
        ValueError: If it does not load, or no answer holds a title (of a user who has had all there may be none), or a
            score is not finite.
    """
    users = read_files(ibis.duckdb.connect(), [data.path / "users.parquet"]).limit(num_users).to_pyarrow()["user"]
    try:
        with Server(version.parent, model_name="trial", port=0) as server:
            address = f"127.0.0.1:{server.port}"
            best = [recommend(address, "trial", data.path, user, k=1)["titles"] for user in users.to_pylist()]
        scores = [titles[0]["score"] for titles in best if titles]
        if not scores or not np.isfinite(scores).all():
            raise ValueError(f"`{version}` must have titles for users. Received: {len(best)} answers with {scores}")
    except ServerError as error:
        raise ValueError(f"`{version}` must load and answer. Received: {error}") from error


def _join_neighbours(groups: Mapping[str, str], places: Mapping[str, tuple[float, float]]) -> Mapping[str, str]:
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


def _overall(found: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """`{part: {task: {"live", "candidate", "change"}}}`, the gate's figures over all rows."""
    return {
        part: {
            task: {name: next(iter(slices.values()))[OVERALL][name] for name in ("live", "candidate", "change")}
            for task, slices in tasks.items()
        }
        for part, tasks in found["parts"].items()
    }


def _summary(record: Mapping[str, Any]) -> Iterator[str]:
    """The lines that a day ends with."""
    for task, cell in record.get("gate", {}).get("last", {}).items():
        if cell["change"] is not None:
            yield f"{task}: live {cell['live']:.4f}, new {cell['candidate']:.4f} ({cell['change']:+.1%})"
    if lists := record.get("lists"):
        popular = f"{lists['popularity']['name']} {lists['popularity']['ndcg']:.4f}"
        yield f"NDCG of lists: live {lists['live']['ours']:.4f}, new {lists['candidate']['ours']:.4f}, {popular}"
    if record["status"] == "promoted":
        yield f"promoted as version {record['version']}"
    else:
        yield "the gate is closed, the live model stays"
        yield from record["reasons"]


def _count(files: Iterable[Path]) -> int:
    return sum(pq.read_metadata(file).num_rows for file in files)

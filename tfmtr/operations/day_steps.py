"""The steps of a service's day; each leaves its result under its own name only when it is whole."""

import datetime
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from tfmtr import training
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.discovery import EmptyWindowError
from tfmtr.datasets.drift import moved_users, silent_shares
from tfmtr.datasets.groups import to_globe
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare
from tfmtr.documents import read_json, write_json
from tfmtr.exporting import export
from tfmtr.operations.data_checks import SILENT, SURE, WEEK, check_data, days_expected, notes_of, reasons_of
from tfmtr.operations.day_inputs import Steps, state_of
from tfmtr.operations.day_ranking import (
    GATE,
    OF_TRAINING,
    RankingSteps,
    calibrate_like,
    count_rows,
    files_of,
    over_all_rows,
    said_of_stages,
)
from tfmtr.operations.gating import gate
from tfmtr.operations.late_rows import SAMPLINGS, account, ended_days, late_files
from tfmtr.operations.served import count_fallbacks, try_version
from tfmtr.operations.service import SIGNATURES, data_of, make_live, publish_copy, signatures_in, table_paths
from tfmtr.run import Run
from tfmtr.schema import Schema
from tfmtr.scratch import remove
from tfmtr.serving.versions import find_versions
from tfmtr.version import RANKING

Result = TypeVar("Result")
DAY = datetime.timedelta(days=1)
LOOKBACKS = ("activity_lookback", "discovery_lookback")
BEFORE = "data-before"  # of a day that is done again, until it is prepared
RESULTS = {
    "prepare": ("late", "data"),
    "train": (*OF_TRAINING, "run"),
    "gate": (GATE, "gate.json"),
    "export": ("version",),
}


class NoDataError(ValueError):
    """The log has no event on the day; nothing has changed."""

    exit_code = 4


class BadDataError(ValueError):
    """A table is not what it must be; nothing is made of it."""

    exit_code = 5


class DaySteps:
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
        self.second = RankingSteps(self) if RANKING in settings else None
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
        if not self.record["reasons"]:
            self.timed("gate", self.judge, data, limits)
        else:
            self.record.setdefault("refused_by", ["data"])
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
        self.tell(f"prepared {count_rows(self.examples(data))} rows")
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
        last_count = read_json(earlier[-1] / "day.json").get("late") if earlier else None
        if last_count is None:  # the first day, or the first one that this is counted on
            base = Dataset(self.settings["data"]).report.get("days", report["days"])
            last_count = {
                "accounted": {date: c["rows"] for date, c in base.items() if earlier or date < since},
                "left": {},
            }
        counts = account(rows, windows, accounted=last_count["accounted"], left=last_count["left"], since=since)
        files = late_files(self.service, data, self.folder / "late", day, self.settings)
        moved = moved_users(data, data_of(self.settings, self.live["run"]))
        self.record |= {
            "rows": count_rows(self.examples(data)),
            "late_rows": count_rows(files),
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
            **({} if self.second is None else {"the live ranking model": Run(self.live[RANKING]).run_id}),
        }
        self.steps.open("train", key)
        files = files_of(before, data, late)
        grown = training.go_on(self.live["run"], data.path, files, run, epochs=epochs, verbose=0)
        self.tell(f"trained on {count_rows(files)} rows, {count_rows(late)} of them late; {len(grown)} variables grew")
        self.record |= {"run": str(run), "grown": grown}
        self.record["fitted"] = {"rows": count_rows(files), "epochs": epochs, "stages": Run(run).document["stages"]}
        if self.second is not None:
            self.second.train(data, late, epochs)

    def judge(self, data: Dataset, limits: Mapping[str, float]) -> None:
        """The gate's second half: the new model against the live one."""
        bounds: dict[str, Any] = {name: limits[name] for name in ("max_drop", "max_shift")}
        earlier = self.earlier_lists()
        runs = [Run(run).run_id for run in (self.live["run"], self.folder / "run")]
        key = {"the live model": runs[0], "the new model": runs[1], "earlier days' lists": list(earlier), **bounds}
        stages = {}
        if self.second is not None:
            stages = self.second.of_lists()
            key |= {"the live ranking model": Run(self.live[RANKING]).run_id}
            key |= {"the new ranking model": Run(self.folder / RANKING).run_id}
        self.steps.open("gate", key)
        verdict = read_json(self.folder / "gate.json")
        if verdict is None:
            asked = {"earlier": list(earlier.values()), **bounds, **stages}
            verdict = gate(self.live["run"], self.folder / "run", data.path, **asked)
            write_json(self.folder / "gate.json", verdict)
        reasons, notes = verdict["reasons"], verdict.get("notes", [])
        refused_by = ["model"] if reasons else []
        if self.second is not None:
            of_second = self.second.judge(data, bounds)
            reasons, notes, refused_by = said_of_stages(verdict, of_second)
        self.tell("judged")
        self.record |= {"reasons": reasons, "gate": over_all_rows(verdict), "lists": verdict.get("lists")}
        self.record |= {"refused_by": refused_by} if refused_by else {}
        self.record["notes"] += notes

    def earlier_lists(self) -> dict[str, Any]:
        """`{day: values of lists}` of the last days, the last one first, that were promoted and had any."""
        list_values = {}
        for folder in reversed(ended_days(self.service, self.day.isoformat())):
            values = (read_json(folder / "gate.json") or {}).get("list_values")
            if values and read_json(folder / "day.json")["status"] == "promoted":
                list_values[folder.name] = values
        return dict(list(list_values.items())[:WEEK])

    def export(self, data: Dataset) -> None:
        """Calibrates, exports and tries."""
        live, run, version = self.live, self.folder / "run", self.folder / "version"
        signatures = signatures_in(self.settings)
        self.steps.open(
            "export", {"the new model": Run(run).run_id, **({SIGNATURES: signatures} if signatures else {})}
        )
        calibrate_like(live["run"], run, data)
        options: dict[str, Any] = {"signatures": signatures}
        if self.second is not None:
            options |= self.second.calibrated(data)
        remove(version)
        try_version(export(run, version, titles=data.path, **options), data)
        self.tell("exported and tried")

    def publish(self) -> None:
        """Publishes the version, makes it the live one and writes the record."""
        (version,) = find_versions(self.folder / "version")[0].values()
        entry = {name: value for name, value in self.live.items() if name != "before"}
        live = {"day": self.day.isoformat(), "run": str(self.folder / "run"), "before": [*self.live["before"], entry]}
        live |= {} if self.second is None else {RANKING: str(self.folder / RANKING)}
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


def _join_neighbours(groups: Mapping[str, str], places: Mapping[str, tuple[float, float]]) -> Mapping[str, str]:
    """The groups, with territories that have none but a place in the group of the nearest one."""
    grouped = [territory for territory in places if territory in groups]
    if not grouped:
        return groups
    points = to_globe([places[territory] for territory in grouped])
    new = {}
    for territory in sorted(set(places) - set(groups)):
        distances = np.sum((points - to_globe([places[territory]])) ** 2, axis=1)
        new[territory] = groups[grouped[int(np.argmin(distances))]]
    return {**groups, **new}

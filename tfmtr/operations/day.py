"""A service's day: prepare, check the data, train, gate, calibrate, export, publish.

    days/2025-02-17/data/        the day and the late days before it, prepared
    days/2025-02-17/late/        rows of the days before that earlier slices did not have
    days/2025-02-17/run/         the live model, trained on the day
    days/2025-02-17/gate.json    the gate's figures and reasons
    days/2025-02-17/version/     the export, until it is published
    days/2025-02-17/keys.json    what each step was made from
    days/2025-02-17/day.json     the day's record; written last

Of a service of two stages also

    days/2025-02-17/candidates/  lists of the first stage, where the second one is trained on such; late-candidates/
    days/2025-02-17/ranking/     the live ranking model, trained on the day
    days/2025-02-17/gate-ranking.json

Every step leaves its result under its own name only when it is whole. A day that is run again, interrupted or mended,
goes on with the first step that has no result yet or whose inputs have changed since.
"""

import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfmtr.checks import check_choice, check_integer
from tfmtr.documents import read_json
from tfmtr.operations.data_checks import MAX_LOSS, MAX_MOVE, MAX_SHARE
from tfmtr.operations.day_inputs import Steps
from tfmtr.operations.day_ranking import CANDIDATES
from tfmtr.operations.day_steps import RESULTS, BadDataError, DaySteps, NoDataError, restore
from tfmtr.operations.gating import check_bounds
from tfmtr.operations.late_rows import LATE, ended_days
from tfmtr.operations.service import keep_signatures, owned, read_live, read_service, settle, signatures_in
from tfmtr.scratch import sweep
from tfmtr.signatures._signature import functions_of

__all__ = ["BadDataError", "NoDataError", "check_options", "daily"]


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

    A service of two stages does 3 to 5 with both and exports them as one version: if one of them is refused, both live
    models stay.

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
        max_loss: As for `tfmtr.operations.data_checks.check_data`.
        max_share: As for `tfmtr.operations.data_checks.check_data`.
        max_move: As for `tfmtr.operations.data_checks.check_data`.
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
        for prefix in (".data.", f".{CANDIDATES}.", LATE):
            sweep(folder, prefix)  # a step whose result is there leaves them to nobody else
        sweep(Path(settings["out"]), "tmp-")
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
        todo = DaySteps(service, settings, live, folder, day, steps, tell)
        record = todo.run(late_days, epochs, limits, groups or {})
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


def _summary(record: Mapping[str, Any]) -> Iterator[str]:
    """The lines that a day ends with."""
    for stage, prefix in ((record, ""), (record.get("ranking", {}), "second stage, ")):
        for task, cell in stage.get("gate", {}).get("last", {}).items():
            if cell["change"] is not None:
                yield f"{prefix}{task}: live {cell['live']:.4f}, new {cell['candidate']:.4f} ({cell['change']:+.1%})"
    if lists := record.get("lists"):
        popular = f"{lists['popularity']['name']} {lists['popularity']['ndcg']:.4f}"
        name = "NDCG of lists of both stages" if "ranking" in record else "NDCG of lists"
        yield f"{name}: live {lists['live']['ours']:.4f}, new {lists['candidate']['ours']:.4f}, {popular}"
    if record["status"] == "promoted":
        yield f"promoted as version {record['version']}"
    else:
        yield "the gate is closed, the live model stays"
        yield from record["reasons"]

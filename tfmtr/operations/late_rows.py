"""Rows of earlier days that come late: which are still trained on, which are left, and what is gone again.

A row is late if an earlier preparation of its day did not have it. Days that the preparation still looks back on are
trained on; of older ones the rows are counted, said and left.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis
import pyarrow.parquet as pq

from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.discovery import is_event
from tfmtr.datasets.engines.duckdb import read_files
from tfmtr.datasets.sampling import digest
from tfmtr.documents import read_json
from tfmtr.scratch import scratch

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend

SAMPLINGS = ("random", "active")
LATE = "tmp-late-"
WEEK, MANY = 7, 30  # days, and rows of one day, that lost ones are a share of
ENDED = ("promoted", "refused", "rolled back")


def ended_days(service: Path, day: str | None = None) -> list[Path]:
    """Folders of the days that have ended, all or those before a date (a text), oldest first."""
    folders = sorted(folder for folder in service.glob("days/*") if day is None or folder.name < day)
    return [f for f in folders if (read_json(f / "day.json") or {}).get("status") in ENDED and (f / "data").is_dir()]


def account(
    rows: Mapping[str, int],
    windows: Sequence[str],
    *,
    accounted: Mapping[str, int],
    left: Mapping[str, int],
    since: str,
) -> dict[str, Any]:
    """Which rows of the log no preparation took into its windows.

    Args:
        rows: `{date: rows of the log}` as of now, dates as text.
        windows: Dates of the preparation's windows that are trained on, the day itself last.
        accounted: `{date: rows}` that earlier preparations had in their windows, or the data the service began with.
        left: `{date: rows}` that were known to be left before.
        since: First date that days are run for.

    Returns:
        `{"accounted", "left", "new", "lost"}`: the first two as of now; `new` is what is left and was not known before,
        `{date: rows}`; `lost` is the share of earlier rows that are gone, of all days from the log's first
        one on (older ones are archived) or of one of the last seven, if that is more.

    Example:
    >>> account({"01": 9, "02": 8, "03": 7}, ["03"], accounted={"01": 9, "02": 5}, left={}, since="02")["new"]
    {'02': 3}
    """
    before = {date: accounted.get(date, 0) + left.get(date, 0) for date in {*accounted, *left}}
    begins = min((date for date, count in before.items() if count and rows.get(date, 0) >= count / 2), default="9999")
    still_open = {date: count for date, count in before.items() if begins <= date < windows[-1]}
    gone = {date: max(0, count - rows.get(date, 0)) for date, count in still_open.items()}
    shares = [gone[date] / still_open[date] for date in sorted(still_open)[-WEEK:] if still_open[date] >= MANY]
    lost = max([sum(gone.values()) / max(1, sum(still_open.values())), *shares])
    accounted = {**accounted, **{date: rows.get(date, 0) for date in windows}}
    over = {date: count - accounted.get(date, 0) for date, count in sorted(rows.items()) if date <= windows[-1]}
    over = {date: count for date, count in over.items() if count > 0 and date not in windows}
    new = {date: count - left.get(date, 0) for date, count in over.items() if count > left.get(date, 0)}
    return {"accounted": accounted, "left": over, "new": new, "lost": lost}


def late_files(
    service: Path, data: Dataset, out: Path, day: str, settings: Mapping[str, Any], *, alpha: float | None = None
) -> list[Path]:
    """Files of the rows of earlier days that no slice before had: positives, and `alpha` negatives for each.

    Args:
        service: Directory of the service.
        data: The `Dataset` directory of the day; one of the same name in the folders of days before tells what these
            had.
        out: Folder of the files, made if it is not there.
        day: Date of the day, a text.
        settings: The document `service.json`.
        alpha: Negatives for each positive; by default what the data are prepared with.

    Returns:
        List of Parquet files that have rows.
    """
    if not out.is_dir():
        with scratch(out.parent, LATE) as place:
            staging = place / out.name
            staging.mkdir()
            _write(service, data, staging, day, settings, settings["options"]["alpha"] if alpha is None else alpha)
            staging.rename(out)
    return [file for file in sorted(out.glob("*.parquet")) if pq.read_metadata(file).num_rows]


def _write(service: Path, data: Dataset, out: Path, day: str, settings: Mapping[str, Any], alpha: float) -> None:
    con = ibis.duckdb.connect()
    windows = [w for w in data.report["windows"] if w["window"] < 0 and w["start"] >= settings["since"]]
    earlier = ended_days(service, day)
    task = data.schema.tasks[0]
    for sampling in SAMPLINGS:
        tables = []
        for window in windows:
            files = data.examples("train", windows=[window["window"]], sampling=[sampling])
            if files:
                rows = read_files(con, files)
                of = {"name": data.path.name, "start": window["start"], "sampling": sampling}
                earlier_files = [file for folder in earlier for file in _slices(folder, **of)]
                if earlier_files:
                    rows = rows.anti_join(read_files(con, earlier_files).select("user", "title"), ("user", "title"))
                rows = _as_of(con, rows, _homes(service, settings, window["start"][:10]))
                positive = is_event(rows, task.column)
                num_negatives = round(alpha * con.execute(rows.filter(positive).count()))
                others = rows.filter(~positive).order_by(digest(0, "late", rows.user, rows.title)).limit(num_negatives)  # pyright: ignore[reportArgumentType]
                tables += [rows.filter(positive), others]
        if tables:
            table = con.to_pyarrow(ibis.union(*tables).order_by("user", "title"))
            pq.write_table(table, out / f"{sampling}.parquet")


def _homes(service: Path, settings: Mapping[str, Any], date: str) -> Path:
    """The users table as of a day: of the day itself, or of the newest before it, or of the data it began with."""
    folders = [f for f in sorted(service.glob("days/*")) if f.name <= date and (f / "data/prepare.json").is_file()]
    return (folders[-1] / "data" if folders else Dataset(settings["data"]).path) / "users.parquet"


def _as_of(con: "Backend", rows: ibis.Table, users: Path) -> ibis.Table:
    """The rows with the territories that their users had in an earlier users table; new users keep theirs."""
    then = read_files(con, [users]).select(owner="user", home="territory")
    joined = rows.left_join(then, rows.user == then.owner)  # pyright: ignore[reportArgumentType]
    return joined.mutate(territory=joined.home.fill_null(joined.territory)).select(*rows.columns)  # pyright: ignore[reportArgumentType]


def _slices(folder: Path, name: str, start: str, sampling: str) -> list[Path]:
    """Training files of an earlier day's directory whose window starts at `start`: trained on, or refused."""
    is_promoted = read_json(folder / "day.json")["status"] == "promoted"
    samplings = [sampling]
    if name != "data" and not is_promoted:  # a day may be refused before it has candidates: its rows are known by
        name, samplings = "data", list(SAMPLINGS)  # the log's own, which lists have the titles of
    data = Dataset(folder / name)
    numbers = [window["window"] for window in data.report["windows"] if window["start"] == start]
    if not is_promoted:
        numbers = [number for number in numbers if number == 0]  # what came late that day may still be trained on
    return data.examples("train", windows=numbers, sampling=samplings)

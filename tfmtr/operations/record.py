"""A day's record, the document `day.json`, and the page that is shown of it.

The document has

day, status          date; "promoted", "refused" or "rolled back"
reasons, notes       why the gate is closed; what is worth a look
refused_by           of a refused day: "data", or "model", or of two stages "retrieval", "ranking" and "lists" of both
version, run, live   what was published and trained, and which model is live since
rows, late_rows      training rows of the day, and of earlier days that came late
funnel, warnings     what became of the log's rows, by window; see `tfmtr.datasets.funnel`
checks               figures of the data against those before: name, value, before, bound, is_open
late                 rows of earlier days by date: `accounted` for, `left`, and `new` among these
moved                users whose territory changed: from, to, users
grown, fitted        variables that grew; rows, epochs and losses of the training
gate                 figures of the live and the new model over all rows, by part and task
ranking              of two stages, of the second one: run, grown, fitted and gate, likewise; where it is trained on
                     candidates, its late_rows and what `tfmtr prepare candidates` says of them
lists                of validation users: NDCG of both models' lists, and ratios to popularity's; null if none were made
fallbacks            users and titles that are served by a fallback
limits, seconds      what the gate was held to; by step
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tfmtr.datasets.funnel import FATES
from tfmtr.datasets.report import counted
from tfmtr.evaluation.evidence import interval_text


def page(record: Mapping[str, Any]) -> Group:
    """The record as one page for a terminal of 80 columns.

    Args:
        record: The document `day.json`.

    Returns:
        What Rich can print.
    """
    parts = [Text(_headline(record), style="bold"), *_list("reasons", record["reasons"], most=20)]
    if "funnel" not in record:  # of a day that an earlier version ran
        return Group(*parts)
    parts += [_funnel(record), _checks(record)]
    rare = [text for text in record["warnings"] if "negatives could not be found" not in text]
    parts += _list("warnings of the preparation", rare + [text for text in record["warnings"] if text not in rare])
    parts += _list("worth a look", record["notes"] + [_move(move) for move in record["moved"][:5]])
    parts += [Text(line) for line in (*_late(record), *_fitted(record))]
    second = record.get("ranking", {})
    parts += [Text(f"second stage, {line}") for line in _fitted(second)]
    parts += [_gate(record, "gate")] if record.get("gate") else []
    parts += [_gate(second, "gate of the second stage")] if second.get("gate") else []
    parts += [_lists(record["lists"])] if record.get("lists") else []
    live = record["live"]
    number = "not published yet" if live["version"] is None else f"version {live['version']}"
    seconds = ", ".join(f"{step} {value:.1f}" for step, value in record["seconds"].items())
    parts += [Text(f"live: {live['day'] or 'the run the service began with'}, {number}"), Text(f"seconds: {seconds}")]
    return Group(*parts)


def _headline(record: Mapping[str, Any]) -> str:
    words = {"promoted": "as version", "rolled back": "was version"}
    is_shown = record["status"] in words and record["version"]
    version = f" ({words[record['status']]} {record['version']})" if is_shown else ""
    return f"{record['day']}: {record['status']}{version}"


def _list(title: str, texts: Sequence[str], most: int = 6) -> Iterator[Text]:
    if texts:
        yield Text(f"{title}:")
        yield from (Text(f"  - {text}") for text in texts[:most])
    if len(texts) > most:
        yield Text(f"  - and {len(texts) - most} more, in day.json")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _funnel(record: Mapping[str, Any]) -> Table:
    """The rows of the day and of the late days, by fate."""
    windows = [row for row in record["funnel"] if row["window"] is not None and row["window"] <= 0]
    last = max(row["window"] for row in windows)
    late = [row for row in windows if -len(windows) < row["window"] < last and not row["history"]]
    table = _table("rows", "the day", "late days")
    for name, text in {"rows": "in the log", **FATES}.items():
        counts = [sum(row.get(name, 0) for row in rows) for rows in ([windows[-1]], late)]
        if any(counts):
            table.add_row(text, *(f"{count:,}" for count in counts))
    return table


def _checks(record: Mapping[str, Any]) -> Table:
    """Figures against those before; those that are 0, then and now, in one line."""
    table = _table("against the days before", "the day", "before", "bound", "")
    plain = 0
    for check in record["checks"]:
        if check["is_open"] and not check["value"] and not check["before"]:
            plain += 1
            continue
        is_share = isinstance(check["value"], float) and not check["name"].startswith("median")
        cells = [_number(check[name], is_share) for name in ("value", "before", "bound")]
        table.add_row(check["name"], *cells, "" if check["is_open"] else Text("closed", style="bold red"))
    if plain:
        table.add_row(f"{plain} further shares", "0.0%", "0.0%", "", "")
    return table


def _number(value: float | str | None, is_share: bool) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.1%}" if is_share else f"{value:,.2f}".removesuffix(".00")


def _move(move: Mapping[str, Any]) -> str:
    return f"{move['users']} users moved from {move['from']} to {move['to']}; their earlier rows stay in {move['from']}"


def _late(record: Mapping[str, Any]) -> Iterator[str]:
    new = record["late"]["new"]
    yield f"late rows trained on: {record['late_rows']:,}"
    if new:
        dates = ", ".join(f"{date} {count:,}" for date, count in list(new.items())[-5:])
        yield f"rows that came too late, and are left: {sum(new.values()):,} ({dates}); --late-days takes older ones"


def _fitted(record: Mapping[str, Any]) -> Iterator[str]:
    if "fitted" in record:
        fitted = record["fitted"]
        losses = [epoch["loss"] for stage in fitted["stages"].values() for epoch in stage["history"] if "loss" in epoch]
        loss = f", loss {losses[-1]:.4f}" if losses else ""
        grown = f", {len(record['grown'])} variables grew" if record["grown"] else ""
        yield f"fitted: {fitted['rows']:,} rows, {counted(fitted['epochs'], 'epochs')}{loss}{grown}"


def _gate(record: Mapping[str, Any], title: str) -> Table:
    table = _table(title, "live", "new", "change")
    for part, tasks in record["gate"].items():
        for task, cell in tasks.items():
            change = "" if cell["change"] is None else f"{cell['change']:+.1%}"
            figures = ["n/a" if cell[name] is None else f"{cell[name]:.4f}" for name in ("live", "candidate")]
            table.add_row(f"{task}, {'the day' if part == 'last' else 'days before'}", *figures, change)
    return table


def _lists(lists: Mapping[str, Any]) -> Table:
    """NDCG of the models' lists beside popularity's."""
    popular = lists["popularity"]
    days = f", {popular['options']['days']:g} days" if "days" in popular["options"] else ""
    days = f" in {lists['days']} days" if lists.get("days", 1) > 1 else ""
    table = _table(f"lists of {lists['users']:,} users{days}", "NDCG", f"to {popular['name']}", "95 % interval", "p")
    for name, key in (("live", "live"), ("new", "candidate")):
        cell = lists[key]
        interval = "n/a" if cell["low"] is None else interval_text(cell)
        figures = ["n/a" if cell[figure] is None else f"{cell[figure]:.3f}" for figure in ("ratio", "p_value")]
        table.add_row(name, f"{cell['ours']:.4f}", figures[0], interval, figures[1])
    table.add_row(f"{popular['name']}{days}", f"{popular['ndcg']:.4f}", "", "", "")
    return table

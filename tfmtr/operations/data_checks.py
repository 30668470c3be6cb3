"""The gate's first half: whether a day's data are like those before, each figure against a bound, before any training.

What is compared: how many rows, users and titles there are; which rows the preparation could not use; territories that
have no event or no group; values that are missing or that the live model does not know; vectors of another model.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.drift import (
    changed_vectors,
    medians_of_numbers,
    moved_users,
    share_without_vector,
    shares_of_values,
    similarity_of_users,
    titles_on_offer,
    users_of_both,
)
from tfmtr.datasets.funnel import DROPPED, FATES
from tfmtr.schema import Schema

MAX_LOSS = 0.3
MAX_SHARE = 0.05
MAX_MOVE = 1.0
LEAST_SIMILARITY = 0.5
STRAY = 0.1  # of a day's usual rows: a day with fewer is none that others are held to
WEEK = 7
SILENT = "events of territories that have none on the day"  # a check's name, in the records of days
SURE = 10  # events that a territory should have had, so that none is no chance


def check_data(
    data: Dataset,
    before: Dataset,
    schema: Schema,
    *,
    day: str,
    days: Mapping[str, int],
    lost: float = 0.0,
    usually_silent: float = 0.0,
    max_loss: float = MAX_LOSS,
    max_share: float = MAX_SHARE,
    max_move: float = MAX_MOVE,
) -> list[dict[str, Any]]:
    """Compares a day's data with those that the live model was trained on.

    Args:
        data: The `Dataset` directory of the day, whose last window is the day.
        before: That of the live model.
        schema: The live model's `Schema`.
        day: Date of the day, a text such as `"2025-02-17"`.
        days: `{date: rows of the log}` of the days before that a rule may expect as many rows of; refused ones are not
            among them.
        lost: Share of the rows of earlier days, or of one of them, that are not in the log any more.
        usually_silent: Greatest share of the log, on one of the seven days before, that the territories have which had
            no event on that day: a market may be closed on Sundays.
        max_loss: Largest relative loss: of the day's rows against the fewest of the seven days before, of users and of
            titles against those before.
        max_share: Largest growth of a share, a difference, such as 0.05 for five percentage points.
        max_move: Farthest that the median of a number may move, in standard deviations of the model's data.

    Returns:
        A list of `{"name", "value", "before", "bound", "is_open"}`, and `"text"`, a sentence, where it is not open or
        worth a look.
    """
    last = data.report["windows"][-1]["window"]
    now = next(row for row in data.report["funnel"] if row["window"] == last)
    figures = [
        *_counts(data, before, now["rows"] - now.get("doubles", 0), day, days, max_loss),
        _share("rows of earlier days that are gone", lost, 0.0, max_share),
        *_fates(data, before, now, max_share),
        *_territories(data, before, usually_silent, max_share),
        *_values(data, before, schema, max_share),
        *_numbers(data, before, schema, max_move),
        *_vectors(data, before, max_share),
    ]
    for name, split in (("train", "train"), ("judge the model by", "validation")):
        rows = sum(r["rows"] for r in data.report["examples"] if (r["window"], r["split"]) == (last, split))
        text = f"the day has no rows of {split} users, to {name}"
        figures.append(_check(f"rows to {name}", rows, None, 1, rows > 0, text))
    return figures


def reasons_of(checks: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sentences of the checks that close the gate."""
    return [check["text"] for check in checks if not check["is_open"]]


def notes_of(checks: Iterable[Mapping[str, Any]]) -> list[str]:
    """Sentences of the checks that are worth a look, though the gate stays open."""
    return [check["text"] for check in checks if check["is_open"] and check.get("text")]


def _check(
    name: str, value: float | None, before: float | None, bound: float | str | None, is_open: bool, text: str
) -> dict[str, Any]:
    check = {"name": name, "value": value, "before": before, "bound": bound, "is_open": bool(is_open)}
    return check if is_open else {**check, "text": text}


def _share(name: str, value: float, before: float, max_share: float) -> dict[str, Any]:
    bound = before + max_share
    text = f"{name}: {value:.1%}, at most {bound:.1%} ({before:.1%} before)"
    return _check(name, round(value, 6), round(before, 6), round(bound, 6), value <= bound, text)


def _counts(
    data: Dataset, before: Dataset, rows: int, day: str, days: Mapping[str, int], max_loss: float
) -> Iterator[dict[str, Any]]:
    week = [days[date] for date in sorted(date for date in days if date < day)[-WEEK:]]
    week = [rows for rows in week if rows >= STRAY * max(week)]
    one, other = (prepared.report["statistics"] for prepared in (data, before))
    counts: list[tuple[str, int, int | None]] = [("rows of the day", rows, min(week, default=None))]
    counts += [(f"{name} in the table", one[name], other[name]) for name in ("users", "titles")]
    offers = (titles_on_offer(data), titles_on_offer(before))
    counts.append(("titles of all territories on the day after", *offers))
    for name, value, expected in counts:
        bound = None if expected is None else expected * (1 - max_loss)
        seen = "the fewest of the week before" if name.startswith("rows") else "before"
        text = f"{name}: {value}, at least {bound and round(bound)} ({expected} {seen})"
        yield _check(name, value, expected, bound, bound is None or value >= bound, text)


def _fates(data: Dataset, before: Dataset, now: Mapping[str, Any], max_share: float) -> Iterator[dict[str, Any]]:
    funnel = before.report.get("funnel")
    if funnel is None:
        return  # prepared by an earlier version
    total = sum(row["rows"] for row in funnel)
    has_table = data.report["logs"]["availability"] not in (None, "anywhere")
    for fate in DROPPED:
        if fate == "unavailable" and not has_table:
            continue  # a title is available after its first event: on that day, none of its events are positives
        then = sum(row[fate] for row in funnel) / max(1, total)
        yield _share(f"rows {FATES[fate]}", now[fate] / max(1, now["rows"]), then, max_share)


def _territories(data: Dataset, before: Dataset, usually_silent: float, max_share: float) -> Iterator[dict[str, Any]]:
    """Territories that had events and have none, and those of no group, both by their events."""
    tables = [prepared.report["statistics"]["territories"] for prepared in (data, before)]
    now = {name: row.get("last_window", 0) for name, row in tables[0].items()}
    then = {name: row["events"] for name, row in tables[1].items()}
    total, all_then = sum(now.values()), max(1, sum(then.values()))
    silent = sorted(
        (name for name in then if not now.get(name) and then[name] / all_then * total >= SURE),
        key=lambda name: -then[name],
    )
    share = sum(then[name] for name in silent) / all_then
    check = _share(SILENT, share, usually_silent, max_share)
    if silent:
        check["text"] = f"{check.get('text') or check['name'] + f': {share:.1%}'}: {', '.join(silent[:10])}"
    yield check
    groups = [prepared.schema.scenario.groups for prepared in (data, before)]
    outside = [
        sum(events for name, events in counts.items() if (name,) not in known) / max(1, sum(counts.values()))
        for counts, known in zip((now, then), groups, strict=True)
    ]
    check = _share("events of territories of no group, on the default branch", outside[0], outside[1], max_share)
    unlisted = sorted(name for name, events in now.items() if events and (name,) not in groups[0])
    if "text" in check:
        check["text"] += f": {', '.join(unlisted[:10])}; new ones get their group with --groups"
    yield check
    moved, both = moved_users(data, before), users_of_both(data, before)
    yield _share("users who live in another territory", sum(moved.values()) / max(1, both), 0.0, max_share)


def _values(data: Dataset, before: Dataset, schema: Schema, max_share: float) -> Iterator[dict[str, Any]]:
    shares = [shares_of_values(prepared, schema) for prepared in (data, before)]
    texts = {"unknown": "values that the live model does not know", "missing": "values that are missing"}
    for key, value in shares[0].items():
        role, feature, what = key
        if what == "unknown" and feature in schema.scenario.columns:
            continue  # those of no group are judged by their events
        yield _share(f"{texts[what]}, {feature!r} of the {role}s", value, shares[1].get(key, 0.0), max_share)


def _numbers(data: Dataset, before: Dataset, schema: Schema, max_move: float) -> Iterator[dict[str, Any]]:
    medians = [medians_of_numbers(prepared, schema) for prepared in (data, before)]
    deviations = {feature.name: feature.std for feature in schema.features}
    for key, now in medians[0].items():
        role, feature = key
        then = medians[1].get(key)
        if now is not None and then is not None:
            move = abs(now - then) / deviations[feature]
            name = f"median of {feature!r} of the {role}s"
            text = f"{name}: {now:g}, {then:g} before; it moved by {move:.1f} standard deviations, at most {max_move:g}"
            yield _check(name, now, then, f"{then:g} ± {max_move * deviations[feature]:.3g}", move <= max_move, text)


def _vectors(data: Dataset, before: Dataset, max_share: float) -> Iterator[dict[str, Any]]:
    compared, changed = changed_vectors(data, before)
    check = _share("vectors that changed, of titles that did not", changed / max(1, compared), 0.0, max_share)
    if "text" in check:
        check["text"] += "; a store of another model cannot be served with this one"
    yield check
    yield _share("titles without a vector", share_without_vector(data), share_without_vector(before), max_share)
    if data.report["logs"]["user_vectors"] is not None:
        cosine = similarity_of_users(data, before)
        name = "median cosine of users' vectors with those before"
        is_open = cosine is None or cosine >= LEAST_SIMILARITY
        text = f"{name}: {cosine}, at least {LEAST_SIMILARITY}; they seem to be another model's"
        yield _check(name, cosine, None, LEAST_SIMILARITY, is_open, text)


def days_expected(report: Mapping[str, Any], refused: Collection[str]) -> dict[str, int]:
    """`{date: rows}` of the log's days that had rows and were not refused."""
    counts = report.get("days", {})
    return {date: row["rows"] for date, row in counts.items() if date not in refused and row["rows"]}

"""Whether a new model's lists are worth showing: they are held against what is popular, as the live one's are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.baseline_lists import (
    MOST_VALIDATION,
    catalogue_of,
    length_in_days,
    positives_of,
    ranking_by,
    validation_cases,
)
from tfmtr.evaluation.baselines.tried_options import fit, tries
from tfmtr.evaluation.compare import LEVEL
from tfmtr.evaluation.evidence import LEAST_USERS, compare_lists, interval_text
from tfmtr.evaluation.index_lists import ListCase, ranking_of
from tfmtr.evaluation.past import EVENTS, Past, has_events
from tfmtr.evaluation.ranking import metrics_of_users, ndcg_of_users
from tfmtr.evaluation.two_stage_lists import Second
from tfmtr.listwise.model import ListModel
from tfmtr.models import JointModel, TwoTower
from tfmtr.retrieval.index import build_index
from tfmtr.schema import Schema

POPULAR = ("popularity", "recent")
MOST_JUDGES = 500  # users of a window who choose the popularity: a day should not become slow
MODELS, POPULAR_ONE = ("live", "candidate"), "popularity"  # keys of a user's figures
NOT_HELD = "lists were not held against popularity"


def judge_lists(
    runs: Sequence[tuple[JointModel, Schema]],
    data: Dataset,
    *,
    orders: Sequence[ListModel | None] = (None, None),
    seconds: Sequence[Second | None] = (None, None),
    k: int = 10,
    num_samples: int = 2000,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Holds the lists of the live and of the new model against popularity's, for validation users of the last window.

    Lists are as they are served: titles that the user had before the window are in none, and no positives. Popularity
    is that of the user's territory, of all time or recent: whichever did best in the windows before the last one that
    catalogues are kept of, of all time where there is none. It counts training users' events before the window.

    Where the last window has fewer than 20 such users, those of the days before are taken with them, the latest days
    first, as many as are needed: each day's lists by the two models of that day, before they were served.

    Args:
        runs: `(model, schema)` of the live and of the new model.
        data: `Dataset` directory.
        orders: Their `ListModel`s, `None` where towers alone order lists.
        seconds: The ranking models that order what the two find: lists are of both stages.
        k: Titles of a list.
        num_samples: Bootstrap samples over users.
        earlier: `"list_values"` of the days before, the last one first.

    Returns:
        `{"lists", "list_values", "reasons", "notes"}`. There is a reason if the new model's NDCG is below popularity's
        beyond chance (two-sided p under 0.05) and the live one's is not; a note if it is below otherwise, or nothing
        can be said, and then `"lists"` is `None`. Else it has `"users"`, `"days"` that they are of, `"left_out"` (of
        `ListCase`), `"popularity"` (`{"name", "options", "ndcg"}`), `"live"` and `"candidate"`: ratios to popularity,
        of `compare_lists`. `"list_values"` has the last window's own figures of each user, `{"live", "candidate",
        "popularity"}`, a list each, or `None`.
    """
    if not has_events(data):
        return _nothing(f"{NOT_HELD}: the data have no {EVENTS}, which tells what users had; prepare them again")
    if not all(isinstance(model, TwoTower) for model, _ in runs):
        return _nothing(f"{NOT_HELD}: a model without a title index makes none")
    window = data.next_window - 1
    files = data.discoveries("validation", windows=[window])
    if not files:
        return _nothing(f"{NOT_HELD}: no row of a validation user in the last window")
    past = Past(data)
    positives = positives_of(data, files, columns=None)
    case = ListCase(positives, catalogue_of(data, window), most=MOST_VALIDATION, past=past, window=window)
    if not len(case.users):
        return _too_few(0, 1)

    def values(rank: Callable[[pa.Table, np.ndarray], np.ndarray]) -> list[float]:
        return metrics_of_users(case.lists(rank))["ndcg"].tolist()

    name, options = choose_popularity(data, past, k=k)
    day_values = {POPULAR_ONE: values(ranking_by(fit(name, options, past.history(window)), past, k))}
    popularity = past.popularity(window)
    for key, (model, schema), order, second in zip(MODELS, runs, orders, seconds, strict=True):
        if second is not None:
            day_values[key] = values(second.after(model, schema, order, data, past, window, k=k))
            continue
        scorer = None if order is None else order.as_of(data, past, window)
        index = build_index(model, data, schema, window=window, scorer=scorer)
        asked = {"popularity": popularity, "scorer": scorer, "past": past, "window": window}
        day_values[key] = values(ranking_of(model, index, schema, data, k=k, **asked))
    table, days = _with_earlier(day_values, earlier)
    if len(table) < LEAST_USERS:
        return _too_few(len(table), days) | {"list_values": day_values}
    frames = {key: table[["user", "window"]].assign(value=table[key]) for key in (*MODELS, POPULAR_ONE)}
    cells = [compare_lists(frames[key], frames[POPULAR_ONE], num_samples=num_samples) for key in MODELS]
    popular = {"name": name, "options": options, "ndcg": cells[0]["theirs"]}
    reasons, notes = verdict(cells[0], cells[1], name)
    lists = {"users": len(table), "days": days, "left_out": case.left_out, "popularity": popular}
    lists |= dict(zip(MODELS, cells, strict=True))
    return {"lists": lists, "list_values": day_values, "reasons": reasons, "notes": notes}


def _with_earlier(own: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, int]:
    """A row for each user of a day, and how many days they are of: as few as have enough users."""
    tables = [pd.DataFrame(own).assign(window=0)]
    for values in earlier:
        if sum(map(len, tables)) >= LEAST_USERS:
            break
        tables.append(pd.DataFrame(values).assign(window=-len(tables)))
    return pd.concat(tables, ignore_index=True).rename_axis("user").reset_index(), len(tables)


def choose_popularity(data: Dataset, past: Past, *, k: int) -> tuple[str, dict[str, Any]]:
    """`(name, options)` of the popularity that did best for validation users before the last window.

    Args:
        data: `Dataset` directory.
        past: Its `Past`.
        k: Titles of a list.
    """
    days = length_in_days(data)
    choices = [(name, options) for name in POPULAR for options in tries(name, days) if options["by_territory"]]
    figures = [0.0] * len(choices)
    for window, case in validation_cases(data, past, before=data.next_window - 1, most=MOST_JUDGES):
        history = past.history(window)
        for place, (name, options) in enumerate(choices):
            figures[place] += ndcg_of_users(case.lists(ranking_by(fit(name, options, history), past, k))).mean()
    return choices[figures.index(max(figures))]  # the first, of all time, where there is no such window


def is_below(cell: Mapping[str, Any]) -> bool:
    """Whether lists are below popularity's beyond chance."""
    return cell["ours"] < cell["theirs"] and cell["p_value"] < LEVEL


def verdict(live: Mapping[str, Any], candidate: Mapping[str, Any], name: str) -> tuple[list[str], list[str]]:
    """`(reasons, notes)` of the two models' cells; see `judge_lists`.

    Args:
        live: Cell of the live model.
        candidate: Cell of the new one.
        name: Popularity's name.
    """
    if not candidate["ours"] < candidate["theirs"]:
        return [], []
    figures = f"NDCG {candidate['ours']:.4f}, {name} {candidate['theirs']:.4f}, live {live['ours']:.4f}; "
    figures += f"the ratio to {name} is {candidate['ratio']:.2f}"
    figures += f" ({interval_text(candidate, 2)}), p {candidate['p_value']:.3f}"
    if not is_below(candidate):
        return [], [f"the new model's lists are below popularity's, within chance: {figures}"]
    if is_below(live):
        return [], [f"the new model's lists are below popularity's, and so are the live model's: {figures}"]
    return [f"the new model's lists are below popularity's, and the live model's are not: {figures}"], []


def _nothing(note: str) -> dict[str, Any]:
    return {"lists": None, "list_values": None, "reasons": [], "notes": [note]}


def _too_few(users: int, days: int) -> dict[str, Any]:
    window = "the last window" if days == 1 else f"the last {days} days"
    text = f"{users} validation users liked a title in {window} that was new to them"
    return _nothing(f"{NOT_HELD}: {text}, {LEAST_USERS} needed")

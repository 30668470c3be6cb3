"""The metrics of every user's list, of a model and of the baselines: kept beside a run, compared, summed by segment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr.documents import replacing
from tfmtr.evaluation.compare import holm
from tfmtr.evaluation.evidence import LEAST_USERS, compare_lists

FILE = "list_scores.parquet"
MODEL = "model"  # the contender that is no baseline
FIRST_STAGE = "first stage"  # the lists of what finds the titles that a ranking model orders
NEW, REPEATS = "new", "repeats"  # lists without what the user had before the window, and with it
# Columns of a user's list that are no metrics.
FACTS = {
    "window",
    "user",
    "is_new_user",
    "positives",
    "hits",
    "new_title_positives",
    "new_title_hits",
    "contender",
    "list",
}


def write_list_scores(run: str | os.PathLike, scores: pd.DataFrame) -> None:
    """Writes the scores beside a run, sorted; see `tfmtr.evaluation.baseline_lists.user_scores`.

    Args:
        run: Run directory.
        scores: Data frame of `user_scores`, with `contender` (`"model"`, or a baseline's name) and `list` (`"new"`, or
            `"repeats"` for lists that may repeat what users had).
    """
    scores = scores.sort_values(["list", "contender", "window", "user"], ignore_index=True)
    with replacing(Path(run, FILE)) as temporary:
        pq.write_table(pa.Table.from_pandas(scores, preserve_index=False), temporary, compression="zstd")


def read_list_scores(run: str | os.PathLike) -> pd.DataFrame | None:
    """The scores of a run that was evaluated; `None` if it has none."""
    file = Path(run, FILE)
    return pq.read_table(file).to_pandas() if file.is_file() else None


def values_of(scores: pd.DataFrame, contender: str, metric: str = "ndcg", kind: str = NEW) -> pd.DataFrame:
    """`user`, `window` and `value` of one contender, as `compare_lists` wants them."""
    rows = scores[(scores.contender == contender) & (scores.list == kind)]
    return rows[["user", "window", metric]].rename(columns={metric: "value"})  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]


def compare_with(
    scores: pd.DataFrame, name: str, *, metric: str = "ndcg", num_samples: int = 1000
) -> dict[str, dict[str, Any]]:
    """A contender beside each of the others.

    Args:
        scores: Data frame of `write_list_scores`.
        name: The contender.
        metric: Metric of the users.
        num_samples: Bootstrap samples.

    Returns:
        `{other: result of compare_lists}`, ratios of `name` to the other, with `"holm"`, the p-value corrected for the
        number of others.
    """
    ours = values_of(scores, name, metric)
    others = [other for other in scores[scores.list == NEW].contender.unique() if other != name]
    comparisons = {
        other: compare_lists(ours, values_of(scores, other, metric), num_samples=num_samples)
        for other in sorted(others)
    }
    judged = [other for other, cell in comparisons.items() if cell["p_value"] is not None]
    corrected = dict(zip(judged, holm([comparisons[other]["p_value"] for other in judged]), strict=True))
    return {other: {**cell, "holm": corrected.get(other)} for other, cell in comparisons.items()}


def between_runs(runs: Mapping[str, str | os.PathLike]) -> dict[str, dict[str, Any]]:
    """The last run's lists beside each other run's.

    Args:
        runs: `{name: run directory}`.

    Returns:
        `{name: result of compare_lists}` of the others, ratios of the last one's NDCG to theirs; empty where a run has
        no lists or was evaluated on other users.
    """
    scores = {name: read_list_scores(run) for name, run in runs.items()}
    kept = {name: frame for name, frame in scores.items() if frame is not None}
    if len(scores) < 2 or len(kept) < len(scores):
        return {}
    values = {name: values_of(frame, MODEL) for name, frame in kept.items()}
    *others, last = values
    keys = {name: set(zip(frame.user, frame.window, strict=True)) for name, frame in values.items()}
    return {
        name: compare_lists(values[last], values[name], num_samples=1000) for name in others if keys[name] == keys[last]
    }


def means_of(scores: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Means over all lists, whatever their window or territory.

    Args:
        scores: Data frame of `write_list_scores`.

    Returns:
        `{"new" or "repeats": {contender: {metric: float, "lists": int, "users": int}}}`; metrics are `None` under 20
        users.
    """
    found, metrics = {}, [column for column in scores.columns if column not in FACTS]
    for (kind, name), rows in scores.groupby(["list", "contender"]):  # pyright: ignore[reportGeneralTypeIssues]
        users = int(rows.user.nunique())
        means = {m: float(rows[m].mean()) if users >= LEAST_USERS else None for m in metrics}  # pyright: ignore[reportArgumentType]
        found.setdefault(kind, {})[name] = {**means, "lists": len(rows), "users": users}
    return found


def segments_of(scores: pd.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """What lists are worth to new and known users, and how often they have new and known titles that were wanted.

    Args:
        scores: Data frame of `write_list_scores`.

    Returns:
        `{contender: {"new users", "known users": {"ndcg", "user_windows"}, "new titles", "known titles": {"recall",
        "positives"}}}` of lists without repeats. A user is new without an event before the window, a title without one
        that could be learnt from. Figures of fewer than 20 users are `None`. The recall of titles is the share of all
        positives, not a mean over users.

    Example:
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"user": range(40), "window": 1, "contender": "model", "list": "new"})
    >>> frame = frame.assign(is_new_user=frame.user < 10, ndcg=1.0, positives=2, hits=1)
    >>> found = segments_of(frame.assign(new_title_positives=1, new_title_hits=0))["model"]
    >>> found["new users"], found["known users"]["ndcg"], found["known titles"]
    ({'ndcg': None, 'user_windows': 10}, 1.0, {'recall': 1.0, 'positives': 40})
    """
    segments = {}
    for name, rows in scores[scores.list == NEW].groupby("contender"):
        new_titles = int(rows.new_title_positives.sum()), int(rows.new_title_hits.sum())
        all_titles = int(rows.positives.sum()), int(rows.hits.sum())
        is_enough = rows.user.nunique() >= LEAST_USERS
        known_titles = tuple(a - b for a, b in zip(all_titles, new_titles, strict=True))
        segments[name] = {
            **{
                f"{kind} users": {
                    "ndcg": float(part.ndcg.mean()) if part.user.nunique() >= LEAST_USERS else None,  # pyright: ignore[reportAttributeAccessIssue]
                    "user_windows": len(part),
                }
                for kind, part in (("new", rows[rows.is_new_user]), ("known", rows[~rows.is_new_user]))
            },
            **{
                f"{kind} titles": {
                    "recall": hits / positives if positives and is_enough else None,
                    "positives": positives,
                }
                for kind, (positives, hits) in (("new", new_titles), ("known", known_titles))
            },
        }
    return segments

"""Lists by task, scenario and slice: who asks where in a window, and what each task has as positives there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.evaluation.index_lists import IndexLists, ListCase, is_positive
from tfmtr.evaluation.list_scores import FACTS, FIRST_STAGE, MODEL, NEW, compare_with
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.metrics import OVERALL, why_not_available
from tfmtr.evaluation.ranking import Metrics, metrics_of_users
from tfmtr.evaluation.splits import split_columns, split_values

if TYPE_CHECKING:
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.evaluation.past import Past
    from tfmtr.retrieval.catalogue import Catalogue
    from tfmtr.schema import Schema

COMPARED = ("ndcg", "recall", "mrr")  # metrics that have an interval over all lists; by scenario the first one has
USERS, REQUESTS = "users", "requests"  # a list for each user, and one for each scenario and slice that a user was in
NOT_METRICS = {*FACTS, "task", "kind"}


class TaskCase:
    """The lists of one window that are judged by every binary task, in the scenario and the slices of its positives.

    A user has a list for each scenario and each value of the slices that their positives are of, made for the context
    of the first one there. The first of a user's lists, of the primary task's first positive where there is one, stands
    for the user where all scenarios are pooled: these are the lists of `ListCase`, whatever the task.

    Args:
        rows: Arrow table of `task_rows`, with at least one row.
        schema: The `Schema`.
        catalogue: The `Catalogue` of the window.
        most: Most users of each task: those that come first in the files' hash order.
        past: The `Past`: what users had before is in no list, and no positive.
        window: The window's number.

    Attributes:
        case: `ListCase` of all lists.
        positives: `{task: boolean array of shape (rows,)}`: which of its positives are the task's.
    """

    def __init__(
        self, rows: pa.Table, schema: Schema, catalogue: Catalogue, *, most: int, past: Past, window: int
    ) -> None:
        self.window = window
        everyone, number = np.unique(rows["user"].to_numpy().astype(str), return_inverse=True)
        had = past.had(past.numbers(everyone), window)[number, rows["title_row"].to_numpy()]
        rows = rows.filter(pa.array(~np.asarray(had).ravel()))
        wanted = {None: is_positive(rows[schema.tasks[0].column]), **binary_positives(rows, schema)}
        users = rows["user"].to_pandas().to_numpy(str)
        wanted = {task: first_users(users, np.asarray(pc.fill_null(of, False)), most) for task, of in wanted.items()}
        order = np.argsort(~wanted[None], kind="stable")  # the primary task's own positives first
        kept = order[np.any(list(wanted.values()), axis=0)[order]]
        rows = rows.take(kept)
        self.positives = {task: of[kept] for task, of in wanted.items() if task is not None}
        self.values = split_values(rows, schema)
        parts = pd.MultiIndex.from_arrays(list(self.values.values())).factorize()[0]
        self.case = ListCase(rows, catalogue, most=len(rows), past=past, window=window, parts=parts)
        # Of each row, none of which the case leaves out.
        self.list_of, self.title_of = self.case.positive_users, self.case.positive_titles
        self.users, self.user_of = np.unique(users[kept], return_inverse=True)
        self.first = np.full(len(self.users), len(rows))
        np.minimum.at(self.first, self.user_of, self.list_of)  # lists are in the order of their first rows

    def titles(self, rank: Callable[[pa.Table, np.ndarray], np.ndarray]) -> np.ndarray:
        """What a ranking gives, title rows of shape `(lists, k)`, -1 where there is none; see `ListCase.lists`."""
        return self.case.lists(rank).ranked_titles

    def index_lists(self, case: ListCase, titles: np.ndarray) -> IndexLists:
        """The `IndexLists` of a case of the primary task in the same window, of titles that were ranked for all."""
        lists = self.first[np.searchsorted(self.users, case.users)]
        return IndexLists(case.ranked(titles[lists]), case.users, case.available)

    def scores(self, titles: np.ndarray, metrics: Metrics = ()) -> pd.DataFrame:
        """The metrics of every list by every task that has a positive for it.

        Args:
            titles: What `titles` returns.
            metrics: As for `evaluate_lists`.

        Returns:
            Data frame `task`, `kind` (`USERS` or `REQUESTS`), `user`, `window` (a number for each list of a user),
            `list`, the metrics of `metrics_of_users`, and `of <column>` for each of `split_columns`, null for users.
        """
        frames = []
        for task, is_own in self.positives.items():
            for kind, group_of, ranked in ((USERS, self.user_of, titles[self.first]), (REQUESTS, self.list_of, titles)):
                groups, place = np.unique(group_of[is_own], return_inverse=True)
                lists = Lists(
                    ranked[groups], np.full(len(groups), ""), place, self.title_of[is_own], self.case.num_titles
                )
                users = self.users if kind == USERS else self.case.users
                order = np.zeros(len(groups), int) if kind == USERS else groups
                own = {} if kind == USERS else self.values_of(groups)
                facts = {"task": task, "kind": kind, "user": users[groups], "list": NEW}
                facts["window"] = self.window * 10**9 + order
                frames.append(pd.DataFrame({**facts, **metrics_of_users(lists, metrics), **own}))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def values_of(self, lists: np.ndarray) -> dict[str, np.ndarray]:
        """What some lists are of: `{"of <column>": text of shape (lists,)}` for each of `split_columns`."""
        _, rows = np.unique(self.list_of, return_index=True)
        return {f"of {name}": values[rows[lists]] for name, values in self.values.items()}


def task_rows(data: Dataset, files: Iterable[Path], columns: Iterable[str] | None = None) -> pa.Table:
    """Arrow table of the rows of example files that are a positive of the primary or of any binary task.

    Args:
        data: A `Dataset` directory.
        files: Example files of it, at least one.
        columns: Names of the columns that are wanted beside the labels, the scenario's and the slices; `None` for all.
    """
    schema, read = data.schema, None
    if columns is not None:
        labels = [task.column for task in schema.tasks]
        read = list(dict.fromkeys([*columns, *labels, *schema.scenario.columns, *schema.slices]))

    def positive_rows(file: Path) -> pa.Table:
        table = pq.read_table(file, columns=read, partitioning=None)  # pyright: ignore[reportArgumentType]
        masks = [is_positive(table[schema.tasks[0].column]), *binary_positives(table, schema).values()]
        return table.filter(pa.array(np.any([np.asarray(pc.fill_null(mask, False)) for mask in masks], axis=0)))

    return pa.concat_tables(map(positive_rows, files))


def binary_positives(table: pa.Table, schema: Schema) -> dict[str, pa.ChunkedArray]:
    """Which rows are positives of each binary task; null where its label was not observed."""
    binary = [task for task in schema.tasks if task.kind == "binary"]
    return {task.name: pc.equal(table[task.column], 1) for task in binary}  # pyright: ignore[reportAttributeAccessIssue]


def first_users(users: np.ndarray, is_wanted: np.ndarray, most: int) -> np.ndarray:
    """Of some rows those of the first `most` users that have one.

    >>> first_users(np.array(["b", "a", "b", "c"]), np.array([True, True, True, False]), 1)
    array([ True, False,  True, False])
    """
    is_kept = is_wanted.copy()
    codes, _ = pd.factorize(users[is_wanted])  # in the order in which they come
    is_kept[is_wanted] = codes < most
    return is_kept


def by_task(scores: pd.DataFrame, schema: Schema, best: str | None) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """What the lists of all contenders are worth to each task, pooled, by scenario and by slice.

    Args:
        scores: Data frame of `TaskCase.scores` with `contender`.
        schema: The `Schema`.
        best: Name of the baseline that others are held against; `None` without baselines.

    Returns:
        `{task: {"overall" or a column of split_columns: {value: cell}}}`, values with the most lists first. A cell has
        `"means"`, `{contender: {metric: float}}`; `"compared"`, `{metric: {other: result of compare_lists}}`, ratios of
        the model to each; `"first_stage"`, `{metric: result of compare_lists}` of the first stage alone to the best
        baseline; and `"lists"`, `"users"`, `"positives"` and `"reason"`, which says why there are no figures: under 30
        positives or 20 users. By scenario and slice, ratios are of NDCG to the first stage and the best baseline.
    """
    found = {}
    for (task, kind), rows in scores.groupby(["task", "kind"], sort=False):  # pyright: ignore[reportGeneralTypeIssues]
        own = found.setdefault(task, {})
        if kind == USERS:
            own[OVERALL] = {OVERALL: cell_of(rows, best, is_pooled=True)}
            continue
        for column in split_columns(schema):
            cells = {str(value): cell_of(part, best) for value, part in rows.groupby(f"of {column}")}
            own[column] = dict(sorted(cells.items(), key=lambda item: -item[1]["lists"]))
    return found


def cell_of(rows: pd.DataFrame, best: str | None, *, is_pooled: bool = False) -> dict[str, Any]:
    """A cell of `by_task`, of one task's rows."""
    ours = rows[rows.contender == MODEL]
    positives, users = int(ours.positives.sum()), int(ours.user.nunique())
    reason = why_not_available(positives + 1, users, positives)
    means, compared, first = {}, {}, {}
    if reason is None:
        metrics = [name for name in rows.columns if name not in NOT_METRICS and pd.api.types.is_float_dtype(rows[name])]
        means = {str(name): part[metrics].mean().to_dict() for name, part in rows.groupby("contender")}
        near = rows[rows.contender.isin({MODEL, FIRST_STAGE, best})]
        for metric in COMPARED if is_pooled else COMPARED[:1]:
            has_all = is_pooled and metric == COMPARED[0]
            compared[metric] = compare_with(rows if has_all else near, MODEL, metric=metric)  # pyright: ignore[reportArgumentType]
            if FIRST_STAGE in means and best in means:
                alone = near[near.contender != MODEL]
                first[metric] = compare_with(alone, FIRST_STAGE, metric=metric)[best]  # pyright: ignore[reportArgumentType]
    counts = {"lists": len(ours), "users": users, "positives": positives, "reason": reason}
    return {"means": means, "compared": compared, "first_stage": first, **counts}

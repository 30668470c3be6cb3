"""Lists of baselines: tuned on validation users, fitted anew before each test window, asked what a model is asked."""

import dataclasses
import datetime
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.preparing.offered_titles import JUDGED_WINDOWS
from tfmtr.evaluation.baselines.history import History, Score
from tfmtr.evaluation.baselines.table import BASELINES
from tfmtr.evaluation.baselines.tried_options import fit, tune
from tfmtr.evaluation.index_lists import AmongCase, IndexLists, ListCase, best_titles, is_positive
from tfmtr.evaluation.list_scores import NEW, REPEATS
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.ranking import Metric, Metrics, evaluate_lists, functions, metrics_of_users, ndcg_of_users
from tfmtr.evaluation.task_lists import TaskCase, task_rows
from tfmtr.retrieval.catalogue import Catalogue
from tfmtr.retrieval.index import availability

LIST_COLUMNS = ("user", "territory", "title_row")  # that a list is made of
MOST_VALIDATION = 2_000  # users of a window that tries are judged by


@dataclasses.dataclass(frozen=True)
class BaselineLists:
    """Baselines of a prepared directory.

    Attributes:
        document: What `evaluation.json` has of them: `"best"`, the name of the one that validation users decide for;
            `"validation"`, `{"windows", "user_windows"}`; `"tuned"`, what `tune` returns; and `"ranking"`, `"repeats"`
            and, if asked for, `"among"`: `{name: {window: {territory: cell}}}` of `evaluate_lists`.
        scores: Data frame, a row for each user and list; see `user_scores`.
        tasks: Data frame of `TaskCase.scores`, with `contender`.
    """

    document: dict[str, Any]
    scores: pd.DataFrame
    tasks: pd.DataFrame


def baseline_lists(
    data: Dataset,
    *,
    k: int = 10,
    most: int = 10_000,
    names: Iterable[str] | None = None,
    among: int | None = None,
    metrics: Metrics = (),
) -> BaselineLists:
    """Lists of baselines in every test window.

    Each has at most 12 tries, judged by NDCG of validation users' lists in the last training windows; the best options
    are fixed before a test row is read. Then it is fitted on what training users had before each test window, as a
    service would, and knows of a test user what that user had until then.

    Args:
        data: A `Dataset` directory.
        k: Titles of a list.
        most: Most users of a window.
        names: Names of baselines; all that can be had by default.
        among: Titles that each positive is ranked among, too; see `AmongCase`. `None` for no such figures.
        metrics: As for `evaluate_lists`.

    Returns:
        `BaselineLists`.

    Raises:
        ValueError: If a name is unknown, or the directory does not tell what users had.
        ImportError: If a baseline that is asked for by name needs a package that is not installed.
    """
    data = Dataset(data.path)
    key = data.report["fingerprint"], data.report.get("forgotten", 0)
    names = None if names is None else tuple(names)
    return _baseline_lists(str(data.path.absolute()), key, k, most, names, among, tuple(functions(metrics).items()))


@functools.lru_cache(maxsize=2)  # the runs of one command are on the same data
def _baseline_lists(
    path: str,
    key: tuple[str, int],
    k: int,
    most: int,
    names: tuple[str, ...] | None,
    among: int | None,
    found_metrics: tuple[tuple[str, Metric], ...],
) -> BaselineLists:
    data, metrics = Dataset(path), dict(found_metrics)
    past, window_days = Past(data), length_in_days(data)
    cases = validation_cases(data, past)

    def judge(place: int, score: Score) -> float:
        user_values = ndcg_of_users(cases[place][1].lists(ranking_by(score, past, k)))
        return float(user_values.mean()) if len(user_values) else float("nan")

    chosen_names = tuple(BASELINES) if names is None else names
    histories = [past.history(window) for window, _ in cases]
    tuned = tune(chosen_names, histories, judge, window_days=window_days, required=() if names is None else names)
    figures = {name: row["figure"] for name, row in tuned.items() if row["reason"] is None}
    measured = {name: figure for name, figure in figures.items() if figure is not None}
    document = {
        "best": max(measured, key=measured.__getitem__, default=next(iter(figures), None)),
        "validation": {
            "windows": [window for window, _ in cases],
            "user_windows": sum(len(case.users) for _, case in cases),
        },
        "tuned": tuned,
        "ranking": {},
        "repeats": {},
        "among": {},
    }
    scores, by_task = [], []
    for window in data.test_windows:
        files = data.discoveries("test", windows=[window])
        table = positives_of(data, files)
        if not len(table):
            continue
        history, catalogue = past.history(window), catalogue_of(data, window)
        pair = {NEW: ListCase(table, catalogue, most=most, past=past, window=window)}
        pair[REPEATS] = ListCase(table, catalogue, most=most)
        rows = task_rows(data, files, LIST_COLUMNS)
        asked = TaskCase(rows, data.schema, catalogue, most=most, past=past, window=window)
        for name in figures:
            rank = ranking_by(fit(name, tuned[name]["options"], history), past, k)
            titles = asked.titles(rank)
            by_task.append(asked.scores(titles, metrics).assign(contender=name))
            for kind, case in pair.items():
                lists = asked.index_lists(case, titles) if kind == NEW else case.index_lists(rank)
                cells = document["ranking" if kind == NEW else "repeats"].setdefault(name, {})
                cells[str(window)] = evaluate_lists(lists.lists, metrics)
                scores.append(user_scores(lists, past, history, window, metrics).assign(contender=name, list=kind))
            if among is not None:
                cells = document["among"].setdefault(name, {})
                cells[str(window)] = evaluate_lists(AmongCase(pair[NEW], among).lists(rank), metrics)
    frames = [pd.concat(of, ignore_index=True) if of else pd.DataFrame() for of in (scores, by_task)]
    return BaselineLists(document, *frames)


def validation_cases(
    data: Dataset,
    past: Past | None,
    *,
    before: int = 1,
    most: int = MOST_VALIDATION,
    columns: Sequence[str] | None = LIST_COLUMNS,
    windows: Sequence[int] | None = None,
) -> list[tuple[int, ListCase]]:
    """`[(window, ListCase)]` of validation users in `windows`, or the last ones `before` one, oldest first.

    Their rows have `columns`, `None` for all, which a model needs.
    """
    if windows is None:
        windows = [row["window"] for row in data.report["windows"] if -JUDGED_WINDOWS < row["window"] < before]
    cases = []
    for window in windows:
        files = data.discoveries("validation", windows=[window])
        table = positives_of(data, files, columns) if files else []
        if len(table):
            catalogue = catalogue_of(data, window)
            case = ListCase(table, catalogue, most=most, past=past, window=window)
            if len(case.users):
                cases.append((window, case))
    return cases


def positives_of(data: Dataset, files: Iterable[Path], columns: Sequence[str] | None = LIST_COLUMNS) -> pa.Table:
    """Arrow table of the primary task's positives in example files.

    Args:
        data: A `Dataset` directory.
        files: Example files of it.
        columns: Names of the columns; `None` for all, which a model needs, and then there must be a file.
    """
    label, read = data.schema.tasks[0].column, None
    if columns is not None:
        columns = list(columns)
        read = [*columns, label]
    tables = [
        table.filter(is_positive(table[label])).select(columns or table.column_names)
        for table in (pq.read_table(file, columns=read, partitioning=None) for file in files)  # pyright: ignore[reportArgumentType]
    ]
    if not tables and columns is not None:
        return pa.table({name: [] for name in columns})
    return pa.concat_tables(tables)


def catalogue_of(data: Dataset, window: int) -> Catalogue:
    """The `Catalogue` of a window: the titles that each territory can be offered."""
    ids = pq.read_table(data.path / "titles.parquet", columns=["title"])["title"].to_pylist()
    return Catalogue(ids, availability(data, ids, window))


def length_in_days(data: Dataset) -> float | None:
    """Length of the windows in days, `None` where the data have no times."""
    last = data.report["windows"][-1]
    if last["start"] is None:
        return None
    start, end = (datetime.datetime.fromisoformat(last[name]) for name in ("start", "end"))
    return (end - start) / datetime.timedelta(days=1)


def ranking_by(score: Score, past: Past, k: int) -> Callable[[pa.Table, np.ndarray], np.ndarray]:
    """How a baseline ranks: the function that `ListCase.lists` asks."""

    def rank(rows: pa.Table, allowed: np.ndarray) -> np.ndarray:
        return best_titles(score(past.numbers(rows["user"])), allowed, k)

    return rank


def user_scores(found: IndexLists, past: Past, history: History, window: int, metrics: Metrics = ()) -> pd.DataFrame:
    """One row for each user: the own metrics, and those of titles that were new when the window began.

    Args:
        found: `IndexLists`.
        past: The `Past`.
        history: Its `History` before the window.
        window: Number of the window.
        metrics: As for `evaluate_lists`.

    Returns:
        Data frame `window`, `user`, `is_new_user` (no event before the window), the metrics of `metrics_of_users`, and
        for titles without a fitted event before the window, `new_title_positives` and `new_title_hits`.
    """
    lists = found.lists
    had_any, fitted = np.zeros(len(past.users), bool), np.zeros(lists.num_titles, bool)
    had_any[history.users] = True
    fitted[history.titles[history.fitted]] = True
    numbers = past.numbers(found.users)
    is_new_title = ~fitted[lists.positive_titles]
    hits = np.isfinite(lists.positive_ranks)
    counts = {
        name: np.bincount(lists.positive_users[rows], minlength=len(found.users))
        for name, rows in {
            "hits": hits, "new_title_positives": is_new_title, "new_title_hits": is_new_title & hits
        }.items()
    }  # fmt: skip
    return pd.DataFrame(
        {
            "window": window,
            "user": found.users,
            "is_new_user": ~had_any[numbers],
            **metrics_of_users(lists, metrics),
            **counts,
        }
    )

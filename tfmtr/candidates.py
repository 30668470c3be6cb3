"""Examples for a second stage: what a first stage would have listed, and what users took of it.

A ranking model orders the candidates of an index, and learns it best from just these: lists as of the start of each
window, of users who took something in it. Its rows are what the user took of the list and some of what was passed
over, with the first stage's own evidence as features (`tfmtr.retrieval.first_stage`). A model that learns from titles
drawn at random has seen no hard case and knows nothing of what the first stage knows: it makes lists worse than they
were.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.checks import check_integer
from tfmtr.datasets.counter_tables import CounterTable, counted, counter_tables
from tfmtr.datasets.dataset import DISCOVERIES, EXAMPLES, IMPRESSIONS, Dataset, workplace
from tfmtr.datasets.prepare import check_output
from tfmtr.datasets.report import fingerprint
from tfmtr.evaluation.baseline_lists import catalogue_of
from tfmtr.evaluation.index_lists import ListCase, best_titles, is_positive
from tfmtr.evaluation.past import Past, has_events
from tfmtr.inputs import read_tables
from tfmtr.kinds import KINDS
from tfmtr.retrieval.first_stage import FirstStageFeatures
from tfmtr.retrieval.second_stage import CANDIDATES
from tfmtr.run import Run
from tfmtr.schema import PAIR, ROLES, Feature, Schema
from tfmtr.scratch import scratch

if TYPE_CHECKING:
    from tfmtr.listwise.model import ListModel

NEGATIVES = 30  # titles of a list that were passed over, of which a model learns
EARLIER = 2  # windows before the first one whose lists are learnt from: what is known before is little
BINS, SAMPLE = 16, 50_000
SCORES, COORDINATES = 20_000_000, 50_000_000  # of users and titles, and of users and candidates, at a time
ROW_GROUP = 65_536


class NoListsError(ValueError):
    """No training user took anything of a list."""


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
    """Lists of some users: their candidates, and what the users took.

    Attributes:
        users: Ids, shape `(lists,)`.
        queries: The users' coordinates, float32 of shape `(lists, width)`.
        index: Places of the candidates, best first, integers of shape `(lists, candidates)`; -1 where there is none.
        is_taken: Booleans of the same shape.
    """

    users: np.ndarray
    queries: np.ndarray
    index: np.ndarray
    is_taken: np.ndarray

    def some(self, lists: np.ndarray) -> Lists:
        """Some of the lists."""
        return Lists(self.users[lists], self.queries[lists], self.index[lists], self.is_taken[lists])


class Numbers:
    """Means, deviations and quantiles of columns over tables that come one by one; a null is of no row.

    Means and deviations are of all rows, quantiles of at most `SAMPLE` of each table, evenly spaced.
    """

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}
        self.some: collections.defaultdict[str, list[np.ndarray]] = collections.defaultdict(list)

    def add(self, table: pa.Table, names: Iterable[str]) -> None:
        """Adds a table's rows."""
        for name in names:
            values = table[name].drop_null().to_numpy().astype(float)
            sums = np.array([len(values), values.sum(), np.square(values).sum()])
            self.sums[name] = self.sums.get(name, np.zeros(3)) + sums
            self.some[name].append(values[:: max(1, len(values) // SAMPLE)])

    def moments(self, name: str) -> tuple[float, float]:
        """Mean and deviation of a column, the deviation 1 where all values are one; 0 and 1 of no value."""
        number, total, squares = self.sums[name]
        mean = total / max(number, 1)
        variance = squares / max(number, 1) - mean**2
        deviation = np.sqrt(variance) if variance > 1e-9 * max(squares / max(number, 1), 1e-30) else 1.0
        return rounded(mean), rounded(deviation)

    def quantiles(self, name: str) -> tuple[float, ...]:
        """Edges of `BINS` bins that have equally many rows, fewer where many have one value; none of one value."""
        values = np.concatenate(self.some[name])
        edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1))) if len(values) else np.zeros(0)
        edges = tuple(dict.fromkeys(rounded(edge) for edge in edges))
        return edges if len(edges) > 1 else ()


def rounded(value: float) -> float:
    """A number with nine digits, as `schema.json` has it."""
    return float(f"{value:.9g}")


def prepare_candidates(
    run: str | os.PathLike,
    out: str | os.PathLike,
    *,
    candidates: int = CANDIDATES,
    negatives: int = NEGATIVES,
    seed: int = 0,
    earlier: int = EARLIER,
    overwrite: bool = False,
) -> Dataset:
    """Writes a `Dataset` of the first stage's lists for a ranking model to learn from.

    The list model's score as of each window's start, without the towers' part (which have learnt from these very rows),
    finds the candidates among the titles of the window's catalogue that the user did not have. A row is a title that
    the user took, or one of `negatives` others of the same list, drawn. Users keep their split; lists that a user took
    nothing of are left out, and counted with what was taken of no list; so are the first two windows, before which
    little is known, and titles that users took again. What else the data have is copied, the examples as `discoveries`:
    lists are judged by all that users took.

    Args:
        run: Run directory of a two-tower model with a list model.
        out: The new directory.
        candidates: Length of a list.
        negatives: Titles of a list that were passed over, of which a model learns.
        seed: Of what is drawn.
        earlier: How many of the first training windows have no lists, if there are more: little is known before them.
        overwrite: Whether a prepared directory may be replaced.

    Returns:
        The `Dataset`.

    Raises:
        ValueError: If the run has no list model or its data do not tell what users had, a number is out of its range,
            `out` is not free, or the data have counters of a user with a column of the titles, which cannot be looked
            up for the titles of a list.
        NoListsError: If no training user took anything of a list.
    """
    out, run = Path(out), Run(run)
    check_integer("candidates", candidates, least=1)
    check_integer("negatives", negatives, least=1)
    check_integer("seed", seed, least=0)
    check_integer("earlier", earlier, least=0)
    check_output(out, overwrite)
    run.check_form("two_tower")
    order, data = run.list_model, run.data
    if order is None or not has_events(data):
        raise ValueError(
            "`run` must have a list model, whose lists a ranking model learns to order; train it with "
            f"`listwise=true` (the default) on data that tell what users had. Received: {run.path}"
        )
    if data.has_candidates:
        raise ValueError(f"`run` must be of the log's own examples. Received: a run on candidates, {data.path}")
    writer = Writer(data, order, candidates=candidates, negatives=negatives, seed=seed, earlier=earlier)
    with scratch(*workplace(out)) as folder:
        made = folder / "data"
        ignored = shutil.ignore_patterns(EXAMPLES, IMPRESSIONS, "prepare.json", "schema.json")
        shutil.copytree(data.path, made, ignore=ignored)
        shutil.copytree(data.path / EXAMPLES, made / DISCOVERIES)
        counts = writer.write(made)
        schema = writer.schema()
        schema.save(made)
        others = {name: value for name, value in data.report.items() if name != IMPRESSIONS}
        report = others | {
            "examples": counts,
            "candidates": {
                "run_id": run.run_id,
                "fingerprint": data.report["fingerprint"],
                "number": candidates,
                "negatives": negatives,
                "seed": seed,
                "lists": dict(writer.lists),
                "taken": dict(writer.taken),
                "among_candidates": dict(writer.found),
                "again": dict(writer.again),
                "early": dict(writer.early),
            },
            "fingerprint": fingerprint(made),
        }
        (made / "prepare.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if out.exists():
            out.rename(folder / "replaced")
        made.rename(out)
    return Dataset(out)


class Writer:
    """Writes the rows, window by window.

    Args:
        data: The `Dataset` of the log.
        order: The `ListModel`.
        candidates: Length of a list.
        negatives: How many are drawn of what was passed over.
        seed: Of what is drawn.
        earlier: How many of the first training windows are left out, if there are more.

    Attributes:
        lists: Number of lists of each split that a user took something of.
        taken: What users took, of each split.
        found: How much of it was among the candidates.
        again: What users took that they had had before, which is in no list.
        early: What users took in windows before the first one whose lists are learnt from.
    """

    def __init__(
        self, data: Dataset, order: ListModel, *, candidates: int, negatives: int, seed: int, earlier: int
    ) -> None:
        self.data, self.order, self.past = data, order, Past(data)
        self.candidates, self.negatives, self.seed, self.earlier = candidates, negatives, seed, earlier
        self.titles = pq.read_table(data.path / "titles.parquet")
        self.lists, self.taken, self.found, self.again, self.early = (collections.Counter[str]() for _ in range(5))
        self.numbers, self.evidence = Numbers(), ()
        self.counters: list[CounterTable] = []

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """Writes all windows' examples into a folder; returns what `prepare.json` says of them."""
        counts, windows = [], sorted(row["window"] for row in self.data.report["windows"])
        first = windows[self.earlier if sum(window <= 0 for window in windows) > self.earlier else 0]
        for row in self.data.report["examples"]:
            if row["window"] < first:
                self.early[row["split"]] += row["positives"]
        for window in (window for window in windows if window >= first):
            known = FirstStageFeatures.as_of(self.order, self.data, self.past, window)
            self.counters = counter_tables("run", self.data, self.data.schema, window)
            for split in ("train", "validation", "test"):
                files = self.data.examples(split, windows=[window], sampling=("random", "active"))
                if not files or (split == "test" and window <= 0):
                    continue
                table = pa.concat_tables(read_tables(files, rows=ROW_GROUP))
                rows = self.rows(table, known, split, window)
                if rows is None:
                    continue
                name = f"{EXAMPLES}/split={split}/sampling=random/window={window}/part-00000.parquet"
                (folder / name).parent.mkdir(parents=True)
                pq.write_table(rows, folder / name, compression="zstd", row_group_size=ROW_GROUP)
                label = rows[self.data.schema.tasks[0].column]
                counts.append(
                    {"split": split, "sampling": "random", "window": window, "rows": len(rows)}
                    | {"positives": pc.sum(is_positive(label)).as_py() or 0, "users": len(pc.unique(rows["user"]))}  # pyright: ignore[reportAttributeAccessIssue]
                )
        if not any(row["split"] == "train" and row["window"] <= 0 for row in counts):
            raise NoListsError(
                "`run` must have lists of training users who took one of its candidates; ask for more "
                f"(`--candidates`). Received: {sum(self.taken.values())} titles that users took, none of them found"
            )
        return counts

    def rows(self, table: pa.Table, known: FirstStageFeatures, split: str, window: int) -> pa.Table | None:
        """Example rows of the lists of a window's users; `None` where nobody took a candidate."""
        schema, past = self.data.schema, self.past
        is_event = pc.fill_null(is_positive(table[schema.tasks[0].column]), False)
        if not (number := pc.sum(is_event).as_py()):  # pyright: ignore[reportAttributeAccessIssue]
            return None
        case = ListCase(table.filter(is_event), catalogue_of(self.data, window), most=number, past=past, window=window)
        rng, parts = np.random.default_rng([self.seed, window + 10_000, len(split)]), []
        self.taken[split] += len(case.positive_titles)
        self.again[split] += case.left_out["positives"]
        for lists in self.each(case, known, window):
            self.found[split] += int(lists.is_taken.sum())
            lists = lists.some(np.flatnonzero(lists.is_taken.any(axis=1)))
            self.lists[split] += len(lists.users)
            if len(lists.users):
                parts.append(self.drawn(lists, table, is_event.to_numpy(), known, rng))
        if not parts:
            return None
        rows = pa.concat_tables(parts)
        if split == "train" and window <= 0:
            numbers = [f.name for f in schema.by_role(*ROLES) if KINDS[f.kind].has_quantiles]
            self.numbers.add(rows, [*numbers, *known.names, *(task.column for task in schema.tasks)])
            self.evidence = known.names
        return rows

    def each(self, case: ListCase, known: FirstStageFeatures, window: int) -> Iterator[Lists]:
        """The lists of a case's users, some at a time."""
        k, width = min(self.candidates, self.past.num_titles), known.scorer.outputs.shape[1]
        size = max(1, min(SCORES // max(self.past.num_titles, 1), COORDINATES // max(k * width, 1)))
        for begin in range(0, len(case.users), size):
            own = slice(begin, begin + size)
            queries = known.scorer.queries_of(self.past, self.past.numbers(case.users[own]), window)
            index = best_titles(queries @ known.scorer.outputs.T, case.allowed(begin, begin + size), k)
            wanted = np.zeros((len(queries), case.num_titles), bool)
            is_own = (case.positive_users >= begin) & (case.positive_users < begin + size)
            wanted[case.positive_users[is_own] - begin, case.positive_titles[is_own]] = True
            is_taken = np.take_along_axis(wanted, np.maximum(index, 0), axis=1) & (index >= 0)
            yield Lists(case.users[own], queries, index, is_taken)

    def drawn(
        self, lists: Lists, table: pa.Table, is_event: np.ndarray, known: FirstStageFeatures, rng: np.random.Generator
    ) -> pa.Table:
        """Rows of what was taken of lists, and of some of what was passed over."""
        schema = self.data.schema
        keys = np.where(lists.is_taken, -1.0, np.where(lists.index >= 0, rng.random(lists.index.shape), np.inf))
        order = np.argsort(keys, axis=1, kind="stable")
        number = lists.is_taken.sum(axis=1, keepdims=True) + self.negatives
        place, chosen = np.nonzero((np.arange(order.shape[1]) < number) & np.isfinite(np.sort(keys, axis=1)))
        column = order[place, chosen]
        title = lists.index[place, column]
        source, is_same = find_rows(table, is_event, lists.users[place], title, rng)
        rows = table.take(pa.array(source))
        of_titles = [f.name for f in schema.by_role("title") if f.name in self.titles.column_names]
        others = {name: self.titles[name].take(pa.array(title)) for name in ("title", *of_titles)}
        others["title_row"] = pa.array(title, pa.int64())
        nothing = pa.array(~is_same)
        for task in schema.tasks:
            others[task.column] = pc.if_else(nothing, pa.scalar(0.0, pa.float32()), rows[task.column])  # pyright: ignore[reportAttributeAccessIssue]
        for feature in schema.by_role("training"):
            others[feature.name] = pc.if_else(nothing, pa.scalar(None, rows[feature.name].type), rows[feature.name])  # pyright: ignore[reportAttributeAccessIssue]
        for name, values in counted(self.counters, rows, title[:, None]).items():
            others[name] = pa.array(values[:, 0])
        for name, values in others.items():
            at = rows.column_names.index(name)
            rows = rows.set_column(at, rows.schema.field(at), pa.chunked_array(values).cast(rows.schema.field(at).type))
        evidence = known.of(lists.queries, lists.index)
        for name, values in evidence.items():
            rows = rows.append_column(name, pa.array(values[place, column]))
        return rows

    def schema(self) -> Schema:
        """The schema of the rows: the first stage's evidence, and numbers and labels as they are in training rows."""
        before, numbers = self.data.schema, self.numbers
        binned = {f.name for f in before.by_role(*ROLES) if KINDS[f.kind].has_quantiles}
        features = [
            dataclasses.replace(f, quantiles=numbers.quantiles(f.name)) if f.name in binned else f
            for f in before.features
        ]
        for name in self.evidence:
            mean, std = numbers.moments(name)
            quantiles = numbers.quantiles(name)
            features.append(Feature(name, PAIR, "number", mean=mean, std=std, quantiles=quantiles))
        tasks = [dataclasses.replace(task, mean=numbers.moments(task.column)[0]) for task in before.tasks]
        return before.replace(features=features, tasks=tasks)


def find_rows(
    table: pa.Table, is_event: np.ndarray, users: np.ndarray, titles: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of an example table that tell about pairs: the pair's own, otherwise one of what the user took.

    Args:
        table: Example rows.
        is_event: Which of them are something that the user took, booleans of shape `(rows,)`.
        users: Ids, each with such a row, of shape `(pairs,)`.
        titles: Places of titles, integers of shape `(pairs,)`.
        rng: Draws among what a user took.

    Returns:
        `(rows, is_own)`: integers and booleans of shape `(pairs,)`.
    """
    everyone, number = np.unique(table["user"].to_numpy().astype(str), return_inverse=True)
    title, user = table["title_row"].to_numpy(), np.searchsorted(everyone, users.astype(str))
    size = max(title.max(), titles.max()) + 1
    keys, wanted = number * size + title, user * size + titles
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    is_own = keys[order][at] == wanted
    taken = np.flatnonzero(is_event)
    taken = taken[np.argsort(number[taken], kind="stable")]
    begin, end = (np.searchsorted(number[taken], user, side=side) for side in ("left", "right"))
    drawn = taken[begin + np.floor(rng.random(len(user)) * (end - begin)).astype(int)]
    return np.where(is_own, order[at], drawn), is_own

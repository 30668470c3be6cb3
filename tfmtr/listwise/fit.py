"""Fits a `ListModel` to a prepared directory, beside a two-tower model that is trained."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tfmtr import inputs
from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.baseline_lists import length_in_days, validation_cases
from tfmtr.evaluation.index_lists import BATCH, best_titles
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.past import EVENTS, Past, has_events
from tfmtr.evaluation.ranking import ndcg_of_users
from tfmtr.listwise.model import HALF_LIFE, ListModel, Scorer, start_of, windows_before
from tfmtr.listwise.parts import Factors, find_parts, learn_factors, learning_cases
from tfmtr.listwise.prior import SPEEDS
from tfmtr.listwise.residual import Residual, Start, best_epochs, train_residual
from tfmtr.listwise.rows import ListRows, first_windows, list_rows
from tfmtr.models import TwoTower
from tfmtr.retrieval.index import title_vectors
from tfmtr.schema import Schema

LEARNT_WINDOWS = 4  # the last training windows: factors are learnt from their lists
RESIDUAL_WINDOWS = 8  # the last training windows: the residual is learnt from their lists
JUDGING_WINDOWS = 2  # the last of these: they say how long the residual is trained, from those before them
MOST_JUDGING = 1_000  # lists of such a window
LEAST_JUDGES = 200  # lists; with fewer nothing is chosen
K = 10


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to begin, of the few among which validation users choose.

    Attributes:
        speed: Half-life of the shares that the prior is made of, in windows; `None` for a learnt prior of all speeds.
        popularity: Whether the prior is all there is.
        model_weight: How much the towers' score counts.
    """

    speed: float | None = None
    popularity: bool = False
    model_weight: float = 0.1


MIDDLE = "learnt"  # where nothing is chosen
SETTINGS = {
    MIDDLE: Setting(),
    "learnt, more of the towers": Setting(model_weight=0.5),
    "popularity": Setting(popularity=True),
    "half-life 1/4": Setting(speed=0.25),
    "half-life 1": Setting(speed=1.0),
    "half-life 4": Setting(speed=4.0),
}


def why_not(data: Dataset, form: str) -> str | None:
    """Why there is no list model for some data, in one line; `None` where there is one."""
    if form != "two_tower":
        return f"a model of form={form} makes no lists yet"
    if not has_events(data):
        return f"the data have no {EVENTS}, which tells what users had; prepare them again"
    return None


def fit_list_model(
    model: TwoTower, data: Dataset, schema: Schema, *, seed: int = 0
) -> tuple[ListModel, dict[str, Any]]:
    """Fits what orders lists; a user of a test or validation fold is in no fit, only judges what is kept.

    1. The closed forms and the prior as of each of the last training windows, from what was before it.
    2. How much each of them counts, from training users' lists in these windows; for each of `SETTINGS`.
    3. The setting: the best for validation users' lists in the last three training windows, the middle one where there
       are fewer than 200 of them.
    4. A residual by a softmax over titles. It is learnt twice: without the last two windows, whose lists then say how
       many epochs are best, and from all windows for so many epochs. Where these lists are not clearly better, or there
       are fewer than 200 of them, there is none.

    Args:
        model: A `TwoTower` model, trained on the training windows.
        data: The `Dataset`.
        schema: The model's `Schema`.
        seed: Of what is drawn.

    Returns:
        `(list model, document)`: what was tried and seen, for `run.json`.
    """
    past, days = Past(data), length_in_days(data)
    half_life = None if days is None else HALF_LIFE * days
    windows = [window for window in sorted(past.starts) if window <= 0]
    rows = {window: list_rows(past, window, half_life) for window in windows}
    first, vectors = first_windows(past), np.asarray(data.vectors("title").vectors, "float32")
    used = windows[-RESIDUAL_WINDOWS:]
    parts = {
        window: find_parts(past, window, days, [rows[number] for number in windows_before(past, window)])
        for window in used
    }
    learnt = windows[-LEARNT_WINDOWS:]
    cases = learning_cases([parts[window] for window in learnt], [rows[window] for window in learnt], first, seed)
    speeds, number = len(parts[used[-1]].everywhere), len(parts[used[-1]].weights)

    def factors_of(setting: Setting) -> Factors:
        speed = None if setting.speed is None else SPEEDS.index(setting.speed)
        return learn_factors(cases, speeds, number, speed=speed, popularity=setting.popularity)

    nothing = Residual.zeros(len(first), vectors.shape[1], len(past.territories))
    judges, tries, name = Judges(model, data, schema, past), [], MIDDLE
    found: dict[str, Factors] = {}
    if judges.number >= LEAST_JUDGES:
        for key, setting in SETTINGS.items():
            if setting.speed is not None and days is None:
                continue
            same = [other for other in found if dataclasses.replace(SETTINGS[other], model_weight=0.0)
                    == dataclasses.replace(setting, model_weight=0.0)]  # fmt: skip
            found[key] = found[same[0]] if same else factors_of(setting)
            scorers = {
                window: Scorer.of(
                    start_of(parts[window], found[key]),
                    nothing,
                    vectors,
                    past.territories,
                    half_life,
                    setting.model_weight,
                )
                for window, _ in judges.cases
            }
            tries.append({"setting": key, "ndcg": judges(scorers)})
        name = max(tries, key=lambda row: row["ndcg"])["setting"]
    factors = found[name] if name in found else factors_of(SETTINGS[name])
    starts = {window: start_of(parts.pop(window), factors) for window in used}
    seen, judged = used[:-JUDGING_WINDOWS], used[-JUDGING_WINDOWS:]
    of_judges = [(starts[window], some(rows[window], MOST_JUDGING, seed)) for window in judged]
    lists, epochs, history = sum(len(row) for _, row in of_judges), 0, []
    if lists >= LEAST_JUDGES and sum(len(rows[window]) for window in seen):
        _, history = train_residual(
            [starts[window] for window in seen],
            [rows[window] for window in seen],
            first,
            vectors,
            judge=lambda residual: ndcg_of_rows(of_judges, residual, vectors, first),
            seed=seed,
        )
        epochs = best_epochs(history)
    residual, _ = train_residual(
        list(starts.values()), [rows[window] for window in used], first, vectors, epochs=epochs, seed=seed
    )
    weight = SETTINGS[name].model_weight
    made = ListModel(factors, residual, tuple(past.titles), tuple(past.territories), days, weight)
    return made, {
        "setting": name,
        "judges": {"lists": judges.number, "tries": tries},
        "factors": {
            field.name: np.round(getattr(factors, field.name), 4).tolist() for field in dataclasses.fields(factors)
        },
        "rows": {str(window): len(rows[window]) for window in starts},
        "positives": int(sum(rows[window].wanted.nnz for window in starts)),
        "judging": {"lists": lists, "epochs": history},
        "epochs": epochs,
        "model_weight": weight,
    }


def some(rows: ListRows, most: int, seed: int) -> ListRows:
    """At most so many rows, drawn."""
    if len(rows) <= most:
        return rows
    return rows.take(np.sort(np.random.default_rng([seed, most]).choice(len(rows), most, replace=False)))


def ndcg_of_rows(
    cases: list[tuple[Start, ListRows]], residual: Residual, vectors: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """NDCG of lists of what users took, of the titles that there were."""
    found, before, after = [], residual.inputs(vectors), residual.outputs(vectors)
    for start, rows in cases:
        for begin in range(0, len(rows), BATCH):
            row = rows.take(np.arange(begin, min(begin + BATCH, len(rows))))
            scores = start.scores(row) + (row.pasts @ before + residual.homes[row.homes]) @ after.T + residual.bias
            allowed = (first <= row.window) & ~row.had.toarray()
            user, title = row.wanted.nonzero()
            names = np.full(len(row), "all")
            found.append(
                ndcg_of_users(Lists(best_titles(scores, allowed, K), names, user, title, num_titles=len(first)))
            )
    return np.concatenate(found)


class Judges:
    """Validation users' lists in the last training windows, and how good an order of them is.

    Call arguments:
        scorers: `{window: Scorer}`.

    Returns:
        Mean NDCG over all lists, NaN without one.
    """

    def __init__(self, model: TwoTower, data: Dataset, schema: Schema, past: Past) -> None:
        self.past, self.cases = past, validation_cases(data, past, columns=None)
        self.number = sum(len(case.users) for _, case in self.cases)
        self.model, self.data, self.schema = model, data, schema

    @functools.cached_property
    def titles(self) -> np.ndarray:
        """The towers' vectors of the titles."""
        return title_vectors(self.model, self.data, self.schema).vectors

    @functools.cached_property
    def queries(self) -> list[np.ndarray]:
        """The towers' vectors of the users of each case."""
        stores, found = inputs.open_stores(self.data), []
        for _, case in self.cases:
            features = inputs.model_inputs(case.rows, self.schema, stores)
            asked = {name: features[name] for name in self.model.user_tower.input}
            found.append(np.asarray(self.model.user_tower.predict(asked, verbose=0)[self.schema.tasks[0].name]))  # pyright: ignore[reportArgumentType]
        return found

    def __call__(self, scorers: Mapping[int, Scorer]) -> float:
        """Judges; see the class."""
        found = []
        for (window, case), queries in zip(self.cases, self.queries, strict=True):
            scorer, titles = scorers[window], scorers[window].join_titles(self.titles)
            own = scorer.queries_of(self.past, self.past.numbers(case.users), window)
            asked = scorer.join_queries(queries, own)
            place = {user: number for number, user in enumerate(case.users.tolist())}

            rank = functools.partial(_rank, asked=asked, titles=titles, place=place)
            found.append(ndcg_of_users(case.lists(rank)))
        values = np.concatenate(found) if found else np.zeros(0)
        return float(values.mean()) if len(values) else float("nan")


def _rank(
    rows: pa.Table, allowed: np.ndarray, *, asked: np.ndarray, titles: np.ndarray, place: Mapping[str, int]
) -> np.ndarray:
    """The best titles of some users by their place among the queries."""
    return best_titles(asked[[place[user] for user in rows["user"].to_pylist()]] @ titles.T, allowed, K)

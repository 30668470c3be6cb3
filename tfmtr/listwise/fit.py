"""Fits a `ListModel` to a prepared directory, beside a two-tower model that is trained."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtr import inputs
from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.baseline_lists import JUDGED_WINDOWS, MOST_VALIDATION, length_in_days, validation_cases
from tfmtr.evaluation.index_lists import best_titles
from tfmtr.evaluation.past import EVENTS, Past, has_events
from tfmtr.evaluation.ranking import ndcg_of_users
from tfmtr.listwise.factors import CHUNK, Heads, learn, learn_factors
from tfmtr.listwise.model import HALF_LIFE, ListModel, windows_before
from tfmtr.listwise.parts import Factors, Parts, activity_of, find_parts
from tfmtr.listwise.past_titles import past_titles
from tfmtr.listwise.prior import SPEEDS
from tfmtr.listwise.rows import first_windows, list_rows
from tfmtr.listwise.texts import unit
from tfmtr.models import TwoTower
from tfmtr.retrieval.index import title_vectors
from tfmtr.schema import Schema

LEARNT_WINDOWS = 4  # the last training windows: factors are learnt from their lists
LEAST_JUDGES = 200  # lists; with fewer nothing is chosen
MOST_JUDGED = 40_000_000  # of a window's lists and titles that settings are judged by
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

    def factors(self, learnt: Factors, heads: Heads) -> Factors:
        """The factors, from the heads that those that were `learnt` are from."""
        if self.speed is None and not self.popularity:
            return learnt
        speed = None if self.speed is None else SPEEDS.index(self.speed)
        return learn_factors(heads, speed=speed, popularity=self.popularity)


MIDDLE = "learnt"  # the first: where nothing is chosen
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
    if data.has_given_rows:
        return "the data are rows that were given (`tfmtr prepare rows`): what users had before them is not known"
    return None


def fit_list_model(
    model: TwoTower, data: Dataset, schema: Schema, *, seed: int = 0, settings: Mapping[str, Setting] = SETTINGS
) -> tuple[ListModel, dict[str, Any]]:
    """Fits what orders lists; a user of a test or validation fold is in no fit, only judges what is kept.

    1. The closed forms and the prior as of each of the last training windows, from what was before it.
    2. How much each of them counts, from training users' lists in these windows; for each of the settings.
    3. The setting: the best for validation users' lists in the last three training windows, the first one where there
       are fewer than 200 of them.

    Args:
        model: A `TwoTower` model, trained on the training windows.
        data: The `Dataset`.
        schema: The model's `Schema`.
        seed: Of what is drawn.
        settings: The `Setting`s among which validation users choose, by name.

    Returns:
        `(list model, document)`: what was tried and seen, for `run.json`.
    """
    past, days = Past(data), length_in_days(data)
    half_life = None if days is None else HALF_LIFE * days
    vectors = unit(data.vectors("title").vectors)
    learnt = [window for window in sorted(past.starts) if window <= 0][-LEARNT_WINDOWS:]
    read = {number for window in learnt for number in (window, *windows_before(past, window))}
    rows = {window: list_rows(past, window, half_life) for window in sorted(read)}
    parts = {
        window: find_parts(past, window, days, [rows[number] for number in windows_before(past, window)], vectors)
        for window in learnt
    }
    factors, heads = learn(list(parts.values()), [rows[window] for window in learnt], first_windows(past), seed)
    judges, tries = Judges(model, data, schema, past), []
    usable = {name: one for name, one in settings.items() if one.speed is None or days is not None}
    chosen = next(iter(usable))
    if judges.number < LEAST_JUDGES:
        usable = {chosen: usable[chosen]}
    made = {name: ListModel(one.factors(factors, heads), days, one.model_weight) for name, one in usable.items()}
    if len(made) > 1:
        figures = judges(list(made.values()), parts)
        tries = [{"setting": name, "ndcg": figure} for name, figure in zip(made, figures, strict=True)]
        chosen = max(tries, key=lambda row: row["ndcg"])["setting"]
    factors = made[chosen].factors
    return made[chosen], {
        "setting": chosen,
        "judges": {"lists": judges.number, "tries": tries},
        "factors": {
            field.name: np.round(getattr(factors, field.name), 4).tolist() for field in dataclasses.fields(factors)
        },
        "rows": {str(window): len(rows[window]) for window in learnt},
        "learnt_from": len(heads),
        "model_weight": made[chosen].model_weight,
    }


class Judges:
    """Validation users' lists in the last training windows, and how good orders of them are.

    Call arguments:
        models: `ListModel`s.
        parts: `{window: Parts}`.

    Returns:
        Mean NDCG over all lists of each model, NaN without a list.
    """

    def __init__(self, model: TwoTower, data: Dataset, schema: Schema, past: Past) -> None:
        least = -(-LEAST_JUDGES // JUDGED_WINDOWS)
        most = int(np.clip(MOST_JUDGED // max(past.num_titles, 1), least, MOST_VALIDATION))
        self.past, self.cases = past, validation_cases(data, past, columns=None, most=most)
        self.number = sum(len(case.users) for _, case in self.cases)
        self.model, self.data, self.schema = model, data, schema

    @functools.cached_property
    def titles(self) -> np.ndarray:
        """The towers' vectors of the titles, of shape `(titles, d)`."""
        return title_vectors(self.model, self.data, self.schema).vectors

    @functools.cached_property
    def queries(self) -> list[np.ndarray]:
        """The towers' vectors of each case's users, of shape `(users, d)`."""
        stores, found = inputs.open_stores(self.data), []
        for _, case in self.cases:
            features = inputs.model_inputs(case.rows, self.schema, stores)
            asked = {name: features[name] for name in self.model.user_tower.input}
            queries = self.model.user_tower.predict(asked, verbose=0)[self.schema.tasks[0].name]  # pyright: ignore[reportArgumentType]
            found.append(np.asarray(queries, "float32"))
        return found

    def __call__(self, models: Sequence[ListModel], parts: Mapping[int, Parts]) -> list[float]:
        """Judges; see the class."""
        found = [[np.zeros(0)] for _ in models]
        size = max(1, CHUNK // max(self.past.num_titles, 1))
        for (window, case), queries in zip(self.cases, self.queries, strict=True):
            numbers, part = self.past.numbers(case.users), parts[window]
            pasts, homes = past_titles(self.past, numbers, window, models[0].half_life), self.past.homes[numbers]
            orders, best = [part.order(model.factors) for model in models], [[] for _ in models]
            for begin in range(0, len(case.users), size):
                own = slice(begin, begin + size)
                scores, towers = part.scores(pasts[own]), queries[own] @ self.titles.T
                activity, allowed = activity_of(pasts[own]), case.allowed(begin, begin + size)
                for model, order, lists in zip(models, orders, best, strict=True):
                    logits = order.logits(scores, activity, homes[own])
                    logits += np.float32(model.model_weight) * towers
                    lists.append(best_titles(logits, allowed, K))
            for figures, lists in zip(found, best, strict=True):
                figures.append(ndcg_of_users(case.ranked(np.concatenate(lists))))
        values = [np.concatenate(figures) for figures in found]
        return [float(figures.mean()) if len(figures) else float("nan") for figures in values]

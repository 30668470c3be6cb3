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
from tfmtr.evaluation.index_lists import best_titles
from tfmtr.evaluation.past import EVENTS, Past, has_events
from tfmtr.evaluation.ranking import ndcg_of_users
from tfmtr.listwise.factors import Heads, learn, learn_factors
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
    rows, vectors = (
        {window: list_rows(past, window, half_life) for window in windows},
        unit(data.vectors("title").vectors),
    )
    learnt = windows[-LEARNT_WINDOWS:]
    parts = {
        window: find_parts(past, window, days, [rows[number] for number in windows_before(past, window)], vectors)
        for window in learnt
    }
    factors, heads = learn(list(parts.values()), [rows[window] for window in learnt], first_windows(past), seed)
    judges, tries, chosen = Judges(model, data, schema, past), [], MIDDLE
    made = {MIDDLE: ListModel(factors, days, SETTINGS[MIDDLE].model_weight)}
    if judges.number >= LEAST_JUDGES:
        for name, setting in SETTINGS.items():
            if setting.speed is not None and days is None:
                continue
            made[name] = ListModel(setting.factors(factors, heads), days, setting.model_weight)
            tries.append({"setting": name, "ndcg": judges(made[name], parts)})
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
    """Validation users' lists in the last training windows, and how good an order of them is.

    Call arguments:
        model: A `ListModel`.
        parts: `{window: Parts}`.

    Returns:
        Mean NDCG over all lists, NaN without one.
    """

    def __init__(self, model: TwoTower, data: Dataset, schema: Schema, past: Past) -> None:
        self.past, self.cases = past, validation_cases(data, past, columns=None)
        self.number = sum(len(case.users) for _, case in self.cases)
        self.model, self.data, self.schema = model, data, schema

    @functools.cached_property
    def towers(self) -> list[np.ndarray]:
        """The towers' scores of each case, of all titles."""
        titles, stores, found = (
            title_vectors(self.model, self.data, self.schema).vectors,
            inputs.open_stores(self.data),
            [],
        )
        for _, case in self.cases:
            features = inputs.model_inputs(case.rows, self.schema, stores)
            asked = {name: features[name] for name in self.model.user_tower.input}
            queries = self.model.user_tower.predict(asked, verbose=0)[self.schema.tasks[0].name]  # pyright: ignore[reportArgumentType]
            found.append(np.asarray(queries, "float32") @ titles.T)
        return found

    @functools.cached_property
    def users(self) -> list[np.ndarray]:
        """Numbers of the users of each case."""
        return [self.past.numbers(case.users) for _, case in self.cases]

    def __call__(self, model: ListModel, parts: Mapping[int, Parts]) -> float:
        """Judges; see the class."""
        found = []
        for (window, case), towers, users in zip(self.cases, self.towers, self.users, strict=True):
            everywhere, there = parts[window].prior(model.factors)
            pasts = past_titles(self.past, users, window, model.half_life)
            scores = np.tensordot(model.factors.weights.astype("float32"), parts[window].scores(pasts), axes=1)
            scores += everywhere + there[self.past.homes[users]] + model.model_weight * towers
            scores += np.outer(activity_of(pasts), parts[window].lean(model.factors))
            place = {user: number for number, user in enumerate(case.users.tolist())}

            rank = functools.partial(_rank, scores=scores, place=place)
            found.append(ndcg_of_users(case.lists(rank)))
        values = np.concatenate(found) if found else np.zeros(0)
        return float(values.mean()) if len(values) else float("nan")


def _rank(rows: pa.Table, allowed: np.ndarray, *, scores: np.ndarray, place: Mapping[str, int]) -> np.ndarray:
    """The best titles of some users by their place among the scores."""
    return best_titles(scores[[place[user] for user in rows["user"].to_pylist()]], allowed, K)

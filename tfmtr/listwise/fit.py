"""Fits a `ListModel` to a prepared directory, beside a two-tower model that is trained."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtr import inputs
from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.baseline_lists import length_in_days, validation_cases
from tfmtr.evaluation.index_lists import best_titles
from tfmtr.evaluation.past import EVENTS, Past, has_events
from tfmtr.evaluation.ranking import ndcg_of_users
from tfmtr.listwise.model import HALF_LIFE, ListModel, Scorer, start_of, windows_before
from tfmtr.listwise.parts import find_parts, learn_factors
from tfmtr.listwise.residual import Residual, train_residual
from tfmtr.listwise.rows import first_windows, list_rows
from tfmtr.models import TwoTower
from tfmtr.retrieval.index import title_vectors
from tfmtr.schema import Schema

LEARNT_WINDOWS = 3  # the last training windows: factors are learnt from their lists
RESIDUAL_WINDOWS = 8  # the last training windows: the residual is learnt from their lists
MODEL_WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0)
LEAST_JUDGES = 200  # lists of validation users; with fewer nothing is chosen
K = 10


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
    2. How much each of them counts, from training users' lists in the last three.
    3. A residual by a softmax over titles; validation users' lists say which epoch is kept.
    4. How much the towers' score counts beside it: one of five values, by validation users' lists.

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

    def parts_of(window):
        return find_parts(past, window, days, [rows[number] for number in windows_before(past, window)])

    learnt = windows[-LEARNT_WINDOWS:]
    parts = {window: parts_of(window) for window in learnt}
    factors = learn_factors([parts[window] for window in learnt], [rows[window] for window in learnt], first, seed)
    starts = {}
    for window in windows[-RESIDUAL_WINDOWS:]:
        starts[window] = start_of(parts.pop(window) if window in parts else parts_of(window), factors)
    judges = Judges(model, data, schema, past)
    num_judges = judges.number

    def scorer(window: int, residual: Residual, weight: float) -> Scorer:
        return Scorer.of(starts[window], residual, vectors, past.territories, half_life, weight)

    def judge(residual: Residual) -> float:
        return judges(lambda window: scorer(window, residual, 0.0))

    is_judged = num_judges >= LEAST_JUDGES
    residual, history = train_residual(
        list(starts.values()),
        [rows[window] for window in starts],
        first,
        vectors,
        judge=judge if is_judged else None,
        seed=seed,
    )
    tries = []
    if is_judged:
        tries = [
            {"model_weight": weight, "ndcg": judges(lambda window, weight=weight: scorer(window, residual, weight))}
            for weight in MODEL_WEIGHTS
        ]
        weight = max(tries, key=lambda row: row["ndcg"])["model_weight"]
    else:
        weight = MODEL_WEIGHTS[len(MODEL_WEIGHTS) // 2]
    titles = tuple(past.titles)
    found = ListModel(factors, residual, titles, tuple(past.territories), days, weight)
    return found, {
        "judges": num_judges,
        "chosen": is_judged,
        "factors": [round(float(value), 4) for value in factors],
        "rows": {str(window): len(rows[window]) for window in starts},
        "positives": int(sum(rows[window].wanted.nnz for window in starts)),
        "residual": history,
        "tries": tries,
        "model_weight": weight,
    }


class Judges:
    """Validation users' lists in the last training windows, and how good an order of them is.

    Call arguments:
        scorer: Function of a window that returns its `Scorer`.

    Returns:
        Mean NDCG over all lists, NaN without one.
    """

    def __init__(self, model: TwoTower, data: Dataset, schema: Schema, past: Past) -> None:
        self.past, self.cases = past, validation_cases(data, past, columns=None)
        self.number = sum(len(case.users) for _, case in self.cases)
        stores = inputs.open_stores(data)
        self.titles = title_vectors(model, data, schema).vectors if self.cases else None
        self.scores = []
        for _, case in self.cases:
            features = inputs.model_inputs(case.rows, schema, stores)
            asked = {name: features[name] for name in model.user_tower.input}
            self.scores.append(np.asarray(model.user_tower.predict(asked, verbose=0)[schema.tasks[0].name]))

    def __call__(self, scorer: Callable[[int], Scorer]) -> float:
        """Judges; see the class."""
        found = []
        for (window, case), queries in zip(self.cases, self.scores, strict=True):
            of_window = scorer(window)
            own = of_window.queries_of(self.past, self.past.numbers(case.users), window)
            titles = of_window.join_titles(self.titles)
            joined = of_window.join_queries(queries, own)
            place = {user: number for number, user in enumerate(case.users.tolist())}

            def rank(rows, allowed, joined=joined, titles=titles, place=place):
                numbers = [place[user] for user in rows["user"].to_pylist()]
                return best_titles(joined[numbers] @ titles.T, allowed, K)

            found.append(ndcg_of_users(case.lists(rank)))
        values = np.concatenate(found) if found else np.zeros(0)
        return float(values.mean()) if len(values) else float("nan")

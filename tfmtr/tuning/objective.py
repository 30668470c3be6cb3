"""What a search looks for: one figure of a model on validation users in training windows."""

import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfmtr.checks import check_choice
from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.baseline_lists import validation_cases
from tfmtr.evaluation.evidence import LEAST_USERS
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.schema import Schema

if TYPE_CHECKING:
    from tfmtr.listwise.model import ListModel
    from tfmtr.models import JointModel

DIRECTIONS = {"ndcg": "maximize", "pr_auc": "maximize", "loss": "minimize"}
NAMES = {
    "ndcg": "NDCG@10 of validation users' lists in training windows",
    "pr_auc": "PR-AUC of the validation rows",
    "loss": "loss of the validation rows, without what L2 adds",
}
LEAST_LISTS = 200  # with fewer the figure is mostly chance
K = 10
BATCH = 8192  # rows of a mean of losses, whatever a try's batches are


class Judged(NamedTuple):
    """What was found of a model.

    Attributes:
        value: The figure.
        slices: `{territory: {"value": float or None, "count": lists or rows}}`; `None` under 20 lists, or as
            `tfmtr.evaluation.metrics.evaluate_task` has it for rows. Empty for a loss.
    """

    value: float
    slices: dict[str, dict[str, Any]]


class Objective:
    """Judges models.

    * `ndcg`: lists of ten titles of the whole catalogue in the user's territory, without what the user had, as they
      are served and as `tfmtr evaluate` makes them for test users: here for validation users in the last training
      windows. The mean is over all lists.
    * `pr_auc`: average precision over all validation rows of the first binary task.
    * `loss`: sum of the head's losses over the validation rows.

    Args:
        name: One of `DIRECTIONS`.
        data: The `Dataset`; of `ndcg` it has no test window, or lists would be made of it.

    Call arguments:
        model: The model, a `TwoTower` for `ndcg`.
        schema: The model's `Schema`.
        list_model: The `ListModel` that orders lists beside the towers, if there is one.

    Returns:
        A `Judged`.

    Raises:
        ValueError: If the data have no list, or no binary task, to judge by; called, if the figure is not finite.
    """

    def __init__(self, name: str, data: Dataset) -> None:
        check_choice("objective", name, tuple(DIRECTIONS))
        self.name, self.data, self.cases, self.num_lists = name, data, [], None
        if name == "pr_auc" and not any(task.kind == "binary" for task in data.schema.tasks):
            raise ValueError("`objective=pr_auc` must have a binary task. Received: data without one")
        if name == "ndcg":
            from tfmtr.evaluation.past import Past

            self.past = Past(data)
            self.cases = validation_cases(data, self.past, columns=None)
            self.num_lists = sum(len(case.users) for _, case in self.cases)
            if not self.num_lists:
                raise ValueError(
                    "`objective=ndcg` must have a validation user with a new title in the last training windows; "
                    "prepare more users for validation, or use pr_auc or loss. Received: none"
                )

    @property
    def warnings(self) -> list[str]:
        """What is said of the figure before it is used."""
        if self.num_lists is None or self.num_lists >= LEAST_LISTS:
            return []
        return [
            f"{self.num_lists} lists of validation users judge the tries, and {LEAST_LISTS} are needed to tell tries "
            "apart: take the best one for luck as much as for better; prepare with more validation users"
        ]

    def __call__(self, model: "JointModel", schema: Schema, list_model: "ListModel | None" = None) -> Judged:
        """Judges; see the class."""
        figures = getattr(self, f"_{self.name}")(model, schema, list_model)
        if not math.isfinite(figures.value):
            raise ValueError(f"The objective must be finite. Received: {self.name}={figures.value}")
        return figures

    def _ndcg(self, model: Any, schema: Schema, list_model: "ListModel | None") -> Judged:
        from tfmtr.evaluation.index_lists import ranking_of
        from tfmtr.evaluation.ranking import ndcg_of_users
        from tfmtr.retrieval.index import build_index, title_vectors

        past, data, values, territories = self.past, self.data, [], []
        vectors = title_vectors(model, data, schema)
        for window, case in self.cases:
            scorer = None if list_model is None else list_model.as_of(data, past, window)
            index = build_index(model, data, schema, window=window, vectors=vectors, scorer=scorer)
            popularity = past.popularity(window)
            rank = ranking_of(
                model, index, schema, data, k=K, popularity=popularity, scorer=scorer, past=past, window=window
            )
            values.append(ndcg_of_users(case.lists(rank)))  # of all users of the case: each has a positive
            territories.append(case.territories)
        value, territory = np.concatenate(values), np.concatenate(territories)
        slices = {}
        for name in np.unique(territory).tolist():
            local_values = value[territory == name]
            slices[name] = {
                "value": float(local_values.mean()) if len(local_values) >= LEAST_USERS else None,
                "count": len(local_values),
            }
        return Judged(float(value.mean()), slices)

    def _pr_auc(self, model: Any, schema: Schema, list_model: "ListModel | None") -> Judged:
        from tfmtr.evaluation.areas import areas
        from tfmtr.evaluation.evaluate import predict
        from tfmtr.evaluation.metrics import evaluate_task

        columns, users, _ = predict(model, self.data.judged_rows("validation"), schema, self.data)
        task = next(task for task in schema.tasks if task.kind == "binary")
        labels, scores = columns[task.column or task.name], columns[f"{task.name} score"]
        is_labelled = ~np.isnan(labels)
        if not np.isfinite(scores).all():
            return Judged(math.nan, {})
        (value,), _ = areas(labels[is_labelled] == 1, scores[is_labelled], np.zeros(is_labelled.sum(), int), 1)
        slices = {}
        if schema.slices:
            cells = evaluate_task(labels, scores, columns[schema.slices[0]], users, kind="binary")
            slices = {
                name: {"value": cell["pr_auc"], "count": cell["rows"]}
                for name, cell in cells.items()
                if name != OVERALL
            }
        return Judged(float(value), slices)

    def _loss(self, model: Any, schema: Schema, list_model: "ListModel | None") -> Judged:
        from tfmtr.diagnosis import losses_of

        files = self.data.judged_rows("validation")
        losses = losses_of(model, self.data, files, schema, batch_size=BATCH, num_batches=sys.maxsize)
        return Judged(float(sum(losses.values())), {})

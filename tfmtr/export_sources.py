"""What an export is made of: a two-tower model with its titles, and the ranking model that orders what they find."""

# There is one archive of Keras for each backend:
# pyright: reportAttributeAccessIssue=false
import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfmtr.calibration import calibrated_outputs
from tfmtr.datasets.counter_tables import counter_tables
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.drift import changed_vectors
from tfmtr.diagnosis import not_finite
from tfmtr.documents import read_json
from tfmtr.encoders.graph_names import graph
from tfmtr.encoders.raw import look_up, raw_inputs
from tfmtr.evaluation.past import Past, has_events
from tfmtr.evaluation.two_stage_lists import MIDDLE, FirstStage, choose_first_weight, scores_at, second_scores
from tfmtr.listwise.model import Scorer
from tfmtr.models import JointModel, TwoTower
from tfmtr.retrieval.first_stage import check_evidence, shares_of
from tfmtr.retrieval.second_stage import SecondStage, build_second_stage
from tfmtr.run import Run, versions
from tfmtr.schema import ROLES, Schema, check_inputs


def check_finite(argument: str, model: JointModel) -> None:
    """Raises a `ValueError` if a model has a variable that is not finite: all that it serves would be NaN."""
    if bad := not_finite(model.variables):
        raise ValueError(
            f"`{argument}` must be a model whose variables are finite; train it with a lower learning rate, or look at "
            f"the data. Received: NaN or infinity in {len(bad)} of {len(model.variables)} variables, the first one "
            f"{bad[0]}"
        )


@dataclasses.dataclass(frozen=True)
class Source:
    """A model to export, and what is known of it: of a run, or trained by hand.

    Args:
        model: The model.
        schema: Its `Schema`.
        titles: The `Dataset` whose titles are served.
        facts: What the version says of the model: `run_id`, `fingerprint`, `recipe`, `versions`.
        run: The `Run`, whose calibration is served; `None` of a model that was trained by hand.

    Raises:
        ValueError: If `titles` lacks a feature that the model needs.
    """

    model: TwoTower
    schema: Schema
    titles: Dataset
    facts: Mapping[str, Any]
    run: Run | None = None

    def __post_init__(self) -> None:
        check_inputs(self.schema.by_role("title"), self.titles.schema.by_role("title"), "titles")

    @classmethod
    def of(cls, run: str | os.PathLike | JointModel, titles: str | os.PathLike | None) -> "Source":
        """The source that `export` is given.

        Raises:
            ValueError: As `export`.
        """
        if isinstance(run, JointModel):
            return cls.of_model(run, titles)
        if not isinstance(run, (str, os.PathLike)):
            raise ValueError(
                "`run` must be a run directory, or a two-tower model of `tfmtr.models` that was trained by hand. "
                f"Received: a {type(run).__name__}"
            )
        run = Run(run)
        model, facts = run.load(form="two_tower"), facts_of(run)
        source = cls(model, run.schema, run.data if titles is None else Dataset(titles), facts, run)  # pyright: ignore[reportArgumentType]: it is of the form
        check_meaning(run, facts["fingerprint"], source.titles)
        return source

    @classmethod
    def of_model(cls, model: JointModel, titles: str | os.PathLike | None) -> "Source":
        """Of a model that was trained by hand: it is known by its weights.

        Raises:
            ValueError: If the model has no title tower, or `titles` is not given.
        """
        if not isinstance(model, TwoTower):
            raise ValueError(
                "`run` must be a two-tower model, or a run, for an index of titles; `model.export` exports what any "
                f"joint model serves. Received: a model of the class {type(model).__name__}"
            )
        if titles is None:
            raise ValueError(
                "`titles` must name a prepared directory where the model is of no run. Received: titles=None"
            )
        titles, weights = Dataset(titles), hashlib.sha256()
        for variable in model.variables:
            weights.update(np.asarray(variable).tobytes())
        facts = {
            "run_id": f"by-hand-{weights.hexdigest()[:16]}",
            "fingerprint": titles.report["fingerprint"],
            "recipe": None,
            "versions": versions(),
        }
        return cls(model, model.schema, titles, facts)

    def scorer(self) -> Scorer | None:
        """What orders lists beside the towers now, as of the newest events; `None` where towers alone do.

        Raises:
            ValueError: If the run has a list model and the titles' data do not tell what users had.
        """
        order = None if self.run is None else self.run.list_model
        if order is None:
            return None
        return order.as_of(self.titles, self.past, self.titles.next_window)

    @functools.cached_property
    def past(self) -> Past:
        """The `Past` of the titles' data, read once."""
        return Past(self.titles)

    def outputs(self, raw: Mapping[str, Any], encoded: Mapping[str, Any]) -> dict[str, Any]:
        """Probabilities `{name: KerasTensor of shape (batch, 1)}` as they are served, of raw and of encoded inputs."""
        outputs = self.model.predictor(encoded)
        return outputs if self.run is None else calibrated_outputs(self.run, outputs, raw, encoded, self.schema)


@dataclasses.dataclass(frozen=True)
class Ranker:
    """A ranking model that orders what an index finds.

    Args:
        model: The model.
        run: Its `Run`.
        facts: What the version says of it: `run_id`, `fingerprint`, `recipe`, `versions`.
    """

    model: JointModel
    run: Run
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, ranking: str | os.PathLike, source: Source) -> "Ranker":
        """The second stage of a source.

        Raises:
            ValueError: As `export`.
        """
        run = Run(ranking)
        run.check_form("ranking")
        schema = run.schema
        check_inputs(schema.by_role("title"), source.titles.schema.by_role("title"), "titles")
        for role, what in (("user", "users"), ("title", "titles")):
            if not schema.by_role(role):
                raise ValueError(
                    f"`ranking` must read a feature of {what} to tell them apart; prepare it from tables that have "
                    f"one. Received: {run.path}, which reads {[feature.name for feature in schema.features]}"
                )
        by = (read_json(run.path / "calibration.json") or {}).get("by")
        if by in {feature.name for feature in schema.by_role("title")}:
            raise ValueError(
                "`ranking` must be calibrated by what a request has, as its titles are those that the index finds; run "
                f"`tfmtr calibrate {run.path} --by territory`, or another column of users. Received: calibrated by "
                f"{by!r}, of titles"
            )
        counter_tables("titles", source.titles, schema, source.titles.next_window)
        check_evidence("ranking", schema, None if source.run is None else source.run.list_model)
        facts = facts_of(run)
        check_meaning(run, facts["fingerprint"], source.titles)
        first = raw_inputs(source.schema, "user", "context", scenario=True)
        for name, tensor in raw_inputs(schema, "user", "context", scenario=True).items():
            other = first.get(name, tensor)
            if (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
                raise ValueError(
                    f"`ranking` must read the users' columns as the first model does; prepare both from one log. "
                    f"Received: {name!r} of shape {other.shape} and {other.dtype} in the first, of {tensor.shape} and "
                    f"{tensor.dtype} in the second"
                )
        model = run.load()
        check_finite("ranking", model)
        return cls(model, run, facts)

    def choose_first_weight(self, source: Source, candidates: int) -> dict[str, Any]:
        """The weight of the first stage's score, see `tfmtr.evaluation.two_stage_lists.choose_first_weight`.

        An evaluation of both runs has it already. Where both are not of one training set that is still there, nothing
        is chosen.
        """
        nothing = {"weight": MIDDLE, "lists": 0, "tries": []}
        before = {} if self.run.evaluation is None else self.run.evaluation.document.get("first_stage") or {}
        if (before.get("run_id"), before.get("candidates")) == (source.facts["run_id"], candidates):
            return before["weight"]
        if source.run is None:
            return nothing
        windows = [window for window in self.run.windows if window in source.run.windows]
        try:
            data = self.run.data
            first = FirstStage(source.run, data, candidates)
        except ValueError:
            return nothing
        if not has_events(data) or not windows:
            return nothing
        model = self.run.load(window=windows[0])
        scores = scores_at(self.run, model, second_scores(model, self.run.schema, data))
        return choose_first_weight(first, scores, Past(data), windows)

    def rows(self) -> tuple[dict[str, Any], keras.Model]:
        """Raw inputs of users and titles, and the model from them to what is served, row by row."""
        schema, roles = self.run.schema, ROLES
        raw = raw_inputs(schema, *roles, scenario=True)
        encoded = look_up(raw, schema, *roles, scenario=True)
        outputs = self.model.predictor(encoded)
        return raw, graph(raw, calibrated_outputs(self.run, outputs, raw, encoded, schema))

    def second_stage(self, source: Source, candidates: int, first_weight: float) -> SecondStage:
        """The model in the graph of the index, calibrated if its run is."""
        options: dict[str, Any] = {"candidates": candidates, "first_weight": first_weight}
        titles = source.titles
        options["counters"] = counter_tables("titles", titles, self.run.schema, titles.next_window)
        if self.run.schema.evidence:
            order = source.run.list_model  # pyright: ignore[reportOptionalMemberAccess]
            options["shares"] = shares_of(order, source.past, titles.next_window)  # pyright: ignore[reportArgumentType]
        calibrate = functools.partial(calibrated_outputs, self.run)
        return build_second_stage(self.model, self.run.schema, titles, calibrate=calibrate, **options)


def facts_of(run: Run) -> dict[str, Any]:
    """What a version says of a run."""
    document = run.document
    facts = {key: document.get(key, {}) for key in ("run_id", "fingerprint", "versions")}
    return facts | {"recipe": run.recipe.document()}  # of an older run: with the defaults that it meant


def check_meaning(run: Run, fingerprint: str, titles: Dataset) -> None:
    """Raises a `ValueError` if titles that did not change have other vectors than in the run's data, where these are.

    Vectors of another store or fit have the same width, and mean something else.
    """
    if titles.report["fingerprint"] == fingerprint:
        return
    try:
        before = run.data
    except ValueError:
        return
    compared, changed = changed_vectors(titles, before)
    if 2 * changed > compared:
        raise ValueError(
            "`titles` must have the vectors of the model's data for titles that did not change; take the same store, "
            f"or prepare with --like {before.path}. Received: {titles.path}, where {changed} of {compared} have others"
        )

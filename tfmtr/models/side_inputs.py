"""Calls a sharing function with the scenario and the side inputs that it asks for."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tfmtr import components
from tfmtr.encoders.embed import embed, embed_fields
from tfmtr.kinds import KINDS
from tfmtr.layers.embedding_table import EmbeddingTable
from tfmtr.layers.unknown_scenario import UnknownScenario
from tfmtr.models.joint import Tensors
from tfmtr.schema import Feature, Schema
from tfmtr.sharing._shared import Shared, as_shared, per_pair


def find_share(share: Any, is_per_pair: bool) -> Callable[..., Any]:
    """The sharing function."""
    function = components.find("sharing", share)
    return per_pair(function) if is_per_pair else function


def row_scenario(inputs: Tensors, schema: Schema, unknown_rate: float) -> tuple[keras.KerasTensor, int]:
    """The row's scenario and the number of scenarios, with or without a default branch."""
    groups = schema.scenario.num_groups
    if unknown_rate:
        return UnknownScenario(unknown_rate, name="unknown_scenario")(inputs["scenario"]), groups + 1
    return ops.maximum(inputs["scenario"] - 1, 0), max(groups, 1)  # pyright: ignore[reportReturnType]


@dataclasses.dataclass(frozen=True)
class Side:
    """What a sharing function acts on, before it is encoded.

    Args:
        inputs: `{name: KerasTensor}`, with `scenario`.
        schema: The `Schema`.
        features: Those of its features that are seen.
    """

    inputs: Tensors
    schema: Schema
    features: Sequence[Feature]


def call_share(
    share: Callable[..., Any],
    x: keras.KerasTensor,
    side: Side,
    towers: tuple[str, ...],
    *,
    embedding_dim: int,
    unknown_rate: float,
    prior: Sequence[str] = (),
) -> Shared:
    """Calls a sharing function with the side inputs that its signature asks for; returns a `Shared`.

    Side inputs: `fields` (batch, fields, width), the embeddings one by one; `prior` (batch, width), those of the
    prior features in tables of their own; `scenario_features` (batch, width), an embedding of the scenario;
    `task_representations` {tower: (batch, width)}, `x` with embedding tables of the task's own; `parents`, a number for
    each scenario, see `scenario_parents`.
    """
    inputs, features = side.inputs, side.features
    scenario, num_scenarios = row_scenario(inputs, side.schema, unknown_rate)
    asked_for = inspect.signature(share).parameters
    categorical = [f for f in features if KINDS[f.kind].is_categorical]
    sides = {}
    if "fields" in asked_for or "task_representations" in asked_for or "prior" in asked_for:
        needs = getattr(share, "func", share)
        check_has_embeddings(getattr(needs, "__name__", str(needs)), categorical)
    if "fields" in asked_for:
        parts = embed_fields(inputs, categorical, embedding_dim=embedding_dim, name="fields")
        sides["fields"] = ops.stack(list(parts.values()), axis=1)
    if "prior" in asked_for:
        chosen = [f for f in categorical if f.name in prior] or [f for f in categorical if is_one_of_a_vocabulary(f)]
        sides["prior"] = embed(inputs, chosen or categorical, embedding_dim=embedding_dim, name="prior")
    if "scenario_features" in asked_for:
        table = EmbeddingTable(num_scenarios, embedding_dim, name="scenario_embedding")
        sides["scenario_features"] = table(scenario)
    if "parents" in asked_for:
        sides["parents"] = scenario_parents(side.schema, has_default=bool(unknown_rate))
    if "task_representations" in asked_for:
        sides["task_representations"] = {
            tower: embed(inputs, features, embedding_dim=embedding_dim, name=tower) for tower in towers
        }
    shared = as_shared(share(x, scenario, towers=towers, num_scenarios=num_scenarios, **sides))
    return shared._replace(bases={tower: shared.bases.get(tower, x) for tower in towers})


def scenario_parents(schema: Schema, *, has_default: bool) -> tuple[int, ...]:
    """Of each scenario of a model the first one with the same parent; nothing where scenarios have no parents.

    So numbers stay when scenarios are added. The default branch is its own parent.

    >>> from tfmtr.schema import Scenario, Task
    >>> parents = {"AT": "EU", "CL": "SA", "DE": "EU"}
    >>> scenario = Scenario(["territory"], {name: name for name in parents}, parents=parents)
    >>> scenario_parents(Schema([], [Task("click")], scenario), has_default=True)
    (0, 1, 2, 1)
    """
    if not schema.scenario.parents:
        return ()
    names = [schema.scenario.parents[name] for name in schema.scenario.names]
    first = [names.index(name) for name in names]
    return (0, *(place + 1 for place in first)) if has_default else tuple(first)


def is_one_of_a_vocabulary(feature: Feature) -> bool:
    """Whether a feature has one value of a vocabulary in each row, as an id."""
    kind = KINDS[feature.kind]
    return kind.has_vocabulary and not kind.is_wide


def check_has_embeddings(share: str, categorical: Sequence[Feature]) -> None:
    """Raises a `ValueError` that names the sharing function unless there is a categorical feature."""
    if not categorical:
        raise ValueError(
            f"`share={share}` works on embedding tables, so the schema must have a feature of kind id, string, set or "
            "sequence on the side it acts on. Received: only numbers and vectors"
        )

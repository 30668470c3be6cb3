"""A model that goes on where another stopped, with more territories, groups and values than that one knew.

Old places never change: new values come after the old ones, new groups after the old ones. So a variable that grew
holds the old one in front, and what is new in it starts as what it was served as until now: a new value as the unknown
value, a new group as the default branch.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfmtr.kinds import KINDS
from tfmtr.schema import Scenario, Schema

if TYPE_CHECKING:
    import keras


def grow_schema(old: Schema, new: Schema) -> Schema:
    """The schema of a model that goes on: what `new` knows more, at places after those of `old`.

    Vocabularies and groups grow. Means and deviations stay, or the inputs would mean something else; so do widths and
    the tasks. A territory that `new` puts into another group moves.

    Args:
        old: `Schema` of the model so far.
        new: `Schema` of the new data.

    Returns:
        A `Schema`.

    Raises:
        ValueError: If features or tasks differ in more than their vocabularies, or the scenario has other columns.

    Example:
    >>> from tfmtr.schema import Feature, Schema, Task
    >>> def schema(values, groups):
    ...     return Schema([Feature("device", "user", "id", values)], [Task("click")], Scenario(["territory"], groups))
    >>> grown = grow_schema(schema(["tv"], {("PL",): "west"}), schema(["car", "tv"], {("AT",): "east"}))
    >>> grown.features[0].vocabulary, grown.scenario.names
    (('tv', 'car'), ('west', 'east'))
    """
    for what in ("features", "tasks"):
        kinds = [{item.name: (item.kind, getattr(item, "role", None)) for item in getattr(s, what)} for s in (old, new)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"A model can go on with the same {what} only; train a new one with `tfmtr train`. Received: "
                f"{sorted(set(kinds[1].items()) ^ set(kinds[0].items()))} are in one of the two"
            )
    vectors = [{f.name: f.width for f in schema.features if KINDS[f.kind].has_fixed_width} for schema in (old, new)]
    if vectors[0] != vectors[1]:
        raise ValueError(f"Vectors must be as wide as the model's. Received: {vectors[1]}, expected {vectors[0]}")
    if old.scenario.columns != new.scenario.columns:
        raise ValueError(
            "A model can go on with the same columns of the scenario only. Received: "
            f"{new.scenario.columns}, expected {old.scenario.columns}"
        )
    new_vocabularies = {feature.name: feature.vocabulary for feature in new.features}
    features = [
        dataclasses.replace(f, vocabulary=tuple(dict.fromkeys((*f.vocabulary, *new_vocabularies[f.name]))))
        for f in old.features
    ]
    groups = {**old.scenario.groups, **new.scenario.groups}
    names = Scenario(old.scenario.columns, groups, old.scenario.names).names
    order = () if list(names) == sorted(names) else names  # without growth the schema is the old one
    parents = {**old.scenario.parents, **new.scenario.parents}
    return old.replace(features=features, scenario=Scenario(old.scenario.columns, groups, order, parents))


def warm_start(model: "keras.Model", schema: Schema, old: Schema, file: Path) -> list[str]:
    """Gives a compiled model the variables of an earlier one, and of its optimizer, and lets the rest grow.

    Args:
        model: A compiled model whose optimizer is built, of a grown schema or the same.
        schema: Its `Schema`.
        old: `Schema` of the earlier model.
        file: What `tfmtr.training.save` wrote of the earlier model.

    Returns:
        Names of the variables that grew or are new, sorted.

    Raises:
        ValueError: If the model lacks a variable of the file, or has a smaller one.
    """
    unknown = {f"{f.name}_embedding": KINDS[f.kind].unknown for f in schema.features if KINDS[f.kind].is_categorical}
    new_groups = schema.scenario.num_groups - old.scenario.num_groups
    grown = set()
    with np.load(file) as archive:
        for kind, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
            paths = _names(kind, archive[f"{kind}_paths"].tolist())
            stored = {path: archive[f"{kind}/{i}"] for i, path in enumerate(paths)}
            named_variables = dict(zip(_names(kind, [variable.path for variable in variables]), variables, strict=True))
            lacking = sorted(set(stored) - set(named_variables))
            if lacking:
                raise ValueError(
                    f"The model must have all variables of {file}: it was written by another recipe. Received: a model "
                    f"without {lacking[:3]}"
                )
            for path, variable in named_variables.items():
                value = stored.get(path, stored.get(_default_branch(path)))
                if value is None:
                    grown.add(path)
                    continue
                if path not in stored or value.shape != tuple(variable.shape):
                    grown.add(path)
                # The longest: `an_age_embedding` is no table of `age`, unless a tower is called `an`.
                tables = [table for table in unknown if re.search(rf"(?<![^/_]){re.escape(table)}(?![^/_])", path)]
                entry = unknown[max(tables, key=len)] if tables else None
                variable.assign(_grow(value, tuple(variable.shape), path, entry=entry, new_groups=new_groups))
    return sorted(grown)


def _names(kind: str, paths: Iterable[str]) -> list[str]:
    """Paths of variables without the numbers that Keras gives optimizers and generators, which say nothing."""
    names, count = [], collections.Counter()
    for path in paths:
        name = path.partition("/")[2] if kind == "optimizer" else re.sub(r"seed_generator_\d+", "seed_generator", path)
        count[name] += 1
        names.append(name if count[name] == 1 else f"{name}#{count[name]}")
    return names


def _default_branch(path: str) -> str:
    """Path of what the default branch has in the place of another one: its number, the last one, is 0."""
    return re.sub(r"_\d+(?=(?:_[a-z]+)*$)", "_0", path)


def _grow(value: np.ndarray, shape: tuple[int, ...], path: str, *, entry: int | None, new_groups: int) -> np.ndarray:
    """The array with more entries along the axes on which `shape` is longer.

    They are like `entry` of a table; otherwise each group has a block of entries, and theirs is the first block.
    """
    if len(value.shape) != len(shape) or any(new < old for old, new in zip(value.shape, shape, strict=True)):
        raise ValueError(f"A variable cannot shrink. Received: {path} of shape {shape}, which was {value.shape}")
    for axis, (old, new) in enumerate(zip(value.shape, shape, strict=True)):
        if new > old:
            places = (
                np.full(new - old, entry) if entry is not None else np.arange(new - old) % ((new - old) // new_groups)
            )
            value = np.concatenate([value, np.take(value, places, axis=axis)], axis=axis)
    return value

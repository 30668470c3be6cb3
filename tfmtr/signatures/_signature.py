"""What a signature is, what it is made of, and how those of an export are found."""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfmtr import components
from tfmtr.checks import nearest
from tfmtr.kinds import KINDS
from tfmtr.schema import Schema

FOLDER = "signatures"
PARTS = ("user", "title", "scenario", "score", "recommender", "ranker")  # that a signature may ask for

Default = tuple[tf.TensorSpec, list]  # of an input, and its value where a client leaves it out


@dataclasses.dataclass(frozen=True)
class Signature:
    """One thing that an export can be asked.

    Args:
        function: From `{input: tensor}` to `{output: tensor}`.
        inputs: `{input: TensorSpec}` of all inputs.
        defaults: `{input: (spec, value)}` of those that a client may leave out.
        context: Which of these tell a request's context: `<name>_batch` has them, and no default of them.
    """

    function: Callable[[dict[str, Any]], dict[str, Any]]
    inputs: Mapping[str, tf.TensorSpec]
    defaults: Mapping[str, Default] = dataclasses.field(default_factory=dict)
    context: Collection[str] = ()


@dataclasses.dataclass(frozen=True)
class Served:
    """What every signature is given.

    Args:
        schema: The model's `Schema`.
        run_id: What tells the model from all others.
        users: `{column: KerasTensor}` of the raw values of a user, the context and the scenario.
        titles: The same of a title.
        rows: The same of all that `score` takes; users and titles by default.
    """

    schema: Schema
    run_id: str
    users: Mapping[str, Any]
    titles: Mapping[str, Any]
    rows: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def context_defaults(served: Served, inputs: Mapping[str, Any]) -> dict[str, Default]:
    """Inputs of the context among those of a signature, which a client may leave out: no value, or a number's mean."""
    context = {feature.name: feature for feature in served.schema.by_role("context") if feature.name in inputs}
    return {
        name: (tf.TensorSpec([None], KINDS[f.kind].raw_dtype), [""] if KINDS[f.kind].is_text else [f.mean])
        for name, f in context.items()
        if not KINDS[f.kind].is_wide
    }


def signatures_of(served: Served, parts: Mapping[str, Any], more: Sequence[Any] = ()) -> dict[str, Signature]:
    """`{name: Signature}` of an export: all that are found by name and whose parts there are, and those asked for.

    Args:
        served: What every signature is given.
        parts: `{name: part}` of `PARTS` that the export has.
        more: Signatures beside those that are found by name: import paths or functions.

    Raises:
        ValueError: If a signature cannot be found, asks for a part that no export has, has a name that another one has,
            or is one of `more` and needs a part that this export lacks.
    """
    functions, asked_for = functions_of(more)
    signatures = {}
    for name, function in functions.items():
        needs = needs_of(name, function)
        missing = [part for part in needs if part not in parts]
        if missing and name in asked_for:
            raise ValueError(
                f"`signatures` must need parts that this export has: {sorted(parts)}. Received: {name!r}, which needs "
                f"{missing}"
            )
        if not missing:
            signatures[name] = function(served, **{part: parts[part] for part in needs})
    return signatures


def functions_of(more: Sequence[Any] = ()) -> tuple[dict[str, Callable[..., Signature]], set[str]]:
    """`({name: function} of all signatures, names of those asked for)`; nothing is built.

    Args:
        more: As for `signatures_of`.

    Raises:
        ValueError: If a signature cannot be found, asks for a part that no export has, or has a name that another one
            has.
    """
    if isinstance(more, str | bytes | os.PathLike) or not isinstance(more, Iterable):
        raise ValueError(f"`signatures` must be a list of import paths. Received: signatures={more!r}")
    functions, asked_for = {name: components.find(FOLDER, name) for name in components.names(FOLDER)}, set()
    for one in more:
        function = components.find(FOLDER, one)
        name = function.func.__name__ if isinstance(function, functools.partial) else function.__name__
        if functions.setdefault(name, function) is not function:
            raise ValueError(f"`signatures` must have names of their own. Received: {name!r} twice")
        asked_for.add(name)
    for name, function in functions.items():
        needs_of(name, function)
    return functions, asked_for


def needs_of(name: str, function: Callable[..., Signature]) -> list[str]:
    """Parts of `PARTS` that a signature asks for by its keywords.

    Raises:
        ValueError: If it asks for anything else.
    """
    _, *parameters = inspect.signature(function).parameters.values()
    needs = [p.name for p in parameters if p.default is p.empty]
    for part in needs:
        if part not in PARTS:
            raise ValueError(
                f"A signature must ask for parts of {list(PARTS)} by its keywords, and have defaults for others."
                f"{nearest(part, PARTS)} Received: {part!r} of {name!r}"
            )
    return needs


def specs(raw: Mapping[Any, Any]) -> dict[str, tf.TensorSpec]:
    """`{name: TensorSpec}` of tensors or of other specs, each with its name."""
    return {name: tf.TensorSpec(value.shape, value.dtype, name=name) for name, value in raw.items()}


def defaults_as_specs(defaults: Mapping[str, Default]) -> dict[str, tf.TensorSpec]:
    """`{name: TensorSpec}` of inputs that may be left out."""
    return specs({name: spec for name, (spec, _) in defaults.items()})

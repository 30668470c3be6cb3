"""How a model was built, as a saved file has it."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tfmtr import components
from tfmtr.private_names import is_loading_safely
from tfmtr.schema import Schema

if TYPE_CHECKING:
    from tfmtr.models.joint import JointModel

Builder = TypeVar("Builder", bound=Callable[..., "JointModel"])
PART_OF = {
    "share": "sharing",
    "head": "heads",
    "balance": "balancing",
    "debias": "debiasing",
    "encode": "encoders.interactions",
}


def as_saved(name: str, value: Any) -> Any:
    """An option of a builder as JSON has it.

    Raises:
        ValueError: If it is a function without an import path.
    """
    if name not in PART_OF or value is None or (name == "encode" and value == "fwfm"):
        return value
    part, options = components.parse(PART_OF[name], value)
    if callable(part):
        raise ValueError(
            f"`{name}` must be a name, or a function that others can import, for the model to be saved; write it into "
            f"a module, or save `model.predictor`. Received: {name}={part!r}"
        )
    return {components.NAME: part, **options} if options else part


def from_saved(name: str, value: Any) -> Any:
    """The option that `as_saved` had.

    Raises:
        ValueError: If it is an import path, and Keras loads in its safe mode.
    """
    part = value.get(components.NAME) if isinstance(value, Mapping) else value
    if name in PART_OF and isinstance(part, str) and ":" in part and is_loading_safely():
        raise ValueError(
            f"`{name}` of this file is a function of the module {part.partition(':')[0]}, which loading it imports and "
            f"runs: if you trust both, load with `safe_mode=False`. Received: {name}={part!r}"
        )
    return tuple(value) if isinstance(value, list) else value


def rebuildable(builder: Builder) -> Builder:
    """A builder whose models know how they were built."""

    @functools.wraps(builder)
    def build(schema: Schema, **options: Any) -> "JointModel":
        if not isinstance(schema, Schema):
            raise ValueError(f"`schema` must be a Schema. Received: a {type(schema).__name__}")
        for name in ("share", "head", "debias", "encode"):
            if options.get(name) is not None and (name, options[name]) != ("encode", "fwfm"):
                components.check_part(PART_OF[name], options[name])
        model = builder(schema, **options)
        model.built_with = (builder.__name__, schema, options)
        return model

    return cast(Builder, build)

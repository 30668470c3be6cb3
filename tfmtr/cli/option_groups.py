"""Options as the fields of a dataclass: one argument of a command's function, an option a field."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """Takes those arguments of a command apart that are dataclasses, so that Typer sees an option for each field.

    A field is annotated as an option of Typer is, `Annotated[type, typer.Option(help=...)]`. Options come in the order
    of the arguments, and of the fields where such an argument stands.

    Example:
    >>> @dataclasses.dataclass(frozen=True)
    ... class Sizes:
    ...     users: int = 3
    ...     titles: int = 2
    >>> def count(*, sizes: Sizes, factor: int = 1):
    ...     return sizes.users * sizes.titles * factor
    >>> inspect.signature(grouped(count))
    <Signature (*, users: int = 3, titles: int = 2, factor: int = 1)>
    >>> grouped(count)(titles=5)
    15
    """
    parameters, groups = [], {}
    for parameter in inspect.signature(command).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            groups[parameter.name] = kind
            parameters += _fields(kind)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def flat(**arguments: Any) -> Any:
        for name, group in groups.items():
            given = {field.name for field in dataclasses.fields(group)} & arguments.keys()
            arguments[name] = group(**{field: arguments.pop(field) for field in given})
        return command(**arguments)

    return with_signature(flat, parameters)


def with_signature(command: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
    """The function, which says to Typer that it has these arguments."""
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """An argument of a name; it must be given where it has no default."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _fields(group: type) -> list[inspect.Parameter]:
    return [
        keyword(field.name, field.type, *([] if field.default is dataclasses.MISSING else [field.default]))
        for field in dataclasses.fields(group)
    ]

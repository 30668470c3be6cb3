"""Checks of an argument's value, which return it as a plain Python number; each raises a `ValueError`."""

import math
import numbers
from typing import Any


def check_integer(argument: str, value: Any, *, least: int, most: int | None = None) -> int:
    """The value as an `int` between `least` and `most`.

    >>> check_integer("epochs", 3, least=1)
    3
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):  # pyright: ignore[reportOperatorIssue]
        bounds = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ValueError(f"`{argument}` must be an integer, {bounds}. Received: {argument}={value!r}")
    return int(value)


def check_number(
    argument: str, value: Any, *, least: float | None = None, above: float | None = None, below: float | None = None
) -> float:
    """The value as a finite `float` that is not less than `least`, greater than `above` and less than `below`."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and is_finite(value)
    bounds = {"not less than": least, "greater than": above, "less than": below}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    is_inside = is_number and (least is None or value >= least) and (above is None or value > above)  # pyright: ignore[reportOperatorIssue]
    if not is_inside or (below is not None and value >= below):  # pyright: ignore[reportOperatorIssue]
        must = " and ".join(f"{name} {bound:g}" for name, bound in bounds.items())
        raise ValueError(f"`{argument}` must be a finite number, {must}. Received: {argument}={value!r}")
    return float(value)


def check_boolean(argument: str, value: Any) -> bool:
    """The value as a `bool`."""
    if not isinstance(value, bool):
        raise ValueError(f"`{argument}` must be True or False. Received: {argument}={value!r}")
    return value


def check_widths(argument: str, value: Any) -> tuple[int, ...]:
    """The value, widths of one or more layers, as a tuple of `int`.

    >>> check_widths("units", [8, 4])
    (8, 4)
    """
    is_list = isinstance(value, (tuple, list)) and len(value) > 0
    if not is_list or any(isinstance(w, bool) or not isinstance(w, numbers.Integral) or w < 1 for w in value):
        raise ValueError(
            f"`{argument}` must be the widths of one or more layers, a tuple of positive integers such as (512, 512). "
            f"Received: {argument}={value!r}"
        )
    return tuple(int(width) for width in value)


def is_finite(value: Any) -> bool:
    """Whether a number is one as a `float`, too."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False

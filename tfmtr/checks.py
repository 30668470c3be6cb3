"""Checks of an argument's value, which return it as a plain Python value; each raises a `ValueError`."""

import contextlib
import difflib
import math
import numbers
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any


def check_integer(argument: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """The value as an `int`, between `least` and `most` where they are given.

    >>> check_integer("epochs", 3, least=1)
    3
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    is_inside = is_integer and (least is None or value >= least) and (most is None or value <= most)  # pyright: ignore[reportOperatorIssue]
    if not is_inside:
        bounds = "" if least is None else f", {least} or more" if most is None else f", from {least} to {most}"
        raise ValueError(f"`{argument}` must be an integer{bounds}. Received: {argument}={value!r}")
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
        must = "".join([", ", " and ".join(f"{name} {bound:g}" for name, bound in bounds.items())]) if bounds else ""
        raise ValueError(f"`{argument}` must be a finite number{must}. Received: {argument}={value!r}")
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


def check_choice(argument: str, value: Any, choices: Collection[Any], *, of: str = "") -> None:
    """Raises a `ValueError` that lists `choices` and the nearest one unless `value` is one of them.

    Args:
        argument: Name of the argument.
        value: Its value.
        choices: What it may be.
        of: What the argument is of, such as `" of task 'buy'"`, where there are several.
    """
    if value in choices:
        return
    hint = nearest(value, choices)
    must = f"be one of {sorted(choices)}" if choices else "be left out, as there is nothing to choose from"
    raise ValueError(f"`{argument}`{of} must {must}.{hint} Received: {argument}={value!r}")


def nearest(value: Any, choices: Iterable[Any]) -> str:
    """What may have been meant, as the end of a sentence; empty where nothing is near.

    >>> nearest("plee", ["ple", "mmoe"])
    " Did you mean 'ple'?"
    """
    near = near_ones(value, choices)
    return f" Did you mean {near[0]!r}?" if near else ""


def near_ones(value: Any, choices: Iterable[Any]) -> list[str]:
    """The choice that is most like a value, as a list of at most one text."""
    return difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1, cutoff=0.5)


def check_text(argument: str, value: Any, *, of: str = "") -> str:
    """The value, a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"`{argument}`{of} must be a text. Received: {argument}={value!r}")
    return value


def check_texts(argument: str, value: Any, *, of: str = "") -> tuple[str, ...]:
    """The value, several texts, as a tuple; one text alone is none.

    >>> check_texts("columns", ["territory"])
    ('territory',)
    """
    return check_items(argument, value, str, "texts", of=of)


def check_items(argument: str, value: Any, kind: type, what: str, *, of: str = "") -> tuple[Any, ...]:
    """The value, several values of one kind, as a tuple."""
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    items = tuple(value) if is_list else (None,)
    if not all(isinstance(item, kind) for item in items):
        shown = repr(value if not is_list else next(item for item in items if not isinstance(item, kind)))
        among = " among them" if is_list else ""
        raise ValueError(f"`{argument}`{of} must be a list of {what}. Received: {argument}={shown}{among}")
    return items


def check_path(argument: str, value: Any) -> Path:
    """The value, a path, as a `Path`; `~` is the home directory.

    >>> check_path("out", "runs/a").parts
    ('runs', 'a')
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ValueError(f"`{argument}` must be a path. Received: {argument}={value!r}")
    path = Path(value)
    with contextlib.suppress(RuntimeError):  # of a user that there is not
        return path.expanduser()
    return path


def is_finite(value: Any) -> bool:
    """Whether a number is one as a `float`, too."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False

"""What a task's text says of its label: the column, a threshold, the kind, and the task that it is after."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfmtr.schema import check_choice

if TYPE_CHECKING:
    import ibis.expr.types as ir

KINDS = ("binary", "regression")
OPERATORS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "==": operator.eq}
COMPARISON = re.compile(r"(.*?)\s*(!?[<>=]+)\s*([^<>=!]*)")  # the last one: names of columns may have some, too
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Label:
    """How the label of a task is made of a column.

    Args:
        column: Name of a column of the events.
        kind: `"binary"` or `"regression"`.
        after: The task that this one follows, or `None`.
        comparison: One of `OPERATORS`, or `None` where the column is the label.
        threshold: What the column is compared with.
    """

    column: str
    kind: str = "binary"
    after: str | None = None
    comparison: str | None = None
    threshold: float | None = None

    def of(self, column: ir.Value) -> ir.Value:
        """The label, an Ibis float that is null where the column is null (NaN is how pandas writes a null)."""
        dtype = column.type()
        if self.comparison is None:
            return (column.cast("int8") if dtype.is_boolean() else column).cast("float64")
        value, threshold = column.cast("float64"), self.threshold
        if dtype.is_floating():
            value = value.isnan().ifelse(None, value)
            # 3.3 as a float32 is below 3.3: the threshold is rounded as the column is.
            threshold = float(np.dtype(f"float{8 * dtype.nbytes}").type(threshold))
        return OPERATORS[self.comparison](value, threshold).cast("int8").cast("float64")


def parse_label(task: str, text: str, tasks: Iterable[str] = (), columns: Collection[str] = ()) -> Label:
    """What `"column"`, `"column>=4"`, `"column:regression"` or `"column:after=task"` says.

    Args:
        task: Name of the task.
        text: The text; blanks around its parts do not matter.
        tasks: Names of all tasks, of which another one may follow.
        columns: Names of columns, which may themselves have a `>` and the like in them.

    Returns:
        A `Label`.

    Raises:
        ValueError: If the kind is unknown, the task follows none that there is, or the threshold is no number.

    Example:
    >>> parse_label("liked", "rating >= 3.5:after=click", ["click", "liked"])
    Label(column='rating', kind='binary', after='click', comparison='>=', threshold=3.5)
    """
    column, _, kind = (part.strip() for part in text.partition(":"))
    after, comparison, threshold = None, None, None
    if ":" in kind:
        raise ValueError(
            f"Task {task!r} must have either ':regression' or ':after=' and a task behind its column: a label that "
            f"is after another is 0 or 1. Received: {text!r}"
        )
    if kind.startswith("after="):
        kind, after = "binary", kind.removeprefix("after=").strip()
        check_choice("after", after, [name for name in tasks if name != task], of=f" of task {task!r}")
    kind = kind or "binary"
    if kind not in KINDS:
        raise ValueError(
            f"Task {task!r} must be one of the kinds {list(KINDS)}, or 'after=' and the task it follows. "
            f"Received: {text!r}"
        )
    found = None if column in columns else COMPARISON.fullmatch(column)
    if found:
        column, comparison, number = found.groups()
        if comparison not in OPERATORS or not column:
            raise ValueError(
                f"Task {task!r} must have a column and one of {', '.join(OPERATORS)} before its threshold, such as "
                f"'rating>=4'. Received: {text!r}"
            )
        threshold = float(number) if NUMBER.fullmatch(number) else math.nan
        if not math.isfinite(threshold):
            raise ValueError(
                f"Task {task!r} must have a number behind {comparison!r}, such as 4 or 3.5. Received: {text!r}"
            )
        if kind == "regression":
            raise ValueError(f"Task {task!r} is 0 or 1 by its threshold; leave out ':regression'. Received: {text!r}")
    return Label(column, kind, after, comparison, threshold)


def check_same_tasks(tasks: Mapping[str, str], before: Mapping[str, str]) -> None:
    """Raises a `ValueError` unless the tasks mean what they meant in the data that these continue.

    Args:
        tasks: `{task: text}` as in `Logs.tasks`; columns may have other names than before.
        before: The same of the earlier data.
    """
    now, then = (
        {task: dataclasses.replace(parse_label(task, text, named), column="") for task, text in named.items()}
        for named in (tasks, before)
    )
    if list(now.items()) != list(then.items()):
        raise ValueError(
            "`tasks` must be those of the data that these continue, in the same order and with the same thresholds, or "
            f"prepare and train anew. Received: {dict(tasks)}, not {dict(before)}"
        )

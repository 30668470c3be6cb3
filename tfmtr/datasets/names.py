"""Names that a user brings: what they are called inside the preparation, and which are refused.

Inside the preparation a column that a user brings (a label, a column that is known in training only, an extra column of
users or titles) has a name that no column of the preparation's own has. It gets its own name back where rows are
written, so there it must meet no other; `check_names` sees to that, and to all that names meet later.
"""

import keyword
import re
from collections.abc import Collection, Iterable, Mapping

from tfmtr.names import (
    COMBINE,
    FIRST_STAGE_WEIGHT,
    HISTORY,
    MODEL,
    OPTIONS,
    RANK_BY,
    REQUEST,
    SCENARIO,
    TITLES,
    derived_from,
    weight_name,
)

PREFIX = "log__"  # no column of the preparation's own begins so
SHARED = ("territory",)  # of the users: an id to the preparation and a feature to the model
FILES = ("user", "title", "territory", "name", "user_row", "title_row", "user_vector", "title_vector")
REQUEST_COLUMN = "request"  # of impressions, where the log says which are of one list
FOLDERS = ("split", "sampling", "window")
PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
TABLES = ("users", "titles")


def inside(name: str) -> str:
    """What a column that a user brings is called inside the preparation."""
    return name if name in SHARED else PREFIX + name


def outside(column: str) -> str:
    """The name that a column inside the preparation has for the user.

    >>> outside(inside("rank")), outside(inside("territory")), outside(inside("log__rank"))
    ('rank', 'territory', 'log__rank')
    """
    return column.removeprefix(PREFIX)


def folded(name: str) -> str:
    """What names have in common that are one to a query engine, or as arguments of an exported function.

    Engines do not tell upper from lower case, and TensorFlow makes arguments of names: of `2nd-age` it makes
    `arg_2nd_age`.

    >>> folded("2nd-Age")
    'arg_2nd_age'
    """
    name = re.sub("[^0-9a-z]", "_", name.casefold())
    return name if name[:1].isalpha() else f"arg_{name}"


def check_names(
    tasks: Collection[str],
    training: Iterable[str],
    users: Mapping[str, str | None],
    titles: Mapping[str, str | None],
    context: Iterable[str] = (),
    has_requests: bool = False,
    counters: Iterable[str] = (),
) -> None:
    """Refuses names that something else has, but for what `folded` leaves out, or that TensorFlow does not take.

    Args:
        tasks: Names of the tasks.
        training: Names of the columns that are known in training only.
        users: `{column: kind}` of the extra columns, see `tfmtr.datasets.features.column_kind`. Vectors, which are
            joined, and what is no feature leave no name behind: they must differ from their own table's only.
        titles: The same.
        context: Names of the columns that a request has, too.
        has_requests: Whether a column says which impressions are of one request.
        counters: Names of the features that are counted, which are made of others.

    Raises:
        ValueError: If a name is refused; the message says each, why, and what to do.

    Example:
    >>> check_names(["click"], ["position"], {"age": "number"}, {"genre": "id"})
    """
    brought = {"tasks": list(tasks), "training": list(training), "users": users, "titles": titles}
    brought |= {"context": list(context), "counters": list(counters)}
    problems, refused, owners = [], [], {}
    for argument, names in brought.items():
        for name in names:
            is_kept = argument not in TABLES or names[name] not in (None, "vector")
            scopes = [argument, "all"] if is_kept else [argument]
            reason = why_reserved(name, argument, tasks) if is_kept else None
            if is_kept and has_requests and folded(name) == REQUEST_COLUMN:
                reason = "impressions have it for the request that they are of"
            for scope in scopes:
                owner, other = owners.setdefault((scope, folded(name)), (argument, name))
                if (owner, other) != (argument, name) and reason is None:
                    same = "is" if other == name else "is, but for upper and lower case or punctuation,"
                    reason = f"it {same} that of {_describe(owner, other)}"
            if reason:
                what = "rename the column in the table" if argument in TABLES else "choose another name before `=`"
                what = "rename what it meets, or what it is made of" if argument == "counters" else what
                problems.append(f"{_describe(argument, name)} must have another name: {reason}; {what}.")
                refused.append(name)
    if problems:
        raise ValueError(f"{' '.join(problems)} Received: {', '.join(map(repr, refused))}")


def why_reserved(name: str, argument: str, tasks: Collection[str]) -> str | None:
    """Why nothing of an argument of `check_names` may have this name, whatever else there is; `None` if it may."""
    low, all_tasks = folded(name), {folded(task) for task in tasks}
    if not PATTERN.fullmatch(name):
        return "TensorFlow takes only a-z, A-Z, 0-9, `_`, `.` and `-`, with a letter or a digit in front"
    if low in FILES:
        return "the prepared tables have a column of this name"
    if low in FOLDERS:
        return "the folders of the examples have it"
    if low == SCENARIO:
        return "it is an input of every model"
    if argument in (*TABLES, "context") and (keyword.iskeyword(name) or name == "self"):
        return "a word of Python's own cannot be an argument of the exported model"
    if argument in ("users", "context") and low in {
        *REQUEST,
        *OPTIONS,
        *HISTORY,
        RANK_BY,
        COMBINE,
        FIRST_STAGE_WEIGHT,
        TITLES,
        *(folded(weight_name(task)) for task in tasks),
    }:
        return "it is an input of every request for recommendations"
    if argument == "tasks" and low == MODEL:
        return "the served model has it for the run that a user's vector is of"
    if argument == "tasks" and derived_from(low) in all_tasks:
        return f"heads make it of the task {derived_from(low)!r}"
    return None


def _describe(argument: str, name: str) -> str:
    kind = {"tasks": "task", "training": "training column", "context": "context column", "counters": "counter"}
    kind = kind.get(argument)
    return f"{kind} {name!r}" if kind else f"column {name!r} of `{argument}`"

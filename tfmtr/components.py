"""Finds the swappable parts by their file names: no list, no registry."""

import importlib
import inspect
import pkgutil

from tfmtr.schema import check_choice

ARGUMENTS = {"sharing": "share", "heads": "head", "balancing": "balance"}  # what a folder's parts are chosen by
POSITIONAL = {"sharing": 2, "heads": 1, "balancing": 1}  # arguments that every part of a folder is called with


def names(folder):
    """Sorted names of the parts in a folder of the package; files that begin with `_` are shared pieces.

    >>> "territory_branches" in names("sharing")
    True
    """
    package = importlib.import_module(f"tfmtr.{folder}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def find(folder, part):
    """The function `part` of the file `tfmtr/<folder>/<part>.py`; a callable is returned as it is.

    Raises:
        ValueError: If there is no such file; the message lists what there is and the nearest name, under the argument
            that the part is chosen by.
    """
    if callable(part):
        return part
    check_choice(ARGUMENTS.get(folder, folder), part, names(folder))
    return getattr(importlib.import_module(f"tfmtr.{folder}.{part}"), part)


def check_options(folder, part):
    """Raises a `ValueError` if the function of a part has an option without a default, which a name cannot give.

    Args:
        folder: Folder of the package.
        part: Name of a part; a callable brings its options along and is not looked at.

    Raises:
        ValueError: If there is no such part, or it has such an option.
    """
    function = find(folder, part)
    if callable(part):
        return
    given = {"towers", "num_scenarios"} if folder == "sharing" else set()
    if folder == "sharing":
        from tfmtr.sharing._shared import SIDE_INPUTS

        given |= SIDE_INPUTS
    parameters = list(inspect.signature(function).parameters.values())[POSITIONAL[folder] :]
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [p.name for p in parameters if p.kind not in open_ended and p.default is p.empty and p.name not in given]
    if missing:
        argument, options = ARGUMENTS[folder], ", ".join(f"{name}=..." for name in missing)
        where = {"balance": "`compile(balance=...)` of a model"}.get(argument, "`two_tower` or `ranking`")
        raise ValueError(
            f"`{argument}={part}` has an option without a default, {' and '.join(f'`{name}`' for name in missing)}, "
            f"which neither `tfmtr train` nor a `Recipe` can set yet. In Python give "
            f"`functools.partial({part}, {options})` to {where}, or choose another. Received: {argument}={part!r}"
        )

"""Finds the swappable parts by their file names: no list, no registry."""

import importlib
import pkgutil

from tfmtr.schema import check_choice


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
        ValueError: If there is no such file; the message lists what there is and the nearest name.
    """
    if callable(part):
        return part
    check_choice(folder, part, names(folder))
    return getattr(importlib.import_module(f"tfmtr.{folder}.{part}"), part)

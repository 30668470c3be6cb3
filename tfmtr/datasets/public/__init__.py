"""Public data sets as a service's logs: one file each, whose function of the same name writes the tables.

A file has one function `name(source, out, *, ...options) -> Logs`, with dashes for underscores in `tfmtr prepare NAME`.
The first paragraph of its docstring is what `--help` says of it; the options are keywords with a type and a help text,
`Annotated[type, "Help."]`. A `source` that may be `None` is optional.
"""

import importlib
from pathlib import Path

from tfmtr.schema import check_choice


def names():
    """Names of the data sets, as they are typed: the files of this folder.

    >>> "xmarket" in names(), "online-retail" in names()
    (True, True)
    """
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem.replace("_", "-") for file in files)


def find(name):
    """The function of a data set by its name, with dashes or underscores.

    Raises:
        ValueError: If there is none of that name.
    """
    check_choice("data set", name.replace("_", "-"), names())
    stem = name.replace("-", "_")
    return getattr(importlib.import_module(f"tfmtr.datasets.public.{stem}"), stem)

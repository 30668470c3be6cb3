"""Public data sets as a service's logs: one file each, whose function of the same name writes the tables.

A file has one function `name(source, out, *, ...options) -> Logs`, with dashes for underscores in `tfmtr prepare NAME`.
The first paragraph of its docstring is what `--help` says of it; the options are keywords with a type and a help text,
`Annotated[type, "Help."]`. A `source` that may be `None` is optional. Other packages' data sets are entry points of the
group `tfmtr.datasets.public`, or are named by their import path.
"""

from collections.abc import Callable

from tfmtr import components
from tfmtr.datasets.logs import Logs

FOLDER = "datasets.public"


def names() -> list[str]:
    """Names of the data sets, as they are typed: the files of this folder, and what installed packages have.

    >>> "xmarket" in names(), "online-retail" in names()
    (True, True)
    """
    return [name.replace("_", "-") for name in components.names(FOLDER)]


def find(name: str) -> Callable[..., Logs]:
    """The function of a data set by its name, with dashes or underscores, or by its import path.

    Raises:
        ValueError: If there is none of that name.
    """
    return components.find(FOLDER, name if ":" in name else name.replace("-", "_"))

"""What a recipe's parts are called, where they are found, and how a file has them."""

from collections.abc import Mapping
from typing import Any

from tfmtr import components

FORMS = ("two_tower", "ranking")
LATER_FORMS = ("graph",)  # of the design, not built yet
ENCODERS = "encoders.interactions"  # of ranking models
PARTS = {"share": "sharing", "head": "heads", "balance": "balancing", "debias": "debiasing"}
PARTS |= {"optimizer": "optimizers"}
STORED_AS_TABLES = ("encode", "schedule", *PARTS)


def as_table(name: str, part: Any) -> Any:
    """What stands for a part as a file has it: its name, or a table."""
    if part is None or isinstance(part, (str, Mapping)):
        return part
    function, options = part if isinstance(part, (tuple, list)) else (part, {})
    if callable(function):
        raise ValueError(
            f"`{name}` must be a name, or a function that others can import, to be stored in run.json, from which the "
            f"run is loaded again: write it into a module. Received: {name}={function!r}"
        )
    return {components.NAME: function, **options}

"""What recipes meant that were stored when some parts had other defaults."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tfmtr import components
from tfmtr.recipe.part_names import PARTS

# Options whose defaults are others since runs are of format 3 and searches of format 2: what they were before.
FORMER_DEFAULTS = {
    "share": dict.fromkeys(
        ("adatt", "cross_stitch", "mmoe", "ple", "shared_bottom", "snr"), MappingProxyType({"normalize": True})
    ),
    "balance": {"fair_grad": {"weighs_own": True}, "metabalance": {"strategy": "reduce"}},
}


def with_former_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's document of before some parts had other defaults, in which these parts now say what they meant.

    >>> with_former_defaults({"share": {"name": "ple", "num_experts": 2}, "l2": 0.1})
    {'share': {'name': 'ple', 'normalize': True, 'num_experts': 2}, 'l2': 0.1}
    """
    told = dict(document)
    for field, parts in FORMER_DEFAULTS.items():
        part = document.get(field)
        table = part if isinstance(part, Mapping) else {components.NAME: part}
        name = table.get(components.NAME)
        for former, options in parts.items():
            if name in (former, f"tfmtr.{PARTS[field]}.{former}:{former}"):
                told[field] = {components.NAME: name, **options, **table}
    return told

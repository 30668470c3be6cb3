"""Representation and scenario to one vector per tower: one paper, one file, one function.

A file `name.py` has one function `name(x, scenario, *, towers, num_scenarios, ...options) -> {tower: tensor}`;
the file's name is its only registration. Files that begin with `_` are shared pieces.
"""

from tfmtr.sharing._shared import Shared, per_pair

__all__ = ["Shared", "per_pair"]

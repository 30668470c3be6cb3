"""Ids of users and titles as features of their own: the most frequent ones each on its own, or all of them hashed."""

# Ibis says less of its columns than they can do:
# pyright: reportArgumentType=false, reportOperatorIssue=false

import re
from collections.abc import Mapping
from typing import Literal

import ibis

from tfmtr.checks import check_choice
from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.features import is_value, vocabulary
from tfmtr.datasets.report import counted
from tfmtr.schema import Feature

OWNERS: tuple[Literal["user", "title"], ...] = ("user", "title")
WAYS = ("top", "hashed")
MOST_IDS, LARGEST = 1_000_000, 2**31 - 1
SIZE = re.compile(r"[1-9][0-9_]*")


def parse_id_feature(owner: str, text: str) -> tuple[str, int]:
    """What `"top"`, `"top:50000"` or `"hashed:100000"` says: how an id becomes a feature, and of how many entries.

    Args:
        owner: `"user"` or `"title"`.
        text: The text.

    Returns:
        `(way, number)`: `"top"`, the most frequent ids each on its own and all others one unknown (`MOST_IDS` of them
        where no number is given); or `"hashed"`, all ids in so many buckets.

    Raises:
        ValueError: If there is no such owner or way, or the number is none.

    Example:
    >>> parse_id_feature("title", "top"), parse_id_feature("user", "hashed:1000")
    (('top', 1000000), ('hashed', 1000))
    """
    check_choice("id_features", owner, OWNERS)
    way, colon, size = (part.strip() for part in text.partition(":"))
    check_choice("id_features", way, WAYS, of=f" of {owner!r}")
    if way == "top" and not colon:
        return way, MOST_IDS
    number = int(size) if SIZE.fullmatch(size) else 0
    if not 0 < number <= LARGEST:
        raise ValueError(
            f"`id_features` of {owner!r} must be top, top:NUMBER or hashed:NUMBER, such as top:50000 or hashed:100000. "
            f"Received: {text!r}"
        )
    return way, number


def find_id_features(
    engine: Engine, id_features: Mapping[str, str], rows: ibis.Table
) -> tuple[dict[str, Feature], list[str]]:
    """The features that ids of users and titles are, with the columns' own names.

    Args:
        engine: An `Engine`.
        id_features: `{"user" or "title": text}`, see `parse_id_feature`.
        rows: Rows of training with `user` and `title`, by whose number ids are the most frequent ones.

    Returns:
        `({"user" or "title": Feature}, warnings)`.
    """
    found, warnings = {}, []
    for owner in [name for name in OWNERS if name in id_features]:
        way, size = parse_id_feature(owner, id_features[owner])
        if way == "hashed":
            found[owner] = Feature(owner, owner, "string", width=size)
            continue
        values = rows.select(value=rows[owner])
        found[owner] = Feature(owner, owner, "id", vocabulary(engine, values, size))
        if len(found[owner].vocabulary) == size:
            others = engine.execute(values.filter(is_value(values.value)).value.nunique()) - size
            what = f"{owner}s of the training rows are not among the {size} most frequent: a model takes them for one"
            warnings += [counted(others, what)] if others else []
    return found, warnings

"""Changes of a recipe's document as they are typed: `share.num_experts=4`."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from tfmtr import components
from tfmtr.checks import nearest
from tfmtr.recipe.part_names import STORED_AS_TABLES, as_table
from tfmtr.recipe.recipe import DEFAULTS, OPTIONAL


def as_toml(value: Any) -> str:
    """An option's value as `parse_change` reads it.

    >>> as_toml((64, 32)), as_toml("erf"), as_toml({"a": True, "b": "4"})
    ('[64, 32]', 'erf', '{a = true, b = "4"}')
    """

    def text(value: Any) -> str:
        if isinstance(value, (tuple, list)):
            return f"[{', '.join(map(text, value))}]"
        if isinstance(value, Mapping):
            items = ((name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else text(name), value[name]) for name in value)
            return f"{{{', '.join(f'{name} = {text(item)}' for name, item in items)}}}"
        return json.dumps(value, ensure_ascii=False)

    return value if isinstance(value, str) and parse_change(f"x={value}")[1] == value else text(value)


def parse_change(text: str) -> tuple[str, Any]:
    """`"share.num_experts=4"` as `("share.num_experts", 4)`: values as TOML has them, and words without quotes.

    `True` and `False` may be written as in Python, and numbers without a nought before or after the point. What a
    recipe may be without is `none`, which takes a file's value back.

    Raises:
        ValueError: If the text is no pair, or more than one.

    Example:
    >>> parse_change("share.units=[64, 32]"), parse_change("share=ple"), parse_change("balance=none")
    (('share.units', [64, 32]), ('share', 'ple'), ('balance', None))
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not all(key.split(".")) or not equals or not value:
        raise ValueError(f"`--set` must be key=value, such as share.num_experts=4. Received: {text!r}")
    if key in OPTIONAL and value.lower() == "none":
        return key, None
    try:
        document = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError):
        if value.lower() in ("true", "false"):
            return key, value.lower() == "true"
        return key, float(value) if re.fullmatch(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?", value) else value
    if len(document) > 1:
        raise ValueError(f"`--set` must be one key=value; repeat it for more. Received: {text!r}")
    return key, document["value"]


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Several changes, in their order: `{key: value}`.

    Raises:
        ValueError: If one is no pair, a key comes twice, or a part comes after its own options, which it would undo.

    Example:
    >>> parse_changes(["share=ple", "share.num_experts=4"])
    {'share': 'ple', 'share.num_experts': 4}
    """
    changes: dict[str, Any] = {}
    for key, value in map(parse_change, texts):
        undone = [other for other in changes if other == key or other.startswith(f"{key}.")]
        if undone:
            raise ValueError(
                f"`--set` must name each key once, and a part before its options. Received: {undone[0]}, and then "
                f"{key}={value!r}"
            )
        changes[key] = value
    return changes


def change(document: dict[str, Any], key: str, value: Any) -> None:
    """Sets a key, or an option of a part, in a document."""
    name, _, option = key.partition(".")
    if option == components.NAME and name in STORED_AS_TABLES:
        raise ValueError(f"`--set {name}=...` says which part `{name}` is. Received: {key}={value!r}")
    if not option:
        document[name] = value
        return
    part = document.get(name, DEFAULTS.get(name))
    if name in ("task_weights", "groups"):
        document[name] = {**(part if isinstance(part, Mapping) else {}), option: value}
    elif name not in STORED_AS_TABLES:
        raise ValueError(
            f"`--set` must name a part before a dot: one of {sorted(STORED_AS_TABLES)}."
            f"{nearest(name, STORED_AS_TABLES)} Received: {key}={value!r}"
        )
    elif part is None:
        raise ValueError(
            f"`{name}` must be there before it has options: `--set {name}=...` says which. Received: {key}={value!r}"
        )
    else:
        table = as_table(name, part)
        document[name] = {**({components.NAME: table} if isinstance(table, str) else table), option: value}

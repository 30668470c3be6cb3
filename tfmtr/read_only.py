"""Values that stay as they are: what a frozen dataclass holds can be shared, compared and stored."""

from collections.abc import Mapping
from typing import Any, NoReturn


class ReadOnlyDict(dict):
    """A dictionary that cannot be changed; otherwise it is one, for JSON, TOML, `pickle`, comparisons and `**`.

    Example:
    >>> options = ReadOnlyDict({"units": (8, 4)})
    >>> options == {"units": (8, 4)}, {**options, "depth": 2}
    (True, {'units': (8, 4), 'depth': 2})
    """

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "A recipe's values must stay as they are: make another recipe, such as "
            f"`dataclasses.replace(recipe, ...)`. Received: a change of {dict(self)!r}"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse  # pyright: ignore[reportAssignmentType]
    clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> tuple[type, tuple[dict]]:
        return ReadOnlyDict, (dict(self),)  # pickle would fill an empty one, item by item

    def __copy__(self) -> "ReadOnlyDict":
        return self

    def copy(self) -> dict:
        """A dictionary of one's own, which can be changed."""
        return dict(self)


def read_only(value: Any) -> Any:
    """A copy of a value in which no dictionary, list or set can be changed; what else it holds is held as it is.

    >>> read_only({"a": [1, {"b": {2}}]})
    {'a': (1, {'b': frozenset({2})})}
    """
    if isinstance(value, (tuple, list)):
        items = [read_only(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, Mapping):
        return ReadOnlyDict({key: read_only(item) for key, item in value.items()})
    return frozenset(value) if isinstance(value, set) else value

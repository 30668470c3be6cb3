"""The baselines by their names, and what is tried of each."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from tfmtr.evaluation.baselines.als import als
from tfmtr.evaluation.baselines.blend import blend
from tfmtr.evaluation.baselines.ease import MANY_TITLES, ease, fitted_titles, gram_of, why_too_large
from tfmtr.evaluation.baselines.history import History, Score
from tfmtr.evaluation.baselines.neighbours import neighbours, products_of
from tfmtr.evaluation.baselines.popularity import popularity

MANY_EVENTS = 1_000_000  # of one history: above, some fits take minutes, and tries are fitted on so many


def has_many_events(history: History) -> bool:
    """Whether there are more events than `MANY_EVENTS`."""
    return len(history.users) > MANY_EVENTS


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A baseline as it is asked for by name.

    Args:
        function: Function of a `History` and of options, which returns a function of users that returns scores.
        tries: Function of the length of a window in days, None without times, that returns at most twelve
            dictionaries of options, the middle one being what is taken where none can be told from another.
        needs_times: Whether it is left out where data have no times.
        is_personal: Whether scores come of the user's own past, so that popularity settles ties and cold users' lists.
        package: What it needs beside this package's own requirements, of the extra `baselines`.
        shared: `{option: function of a History}`, what all tries of one history have in common.
        why_not: Function of a `History` that says why it is left out, and returns None if it is not.
        is_costly: Function of a `History` that says whether a fit takes so long that tries are judged by the newest
            validation window alone.
    """

    function: Callable[..., Score]
    tries: Callable[[Any], list[dict[str, Any]]]
    needs_times: bool = False
    is_personal: bool = True
    package: str | None = None
    shared: dict[str, Callable[[History], Any]] = dataclasses.field(default_factory=dict)
    why_not: Callable[[History], str | None] | None = None
    is_costly: Callable[[History], bool] = has_many_events


def grid(**values: Iterable[Any]) -> list[dict[str, Any]]:
    """All combinations of options.

    Example:
    >>> grid(days=(7, 14), by_territory=(True,))
    [{'days': 7, 'by_territory': True}, {'days': 14, 'by_territory': True}]
    """
    return [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]


def _recent(days: float) -> list[dict[str, Any]]:
    return grid(days=[days * count for count in (2, 4, 8)], by_territory=(True, False))


def _decayed(days: float) -> list[dict[str, Any]]:
    return grid(half_life=[days * count for count in (0.25, 0.5, 1, 2, 4, 8)], by_territory=(True, False))


def _blend(days: float) -> list[dict[str, Any]]:
    lives = {"half_life": [2 * days, 16 * days], "popular_half_life": [0.5 * days, 4 * days]}
    return grid(**lives, weight=(0.3, 1.0, 3.0))


def _bm25(days: float | None) -> list[dict[str, Any]]:
    saturation = ({"k1": 1.2, "b": 0.0}, {"k1": 1.2, "b": 0.25}, {"k1": 1.2, "b": 0.75}, {"k1": 100.0, "b": 0.75})
    return [one | other for one in grid(number=(20, 100, 500)) for other in saturation]


BASELINES = {
    "popularity": Baseline(popularity, lambda days: grid(by_territory=(False, True)), is_personal=False),
    "recent": Baseline(popularity, _recent, needs_times=True, is_personal=False),
    "decayed": Baseline(popularity, _decayed, needs_times=True, is_personal=False),
    "cosine": Baseline(
        functools.partial(neighbours, weighting="cosine"),
        lambda days: grid(number=(20, 100, 500), shrink=(0.0, 50.0, 10.0, 200.0)),
        shared={"products": functools.partial(products_of, weighting="cosine")},
    ),
    "bm25": Baseline(
        functools.partial(neighbours, weighting="bm25"),
        _bm25,
        shared={"products": functools.partial(products_of, weighting="bm25")},
    ),
    "als": Baseline(
        als,
        lambda days: grid(factors=(32, 128), alpha=(1.0, 10.0, 40.0), l2=(1.0, 10.0)),
        package="implicit",
    ),
    "ease": Baseline(
        ease,
        lambda days: grid(l2=(1.0, 5.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 5e4)),
        shared={"gram": gram_of},
        why_not=why_too_large,
        is_costly=lambda history: len(fitted_titles(history)) > MANY_TITLES,
    ),
    "blend": Baseline(
        blend,
        _blend,
        needs_times=True,
        shared={"products": functools.partial(products_of, weighting="cosine")},
    ),
}

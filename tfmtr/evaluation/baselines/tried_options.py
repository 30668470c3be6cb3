"""Which options a baseline is given: those of its tries that did best before the test."""

import importlib.util
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tfmtr.checks import check_choice
from tfmtr.evaluation.baselines.history import History, Score
from tfmtr.evaluation.baselines.popularity import popularity
from tfmtr.evaluation.baselines.table import BASELINES, MANY_EVENTS
from tfmtr.evaluation.baselines.ties import settled


def tune(
    names: Iterable[str],
    histories: Sequence[History],
    judge: Callable[[int, Score], float],
    *,
    window_days: float | None,
    required: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """Tries each baseline's options on some moments and chooses the best.

    Args:
        names: Names of baselines.
        histories: `History`s, one for each validation window.
        judge: Function of a history's place among them and of a function of users that returns scores; it returns how
            good they are, such as the mean NDCG, NaN where there is nothing to judge by.
        window_days: Length of a window in days, None where the data have no times.
        required: Names that were asked for: they are not left out because a package is missing.

    Returns:
        `{name: {"options": ..., "figure": ..., "tries": [{"options": ..., "figure": ...}], "reason": None}}`: the
        options with the largest figure of their try, the first of them where several have it, and their figure over
        all histories. A figure is the mean over histories that are judged (a try's is of the newest alone, where a fit
        is costly), None where there are none; tries are fitted on about a million events at most. Without figures the
        options are the middle try's. A baseline that is left out has no options, no tries, and the reason.

    Raises:
        ImportError: If a required baseline's package is missing.
        ValueError: If there is no baseline of a name.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> history = History([0, 1, 1], [1, 0, 0], [12.0, 2.0, 12.0], [0, 0], num_titles=2)
    >>> found = tune(["recent"], [history], lambda place, score: float(score([0])[0, 0]), window_days=2)
    >>> found["recent"]["options"], round(found["recent"]["tries"][0]["figure"], 3)
    ({'days': 16, 'by_territory': True}, 1.0)
    """
    found = {}
    for name in names:
        reasons = [why_left_out(name, history, window_days=window_days) for history in (None, *histories)]
        if any(reasons):
            reason = next(text for text in reasons if text)
            if name in required and is_missing(name):
                raise ImportError(reason)
            found[name] = {"options": None, "figure": None, "tries": [], "reason": reason}
            continue
        options = tries(name, window_days)
        figures = [[] for _ in options]
        costly = histories and BASELINES[name].is_costly(histories[-1])
        for place, whole in list(enumerate(histories))[-1 if costly else 0 :]:
            history = whole.thinned(MANY_EVENTS)
            shared = {key: make(history) for key, make in BASELINES[name].shared.items()}
            for figure, one in zip(figures, options, strict=True):
                figure.append(float(judge(place, fit(name, one, history, **shared))))
        means = [_mean(figure) for figure in figures]
        finite_means = [mean for mean in means if mean is not None]
        chosen = means.index(max(finite_means)) if finite_means else len(options) // 2
        others = histories[:-1] if costly else ()
        judged = [
            float(judge(place, fit(name, options[chosen], history.thinned(MANY_EVENTS))))
            for place, history in enumerate(others)
        ]
        rows = [{"options": one, "figure": mean} for one, mean in zip(options, means, strict=True)]
        figure = _mean([*judged, *figures[chosen]])
        found[name] = {"options": options[chosen], "figure": figure, "tries": rows, "reason": None}
    return found


def fit(name: str, options: Mapping[str, Any], history: History, **shared: Any) -> Score:
    """Fits a baseline.

    Args:
        name: Name of a baseline.
        options: Dictionary of its function's options.
        history: A `History`.
        **shared: What tries of this history share, if it was made already.

    Returns:
        Function of user numbers of shape `(users,)` that returns scores, float64 of shape `(users, titles)`. Where a
        user's scores tie, and for users without a past, popularity decides, in the territory first.

    Raises:
        ImportError: If the baseline's package is missing.
        ValueError: If there is no baseline of the name, or an option is out of its range.

    Example:
    >>> from tfmtr.evaluation.baselines.history import History
    >>> history = History([0, 0, 1], [2, 1, 2], [1.0] * 3, [0, 0, 0], num_titles=3)
    >>> fit("cosine", {}, history)([2]).argsort().tolist()
    [[0, 1, 2]]
    """
    check_choice("baselines", name, tuple(BASELINES))
    baseline = BASELINES[name]
    score = baseline.function(history, **options, **shared)
    return settled(score, popularity(history)) if baseline.is_personal else score


def tries(name: str, window_days: float | None) -> list[dict[str, Any]]:
    """At most twelve dictionaries of options of a baseline.

    Args:
        name: Name of a baseline.
        window_days: Length of a window in days, None where the data have no times.

    Returns:
        List of dictionaries; empty where the baseline needs times and there are none.

    Raises:
        ValueError: If there is no baseline of the name.

    Example:
    >>> tries("popularity", 7)
    [{'by_territory': False}, {'by_territory': True}]
    """
    check_choice("baselines", name, tuple(BASELINES))
    return [] if BASELINES[name].needs_times and window_days is None else BASELINES[name].tries(window_days)


def why_left_out(name: str, history: History | None = None, *, window_days: float | None) -> str | None:
    """Says in one line why a baseline is left out.

    Args:
        name: Name of a baseline.
        history: The `History` that it shall be fitted on, if there is one already.
        window_days: Length of a window in days, None where the data have no times.

    Returns:
        Text, or None where it is not.

    Raises:
        ValueError: If there is no baseline of the name.

    Example:
    >>> why_left_out("recent", window_days=None)
    'recent is left out: it needs times'
    """
    check_choice("baselines", name, tuple(BASELINES))
    if is_missing(name):
        return f"{name} needs pip install 'tfmtr[baselines]'"
    if BASELINES[name].needs_times and window_days is None:
        return f"{name} is left out: it needs times"
    why_not = BASELINES[name].why_not
    return None if history is None or why_not is None else why_not(history)


def is_missing(name: str) -> bool:
    """Whether a baseline's package is not installed."""
    package = BASELINES[name].package
    return package is not None and importlib.util.find_spec(package) is None


def _mean(figures: Iterable[float]) -> float | None:
    finite = [figure for figure in figures if not math.isnan(figure)]
    return math.fsum(finite) / len(finite) if finite else None

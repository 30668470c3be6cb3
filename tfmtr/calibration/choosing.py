"""Which maps are served: those that make the error of other users' rows smaller."""

from typing import Any

import numpy as np

from tfmtr.calibration.maps import IDENTITY, POOLED, TURNED, Map, fit, fit_map
from tfmtr.evaluation.metrics import expected_calibration_error


def choose(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    half: np.ndarray,
    *,
    method: str = "platt",
    min_count: int = 30,
) -> tuple[dict[str, Map], dict[str, dict[str, Any]], dict[str, Any]]:
    """Fits one task's maps and keeps those that make the error of their rows smaller.

    A group has its own map, or, with too few rows, the map of all rows. It is tried on each half of the users, fitted
    on the other half. Where the expected calibration error does not fall, or a half lacks positives or negatives to
    fit on, the group keeps the model's own probabilities. Groups that no row is of are judged by the rows of all groups
    without a map of their own (by all rows if each has its own).

    Args:
        probabilities: Array of shape `(rows,)`.
        labels: Array of shape `(rows,)`, NaN where a label was not observed.
        groups: Array of shape `(rows,)` of texts.
        half: Array of shape `(rows,)` of 0 and 1, the same for all rows of a user.
        method: `"platt"` or `"isotonic"`.
        min_count: As for `fit`.

    Returns:
        `(maps, error, unknown)`: `{group: Map}`, which has groups that are served otherwise than unknown ones, and the
        unknown ones under `""`; `{group: {"rows", "before", "after", "tried", "map", "why"}}`, what `judge` returns and
        the errors before and after, as served, those of all rows under `""`; and `{"rows", "tried", "map", "why"}` of
        unknown groups.
    """
    is_labelled = ~np.isnan(np.asarray(labels, float))
    p, label, group, half = (np.asarray(values)[is_labelled] for values in (probabilities, labels, groups, half))
    fitted = fit({"": p}, {"": label}, group, method=method, min_count=min_count)[""]
    names = [str(name) for name in np.unique(group) if name != POOLED]
    counts = {name: min((label[group == name] == 1).sum(), (label[group == name] == 0).sum()) for name in names}
    has_own = {POOLED: False} | {name: counts[name] >= min_count for name in names}
    tried_on_all, problem = crossed(p, label, half, method)
    if not problem and fitted[POOLED].method == IDENTITY:
        problem = TURNED
    maps, verdicts, served = {}, {}, p.astype(float)
    for name in names:
        rows = group == name
        after, why = tried_on_all[rows], problem
        if has_own[name]:
            after, why = crossed(p[rows], label[rows], half[rows], method)
            why = why or (None if name in fitted else TURNED)
        verdicts[name] = judge(label[rows], p[rows], after, "own" if has_own[name] else "of all", why)
        maps[name] = Map(IDENTITY)
        if verdicts[name]["map"] != IDENTITY:
            maps[name], served[rows] = fitted[name if has_own[name] else POOLED], after
    rows = np.asarray([not has_own[str(name)] for name in group], bool)
    is_unknown, rows = group == POOLED, rows if rows.any() else ~rows
    unknown = {"rows": int(rows.sum()), **judge(label[rows], p[rows], tried_on_all[rows], "of all", problem)}
    maps[POOLED] = Map(IDENTITY)
    if unknown["map"] != IDENTITY:
        maps[POOLED], served[is_unknown] = fitted[POOLED], tried_on_all[is_unknown]
    maps = {name: one for name, one in maps.items() if name == POOLED or one != maps[POOLED]}
    error = {name: {**cell, **verdicts.get(name, {})} for name, cell in errors(label, p, served, group).items()}
    return maps, error, unknown


def crossed(
    probabilities: np.ndarray, labels: np.ndarray, half: np.ndarray, method: str
) -> tuple[np.ndarray, str | None]:
    """Probabilities of each half by the map of the other half, and what kept a map from being fitted, or `None`."""
    mapped = probabilities.astype(float)
    halves = [which for which in (0, 1) if (half == which).any()]
    for which in halves:
        other = labels[half != which]
        missing = [f"no {text}" for text, value in (("positives", 1), ("negatives", 0)) if not (other == value).any()]
        if missing:
            return mapped, f"one half of the users has {' and '.join(missing)}"
    for which in halves:
        one = fit_map(probabilities[half != which], labels[half != which], method)
        if one is None:
            return mapped, TURNED
        mapped[half == which] = one(probabilities[half == which])
    return mapped, None


def judge(labels: np.ndarray, before: np.ndarray, after: np.ndarray, kind: str, why: str | None) -> dict[str, Any]:
    """What is served of some rows, and why: the map of a kind only if their error falls with it.

    Args:
        labels: Array of shape `(rows,)`, 0 or 1.
        before: The model's probabilities, array of shape `(rows,)`.
        after: Those of the map.
        kind: `"own"` or `"of all"`.
        why: Why there is no map to try, or `None`.

    Returns:
        `{"tried": error with the map or None, "map": kind or "identity", "why": text or None}`.
    """
    if not len(labels):
        why = "no labelled row"
    if why:
        return {"tried": None, "map": IDENTITY, "why": why}
    old, new = (expected_calibration_error(labels, p) for p in (before, after))
    if new < old:
        return {"tried": new, "map": kind, "why": None}
    return {"tried": new, "map": IDENTITY, "why": f"error would be {new:.4f}"}


def errors(labels: np.ndarray, before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> dict[str, dict[str, Any]]:
    """Expected calibration errors of all rows (group `""`) and of each group, `{group: {rows, before, after}}`."""
    is_labelled, cells = ~np.isnan(labels), {}
    for name in (POOLED, *np.unique(groups)):
        rows = is_labelled & ((groups == name) | (name == POOLED))
        if rows.any():
            two = [expected_calibration_error(labels[rows], p[rows]) for p in (before, after)]
            cells[str(name)] = {"rows": int(rows.sum()), "before": two[0], "after": two[1]}
    return cells

"""Maps from a probability to a calibrated one, fitted for each group with rows enough.

Example:
>>> rng = np.random.default_rng(0)
>>> p = rng.random(4000)
>>> labels, groups = rng.random(4000) < p / 2, np.repeat(["DE", "PL"], 2000)  # half as likely as was said
>>> maps = fit({"click": p}, {"click": labels}, groups, method="isotonic")
>>> round(float(maps["click"][""](np.asarray([0.8]))[0]), 1)
0.4
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfmtr.checks import check_choice

METHODS = ("platt", "isotonic")
IDENTITY = "identity"
TURNED = "its map would turn the order around"
POOLED = ""  # the map for groups with too few rows of their own and for unknown ones
MAX_KNOTS = 64
EPSILON = 2.0**-20  # 1 - EPSILON is a float32, so that the graph computes what NumPy does


@dataclasses.dataclass(frozen=True)
class Map:
    """A non-decreasing map from a probability to a calibrated one.

    Args:
        method: `"platt"`: `sigmoid(a logit(p) + b)` with `values = (a, b)`; `"isotonic"`: straight lines between
            `knots` and `values`; `"identity"`: the probability itself.
        values: See `method`.
        knots: Increasing probabilities, for isotonic maps.
    """

    method: str
    values: Sequence[float] = ()
    knots: Sequence[float] = ()

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, an array of the same shape."""
        if self.method == IDENTITY:
            return np.asarray(probabilities)
        if self.method == "isotonic":
            return np.interp(probabilities, self.knots, self.values)
        scale, offset = self.values
        return 1 / (1 + np.exp(-(scale * log_odds(np.asarray(probabilities, float)) + offset)))


def log_odds(p: np.ndarray) -> np.ndarray:
    """Logit of probabilities, kept finite."""
    p = np.clip(p, EPSILON, 1 - EPSILON)
    return np.log(p) - np.log1p(-p)


def fit_map(probabilities: np.ndarray, labels: np.ndarray, method: str) -> Map | None:
    """The `Map` of a method that fits rows best.

    Platt scaling maximises the likelihood of `sigmoid(a logit(p) + b)` (Platt 1999, on the log-odds instead of a
    margin); isotonic regression is the non-decreasing function with the least squares (Zadrozny and Elkan 2002).

    Args:
        probabilities: Array of shape `(rows,)` in [0, 1].
        labels: Array of shape `(rows,)`, 0 or 1, both of which occur.
        method: `"platt"` or `"isotonic"`.

    Returns:
        A `Map`, or `None` if the best Platt map would turn the order around.
    """
    # Imported where a map is fitted: it takes longer than everything else that an export imports but TensorFlow.
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        regression = IsotonicRegression(y_min=0.0, y_max=1.0).fit(probabilities, labels)
        knots, values = regression.X_thresholds_, regression.y_thresholds_
        if len(knots) > MAX_KNOTS:
            kept = np.unique(np.linspace(0, len(knots) - 1, MAX_KNOTS).round().astype(int))
            knots, values = knots[kept], values[kept]
        return Map(method, values.tolist(), knots.tolist())
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=np.inf).fit(log_odds(probabilities)[:, None], labels)
    scale, offset = float(regression.coef_[0, 0]), float(regression.intercept_[0])
    return Map(method, (scale, offset)) if scale > 0 else None


def fit(
    probabilities: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    groups: np.ndarray,
    *,
    method: str = "platt",
    min_count: int = 30,
) -> dict[str, dict[str, Map]]:
    """Fits a map for each task and group that has rows enough, and one for all rows.

    Args:
        probabilities: `{task: array of shape (rows,)}` of binary tasks.
        labels: `{task: array of shape (rows,)}`, NaN where a label was not observed.
        groups: Array of shape `(rows,)` of texts.
        method: `"platt"` or `"isotonic"`.
        min_count: Positives, and negatives, that a group must have for a map of its own.

    Returns:
        `{task: {group: Map}}` with the map for all other rows under `""`.

    Raises:
        ValueError: If `method` is unknown, or a probability is not finite.
    """
    check_choice("method", method, METHODS)
    check_finite(probabilities)
    maps = {}
    for task, p in probabilities.items():
        label = np.asarray(labels[task], float)
        p, label, group = (np.asarray(values)[~np.isnan(label)] for values in (p, label, groups))
        rows_of = {str(name): group == name for name in np.unique(group)} | {POOLED: np.ones(len(p), bool)}
        maps[task] = {}
        for name, rows in rows_of.items():
            needed = 1 if name == POOLED else min_count
            if min((label[rows] == 1).sum(), (label[rows] == 0).sum()) >= needed:
                fitted = fit_map(p[rows], label[rows], method)
                maps[task] |= {} if fitted is None else {name: fitted}
        maps[task].setdefault(POOLED, Map(IDENTITY))
    return maps


def check_finite(probabilities: Mapping[str, np.ndarray]) -> None:
    """Raises a `ValueError` if a probability of a task is not a finite number."""
    for task, p in probabilities.items():
        wrong = np.asarray(p)[~np.isfinite(p)]
        if len(wrong):
            raise ValueError(
                f"Probabilities of the task `{task}` must be finite to be calibrated; train the model again, with a "
                f"smaller learning rate. Received: {len(wrong):,} of {len(p):,} that are not, such as {wrong[0]}"
            )


def apply(
    maps: Mapping[str, Mapping[str, Map]], probabilities: Mapping[str, np.ndarray], groups: np.ndarray
) -> dict[str, np.ndarray]:
    """Calibrated `{task: array of shape (rows,)}`; arguments as for `fit`."""
    calibrated = {}
    for task, p in probabilities.items():
        task_maps, calibrated[task] = maps[task], np.zeros(len(p))
        for name in np.unique(groups):
            rows = groups == name
            calibrated[task][rows] = task_maps.get(str(name), task_maps[POOLED])(np.asarray(p)[rows])
    return calibrated

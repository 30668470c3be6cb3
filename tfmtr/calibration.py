"""Probabilities that are right on average: Platt and isotonic calibration per scenario or slice and task.

Fitted on validation rows, kept in a run's `calibration.json` and exported with the graph. A group's map is served only
if, fitted on other users, it makes the error of the group's rows smaller; otherwise the model's own probabilities are.
What is calibrated to is the share of positives among the validation rows: where negatives were sampled, that share is
the sampling's.

Example:
>>> rng = np.random.default_rng(0)
>>> p = rng.random(4000)
>>> labels, groups = rng.random(4000) < p / 2, np.repeat(["DE", "PL"], 2000)  # half as likely as was said
>>> maps = fit({"click": p}, {"click": labels}, groups, method="isotonic")
>>> round(float(maps["click"][""](np.asarray([0.8]))[0]), 1)
0.4
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import read_json, write_json
from tfmtr.encoders.raw import lookup
from tfmtr.evaluation.evaluate import predict
from tfmtr.evaluation.metrics import expected_calibration_error
from tfmtr.run import Run
from tfmtr.schema import Schema, check_choice

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


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The maps of a run, and what they did to the error.

    Args:
        document: What `calibration.json` holds; `calibrate` describes it.
        path: The run directory.
    """

    document: Mapping[str, Any] = dataclasses.field(repr=False)
    path: Path

    def table(self) -> str:
        """The errors of each group before and after, as text."""
        from tfmtr.evaluation.fitting_table import as_text
        from tfmtr.evaluation.tables import calibration_table

        return as_text(calibration_table(self.document))

    def to_json(self) -> str:
        """The document."""
        return json.dumps(self.document, indent=1)


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
        own = {str(name): group == name for name in np.unique(group)} | {POOLED: np.ones(len(p), bool)}
        maps[task] = {}
        for name, rows in own.items():
            needed = 1 if name == POOLED else min_count
            if min((label[rows] == 1).sum(), (label[rows] == 0).sum()) >= needed:
                found = fit_map(p[rows], label[rows], method)
                maps[task] |= {} if found is None else {name: found}
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
        own, calibrated[task] = maps[task], np.zeros(len(p))
        for name in np.unique(groups):
            rows = groups == name
            calibrated[task][rows] = own.get(str(name), own[POOLED])(np.asarray(p)[rows])
    return calibrated


@keras.saving.register_keras_serializable(package="tfmtr")
class Calibrate(keras.layers.Layer):
    """The maps of one task in the graph.

    Args:
        maps: List of `Map` (or their fields as dictionaries), one a group.

    Call arguments:
        inputs: Probabilities of shape `(batch, 1)`.
        group: Index of each row's map, integer of shape `(batch,)`.

    Returns:
        Calibrated probabilities of shape `(batch, 1)`.
    """

    def __init__(self, maps: Sequence[Map | Mapping[str, Any]], **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.maps = [one if isinstance(one, Map) else Map(**one) for one in maps]
        self.is_identity = np.asarray([one.method == IDENTITY for one in self.maps])
        fitted = [one for one in self.maps if one.method != IDENTITY]
        is_isotonic = bool(fitted) and fitted[0].method == "isotonic"
        # In the places of identities, whose rows skip what is computed from it.
        unused = Map("isotonic", (0.0, 1.0), (0.0, 1.0)) if is_isotonic else Map("platt", (1.0, 0.0))
        rows = [unused if one.method == IDENTITY else one for one in self.maps]
        longest = max(2, *(len(one.values) for one in rows))

        def padded(rows: Sequence[Sequence[float]]) -> np.ndarray:
            return np.asarray([[*row, *[row[-1]] * (longest - len(row))] for row in rows], "float32")

        self.values = padded([one.values for one in rows])
        self.knots = padded([one.knots for one in rows]) if is_isotonic else None

    def call(self, inputs: keras.KerasTensor, group: keras.KerasTensor) -> keras.KerasTensor:
        """Calibrates."""
        is_identity = ops.take(self.is_identity, group, axis=0)[:, None]
        return ops.where(is_identity, inputs, self._calibrate(inputs, group))  # pyright: ignore[reportReturnType]

    def _calibrate(self, inputs: keras.KerasTensor, group: keras.KerasTensor) -> keras.KerasTensor:
        values = ops.take(self.values, group, axis=0)  # (batch, values)
        if self.knots is None:
            p = ops.clip(inputs, EPSILON, 1 - EPSILON)
            return ops.sigmoid(values[:, :1] * (ops.log(p) - ops.log1p(-p)) + values[:, 1:])  # pyright: ignore[reportReturnType]
        knots = ops.take(self.knots, group, axis=0)
        right = ops.clip(ops.sum(ops.cast(knots <= inputs, "int32"), axis=1, keepdims=True), 1, knots.shape[1] - 1)
        (x0, y0), (x1, y1) = (
            (ops.take_along_axis(knots, place, axis=1), ops.take_along_axis(values, place, axis=1))
            for place in (right - 1, right)
        )
        share = ops.clip((inputs - x0) / ops.maximum(x1 - x0, 1e-12), 0.0, 1.0)
        return y0 + share * (y1 - y0)  # pyright: ignore[reportReturnType]

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], group_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Shape of the probabilities."""
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "maps": [dataclasses.asdict(one) for one in self.maps]}


def calibrate(
    run: str | os.PathLike,
    data: str | os.PathLike | None = None,
    *,
    by: str = "territory",
    method: str = "platt",
    min_count: int = 30,
) -> Calibration:
    """Fits maps for the newest model of a run on the validation rows and writes `<run>/calibration.json`.

    Args:
        run: Run directory made by `tfmtr train`.
        data: Directory made by `tfmtr prepare`; what the run was trained on by default.
        by: `"scenario"`, or a column that a request of the served model has: an id feature or a column of the scenario.
        method: `"platt"` or `"isotonic"`.
        min_count: As for `fit`.

    Returns:
        A `Calibration` of the document: `by`, `method`, `window`, `maps`, under `error` what `choose` found of each
        group, and under `unknown` what it found of groups that no validation row is of.

    Raises:
        ValueError: If `by` is no such column, no task is binary, there is no validation row, a probability is not
            finite, `min_count` is not positive, or `method` is unknown.
    """
    check_choice("method", method, METHODS)
    if not isinstance(min_count, int) or isinstance(min_count, bool) or min_count < 1:
        raise ValueError(f"`min_count` must be positive: a map needs rows. Received: min_count={min_count!r}")
    run = Run(run)
    data, schema = run.data if data is None else Dataset(data), run.schema
    check_choice("by", by, request_columns(schema))
    tasks = [task for task in schema.tasks if task.kind == "binary"]
    files = data.examples("validation")
    if not tasks or not files:
        raise ValueError(
            "Calibration needs a binary task and validation rows; prepare with a larger --validation-fraction. "
            f"Received: {[f'{task.name} of kind {task.kind}' for task in schema.tasks]}, {len(files)} files"
        )
    columns, users, _ = predict(run.load(), files, schema, data, columns=[by])
    scores = {task.name: columns[f"{task.name} score"] for task in tasks}
    labels = {task.name: columns[task.column] for task in tasks}  # pyright: ignore[reportArgumentType]
    check_finite(scores)
    result = {"by": by, "method": method, "window": last_window(run), "maps": {}, "error": {}, "unknown": {}}
    for task, p in scores.items():
        maps, error, unknown = choose(
            p, labels[task], columns[by].astype(str), users % 2, method=method, min_count=min_count
        )
        result["maps"][task] = {name: dataclasses.asdict(one) for name, one in maps.items()}
        result["error"][task], result["unknown"][task] = error, unknown
    write_json(Path(run, "calibration.json"), result)
    return Calibration(result, run.path)


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
    known = ~np.isnan(np.asarray(labels, float))
    p, label, group, half = (np.asarray(values)[known] for values in (probabilities, labels, groups, half))
    fitted = fit({"": p}, {"": label}, group, method=method, min_count=min_count)[""]
    names = [str(name) for name in np.unique(group) if name != POOLED]
    counts = {name: min((label[group == name] == 1).sum(), (label[group == name] == 0).sum()) for name in names}
    has_own = {POOLED: False} | {name: counts[name] >= min_count for name in names}
    tried_on_all, problem = crossed(p, label, half, method)
    if not problem and fitted[POOLED].method == IDENTITY:
        problem = TURNED
    maps, found, served = {}, {}, p.astype(float)
    for name in names:
        rows = group == name
        after, why = tried_on_all[rows], problem
        if has_own[name]:
            after, why = crossed(p[rows], label[rows], half[rows], method)
            why = why or (None if name in fitted else TURNED)
        found[name] = judge(label[rows], p[rows], after, "own" if has_own[name] else "of all", why)
        maps[name] = Map(IDENTITY)
        if found[name]["map"] != IDENTITY:
            maps[name], served[rows] = fitted[name if has_own[name] else POOLED], after
    rows = np.asarray([not has_own[str(name)] for name in group], bool)
    is_unknown, rows = group == POOLED, rows if rows.any() else ~rows
    unknown = {"rows": int(rows.sum()), **judge(label[rows], p[rows], tried_on_all[rows], "of all", problem)}
    maps[POOLED] = Map(IDENTITY)
    if unknown["map"] != IDENTITY:
        maps[POOLED], served[is_unknown] = fitted[POOLED], tried_on_all[is_unknown]
    maps = {name: one for name, one in maps.items() if name == POOLED or one != maps[POOLED]}
    error = {name: {**cell, **found.get(name, {})} for name, cell in errors(label, p, served, group).items()}
    return maps, error, unknown


def crossed(
    probabilities: np.ndarray, labels: np.ndarray, half: np.ndarray, method: str
) -> tuple[np.ndarray, str | None]:
    """Probabilities of each half by the map of the other half, and what kept a map from being fitted, or `None`."""
    found = probabilities.astype(float)
    halves = [which for which in (0, 1) if (half == which).any()]
    for which in halves:
        other = labels[half != which]
        missing = [f"no {text}" for text, value in (("positives", 1), ("negatives", 0)) if not (other == value).any()]
        if missing:
            return found, f"one half of the users has {' and '.join(missing)}"
    for which in halves:
        one = fit_map(probabilities[half != which], labels[half != which], method)
        if one is None:
            return found, TURNED
        found[half == which] = one(probabilities[half == which])
    return found, None


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


def last_window(run: Run) -> int:
    """Number of the test window that a run's newest model is for."""
    return run.windows[-1]


def errors(labels: np.ndarray, before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> dict[str, dict[str, Any]]:
    """Expected calibration errors of all rows (group `""`) and of each group, `{group: {rows, before, after}}`."""
    known, found = ~np.isnan(labels), {}
    for name in (POOLED, *np.unique(groups)):
        rows = known & ((groups == name) | (name == POOLED))
        if rows.any():
            two = [expected_calibration_error(labels[rows], p[rows]) for p in (before, after)]
            found[str(name)] = {"rows": int(rows.sum()), "before": two[0], "after": two[1]}
    return found


def request_columns(schema: Schema) -> list[str]:
    """What rows can be grouped by when they are served: texts of a request, and the scenario."""
    ids = [feature.name for feature in schema.by_role("user", "title", "context") if feature.kind == "id"]
    return ["scenario", *schema.scenario.columns, *(name for name in ids if name not in schema.scenario.columns)]


def calibrated_outputs(
    run: Run,
    outputs: dict[str, keras.KerasTensor],
    raw: Mapping[str, keras.KerasTensor],
    encoded: Mapping[str, keras.KerasTensor],
    schema: Schema,
) -> dict[str, keras.KerasTensor]:
    """A served graph's outputs, calibrated if the run is.

    What depends on two tasks, such as `purchase|click`, becomes the ratio of their calibrated probabilities, in rows
    where one of them is calibrated.

    Args:
        run: The `Run`.
        outputs: `{name: KerasTensor of shape (batch, 1)}`.
        raw: `{column: KerasTensor}` of the request.
        encoded: The model's inputs, with `scenario`.
        schema: The `Schema`.

    Returns:
        `{name: KerasTensor}` with the names of `outputs`.

    Raises:
        ValueError: If the run went on after it was calibrated, or its `calibration.json` is none.
    """
    file = Path(run, "calibration.json")
    document = read_json(file)
    if document is None:
        return outputs
    has_maps = isinstance(maps := document.get("maps"), dict) and all(isinstance(own, dict) for own in maps.values())
    if not has_maps or "window" not in document or document.get("by") not in ("scenario", *raw):
        raise ValueError(
            f"`{file}` must be what `tfmtr calibrate` wrote; run it again, or delete the file. Received: a document of "
            f"{sorted(document)}"
        )
    window = last_window(run)
    if document["window"] != window:
        raise ValueError(
            f"`{file}` must be of the run's newest model; run `tfmtr calibrate` again, or delete the file. Received: "
            f"calibrated in window {document['window']}, the model is of window {window}"
        )
    by = document["by"]
    names = sorted({name for own in document["maps"].values() for name in own} - {POOLED})
    if by == "scenario":
        places = [0, *(names.index(n) + 1 if n in names else 0 for n in schema.scenario.names)]
        group = ops.take(np.asarray(places, "int32"), encoded["scenario"])
    else:
        group = lookup(names)(raw[by])
    found, changed = dict(outputs), {}
    for task, own in document["maps"].items():
        layer = Calibrate([own.get(name, own[POOLED]) for name in (POOLED, *names)], name=f"{task}_calibrated")
        found[task], changed[task] = layer(outputs[task], group), ~layer.is_identity
    for name in outputs:
        task, bar, before = name.partition("|")
        if bar and task in changed and before in changed:
            ratio = ops.minimum(found[task] / ops.maximum(found[before], EPSILON), 1.0)
            is_changed = ops.take(changed[task] | changed[before], group, axis=0)[:, None]
            found[name] = ops.where(is_changed, ratio, outputs[name])  # pyright: ignore[reportArgumentType]
    return found

"""Probabilities that are right on average: Platt and isotonic calibration per scenario or slice and task.

Fitted on validation rows, kept in a run's `calibration.json` and exported with the graph. What is calibrated to is the
share of positives among the validation rows: where negatives were sampled, that share is the sampling's.

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
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from tfmtr import training
from tfmtr.datasets.prepared import Prepared
from tfmtr.documents import write_json
from tfmtr.encoders.raw import lookup
from tfmtr.evaluation.evaluate import predict
from tfmtr.evaluation.metrics import expected_calibration_error
from tfmtr.schema import check_choice

METHODS = ("platt", "isotonic")
POOLED = ""  # the map for groups with too few rows of their own and for unknown ones
MAX_KNOTS = 64
EPSILON = 2.0**-20  # 1 - EPSILON is a float32, so that the graph computes what NumPy does


@dataclasses.dataclass(frozen=True)
class Map:
    """A non-decreasing map from a probability to a calibrated one.

    Args:
        method: `"platt"`: `sigmoid(a logit(p) + b)` with `values = (a, b)`; `"isotonic"`: straight lines between
            `knots` and `values`.
        values: See `method`.
        knots: Increasing probabilities, for isotonic maps.
    """

    method: str
    values: Sequence[float]
    knots: Sequence[float] = ()

    def __call__(self, probabilities):
        """Calibrated probabilities, an array of the same shape."""
        if self.method == "isotonic":
            return np.interp(probabilities, self.knots, self.values)
        scale, offset = self.values
        return 1 / (1 + np.exp(-(scale * log_odds(np.asarray(probabilities, float)) + offset)))


def log_odds(p):
    """Logit of probabilities, kept finite."""
    p = np.clip(p, EPSILON, 1 - EPSILON)
    return np.log(p) - np.log1p(-p)


def fit_map(probabilities, labels, method):
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
    if method == "isotonic":
        regression = IsotonicRegression(y_min=0.0, y_max=1.0).fit(probabilities, labels)
        knots, values = regression.X_thresholds_, regression.y_thresholds_
        if len(knots) > MAX_KNOTS:
            kept = np.unique(np.linspace(0, len(knots) - 1, MAX_KNOTS).round().astype(int))
            knots, values = knots[kept], values[kept]
        return Map(method, values.tolist(), knots.tolist())
    regression = LogisticRegression(C=np.inf).fit(log_odds(probabilities)[:, None], labels)
    scale, offset = float(regression.coef_[0, 0]), float(regression.intercept_[0])
    return Map(method, (scale, offset)) if scale > 0 else None


def fit(probabilities, labels, groups, *, method="platt", min_count=30):
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
        ValueError: If `method` is unknown.
    """
    check_choice("method", method, METHODS)
    maps = {}
    for task, p in probabilities.items():
        label = np.asarray(labels[task], float)
        p, label, group = (np.asarray(values)[~np.isnan(label)] for values in (p, label, groups))
        own = {POOLED: np.ones(len(p), bool)} | {str(name): group == name for name in np.unique(group)}
        maps[task] = {}
        for name, rows in own.items():
            needed = 1 if name == POOLED else min_count
            if min((label[rows] == 1).sum(), (label[rows] == 0).sum()) >= needed:
                found = fit_map(p[rows], label[rows], method)
                maps[task] |= {} if found is None else {name: found}
        maps[task].setdefault(POOLED, Map("platt", (1.0, 0.0)) if method == "platt" else Map(method, (0, 1), (0, 1)))
    return maps


def apply(maps, probabilities, groups):
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

    def __init__(self, maps, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.maps = [one if isinstance(one, Map) else Map(**one) for one in maps]
        longest = max(2, *(len(one.values) for one in self.maps))

        def padded(rows):
            return np.asarray([[*row, *[row[-1]] * (longest - len(row))] for row in rows], "float32")

        self.values = padded([one.values for one in self.maps])
        self.knots = padded([one.knots for one in self.maps]) if self.maps[0].method == "isotonic" else None

    def call(self, inputs, group):
        """Calibrates."""
        values = ops.take(self.values, group, axis=0)  # (batch, values)
        if self.knots is None:
            p = ops.clip(inputs, EPSILON, 1 - EPSILON)
            return ops.sigmoid(values[:, :1] * (ops.log(p) - ops.log1p(-p)) + values[:, 1:])
        knots = ops.take(self.knots, group, axis=0)
        right = ops.clip(ops.sum(ops.cast(knots <= inputs, "int32"), axis=1, keepdims=True), 1, knots.shape[1] - 1)
        (x0, y0), (x1, y1) = (
            (ops.take_along_axis(knots, place, axis=1), ops.take_along_axis(values, place, axis=1))
            for place in (right - 1, right)
        )
        share = ops.clip((inputs - x0) / ops.maximum(x1 - x0, 1e-12), 0.0, 1.0)
        return y0 + share * (y1 - y0)

    def compute_output_shape(self, inputs_shape, group_shape):
        """Shape of the probabilities."""
        return inputs_shape

    def get_config(self):
        """Arguments of the constructor."""
        return {**super().get_config(), "maps": [dataclasses.asdict(one) for one in self.maps]}


def calibrate(run, data, *, by="territory", method="platt", min_count=30):
    """Fits maps for the newest model of a run on the validation rows and writes `<run>/calibration.json`.

    Args:
        run: Run directory made by `tfmtr train`.
        data: Directory made by `tfmtr prepare`, the one the run was trained on.
        by: `"scenario"`, or a column that a request of the served model has: an id feature or a column of the scenario.
        method: `"platt"` or `"isotonic"`.
        min_count: As for `fit`.

    Returns:
        The document: `by`, `method`, `window`, `maps`, and under `error` expected calibration errors, `{task: {group:
        {"rows", "before", "after"}}}`, the `after` of each half of the users by maps of the other half.

    Raises:
        ValueError: If `by` is no such column, no task is binary, there is no validation row, or `method` is unknown.
    """
    check_choice("method", method, METHODS)
    data, schema = Prepared(data), training.Schema.load(run)
    check_choice("by", by, request_columns(schema))
    tasks = [task for task in schema.tasks if task.kind == "binary"]
    files = data.examples("validation")
    if not tasks or not files:
        raise ValueError(
            "Calibration needs a binary task and validation rows; prepare with a larger --validation-fraction. "
            f"Received: {[f'{task.name} of kind {task.kind}' for task in schema.tasks]}, {len(files)} files"
        )
    columns, users, _ = predict(training.load(run), files, schema, data, columns=[by])
    scores = {task.name: columns[f"{task.name} score"] for task in tasks}
    labels = {task.name: columns[task.column] for task in tasks}
    groups, half = columns[by].astype(str), users % 2
    crossed = {task.name: np.zeros(len(groups)) for task in tasks}
    for which in (0, 1):
        other, own = half != which, half == which
        known = [{name: values[other] for name, values in part.items()} for part in (scores, labels)]
        maps = fit(*known, groups[other], method=method, min_count=min_count)
        found = apply(maps, {name: values[own] for name, values in scores.items()}, groups[own])
        for name, values in found.items():
            crossed[name][own] = values
    maps = fit(scores, labels, groups, method=method, min_count=min_count)
    result = {
        "by": by,
        "method": method,
        "window": last_window(run),
        "maps": {task: {name: dataclasses.asdict(one) for name, one in own.items()} for task, own in maps.items()},
        "error": {name: errors(labels[name], scores[name], crossed[name], groups) for name in scores},
    }
    write_json(Path(run, "calibration.json"), result)
    return result


def last_window(run):
    """Number of the test window that a run's newest model is for."""
    return max(map(int, training.read_run(run)["stages"]))


def errors(labels, before, after, groups):
    """Expected calibration errors of all rows (group `""`) and of each group, `{group: {rows, before, after}}`."""
    known, found = ~np.isnan(labels), {}
    for name in (POOLED, *np.unique(groups)):
        rows = known & ((groups == name) | (name == POOLED))
        if rows.any():
            two = [expected_calibration_error(labels[rows], p[rows]) for p in (before, after)]
            found[str(name)] = {"rows": int(rows.sum()), "before": two[0], "after": two[1]}
    return found


def request_columns(schema):
    """What rows can be grouped by when they are served: texts of a request, and the scenario."""
    ids = [feature.name for feature in schema.by_role("user", "title", "context") if feature.kind == "id"]
    return ["scenario", *schema.scenario.columns, *(name for name in ids if name not in schema.scenario.columns)]


def calibrated_outputs(run, outputs, raw, encoded, schema):
    """A served graph's outputs, calibrated if the run is.

    What depends on two tasks, such as `purchase|click`, becomes the ratio of their calibrated probabilities.

    Args:
        run: Run directory.
        outputs: `{name: KerasTensor of shape (batch, 1)}`.
        raw: `{column: KerasTensor}` of the request.
        encoded: The model's inputs, with `scenario`.
        schema: The `Schema`.

    Returns:
        `{name: KerasTensor}` with the names of `outputs`.

    Raises:
        ValueError: If the run went on after it was calibrated.
    """
    file = Path(run, "calibration.json")
    if not file.exists():
        return outputs
    document = json.loads(file.read_text(encoding="utf-8"))
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
    found = dict(outputs)
    for task, own in document["maps"].items():
        maps = [own.get(name, own[POOLED]) for name in (POOLED, *names)]
        found[task] = Calibrate(maps, name=f"{task}_calibrated")(outputs[task], group)
    for name in outputs:
        task, bar, before = name.partition("|")
        if bar and task in document["maps"] and before in document["maps"]:
            found[name] = ops.minimum(found[task] / ops.maximum(found[before], EPSILON), 1.0)
    return found

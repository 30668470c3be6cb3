"""A run's maps in the served graph."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtr.calibration.calibrating import last_window
from tfmtr.calibration.maps import EPSILON, IDENTITY, POOLED, Map
from tfmtr.documents import read_json
from tfmtr.encoders.raw import lookup
from tfmtr.run import Run
from tfmtr.schema import Schema


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
    calibrated, changed = dict(outputs), {}
    for task, own in document["maps"].items():
        layer = Calibrate([own.get(name, own[POOLED]) for name in (POOLED, *names)], name=f"{task}_calibrated")
        calibrated[task], changed[task] = layer(outputs[task], group), ~layer.is_identity
    for name in outputs:
        task, bar, before = name.partition("|")
        if bar and task in changed and before in changed:
            ratio = ops.minimum(calibrated[task] / ops.maximum(calibrated[before], EPSILON), 1.0)
            is_changed = ops.take(changed[task] | changed[before], group, axis=0)[:, None]
            calibrated[name] = ops.where(is_changed, ratio, outputs[name])  # pyright: ignore[reportArgumentType]
    return calibrated

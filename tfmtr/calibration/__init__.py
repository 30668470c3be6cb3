"""Probabilities that are right on average: Platt and isotonic calibration per scenario or slice and task.

Fitted on validation rows, kept in a run's `calibration.json` and exported with the graph. A group's map is served only
if, fitted on other users, it makes the error of the group's rows smaller; otherwise the model's own probabilities are.
What is calibrated to is the share of positives among the validation rows: where negatives were sampled, that share is
the sampling's.
"""

from tfmtr.calibration.calibrating import Calibration, calibrate
from tfmtr.calibration.choosing import choose, errors
from tfmtr.calibration.graph import Calibrate, calibrated_outputs
from tfmtr.calibration.maps import Map, apply, fit, fit_map, log_odds

__all__ = [
    "Calibrate",
    "Calibration",
    "Map",
    "apply",
    "calibrate",
    "calibrated_outputs",
    "choose",
    "errors",
    "fit",
    "fit_map",
    "log_odds",
]

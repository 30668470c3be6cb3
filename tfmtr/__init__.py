"""tfmtr: joint recommender models for many territories, scenarios and tasks.

    logs = tfmtr.Logs(events="events/", columns={"user": "uid", "title": "asin", "time": "ts"})
    data = tfmtr.prepare(logs, "runs/data")
    run = tfmtr.train(data, "runs/ple", tfmtr.Recipe(share=("ple", {"num_experts": 2})))
    print(tfmtr.evaluate(run).table())
    version = tfmtr.export(run, "saved_models/ple")
    with tfmtr.serve(version) as server:
        print(server.recommend({"territory": "DE", "age": 25}, k=10))

Every function takes what the one before returned, or its path. What is named here, and what the guides import, is
public; everything else may change. Importing this package imports no TensorFlow: a name is loaded when it is first
asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfmtr import _registration

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tfmtr import models
    from tfmtr.calibration import Calibration, calibrate
    from tfmtr.candidates import prepare_candidates
    from tfmtr.datasets.dataset import Dataset
    from tfmtr.datasets.labelled_rows import prepare_rows
    from tfmtr.datasets.logs import Calendar, Logs
    from tfmtr.datasets.prepare import prepare
    from tfmtr.evaluation.evaluate import evaluate
    from tfmtr.evaluation.evaluation import Evaluation
    from tfmtr.exporting import export
    from tfmtr.recipe import Recipe
    from tfmtr.reporting.page import report
    from tfmtr.run import Run
    from tfmtr.schema import Feature, Scenario, Schema, Task
    from tfmtr.serving.client import Client
    from tfmtr.serving.local import serve
    from tfmtr.training import fit, train
    from tfmtr.tuning.search import tune
    from tfmtr.version import Version

_HOMES = {
    "Calendar": "tfmtr.datasets.logs",
    "Calibration": "tfmtr.calibration",
    "Client": "tfmtr.serving.client",
    "Dataset": "tfmtr.datasets.dataset",
    "Evaluation": "tfmtr.evaluation.evaluation",
    "Feature": "tfmtr.schema",
    "Logs": "tfmtr.datasets.logs",
    "Recipe": "tfmtr.recipe",
    "Run": "tfmtr.run",
    "Scenario": "tfmtr.schema",
    "Schema": "tfmtr.schema",
    "Task": "tfmtr.schema",
    "Version": "tfmtr.version",
    "calibrate": "tfmtr.calibration",
    "evaluate": "tfmtr.evaluation.evaluate",
    "export": "tfmtr.exporting",
    "fit": "tfmtr.training",
    "prepare": "tfmtr.datasets.prepare",
    "prepare_candidates": "tfmtr.candidates",
    "prepare_rows": "tfmtr.datasets.labelled_rows",
    "report": "tfmtr.reporting.page",
    "serve": "tfmtr.serving.local",
    "train": "tfmtr.training",
    "tune": "tfmtr.tuning.search",
}
__all__ = [
    "Calendar",
    "Calibration",
    "Client",
    "Dataset",
    "Evaluation",
    "Feature",
    "Logs",
    "Recipe",
    "Run",
    "Scenario",
    "Schema",
    "Task",
    "Version",
    "calibrate",
    "evaluate",
    "export",
    "fit",
    "models",
    "prepare",
    "prepare_candidates",
    "prepare_rows",
    "report",
    "serve",
    "train",
    "tune",
]


_registration.install()


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("tfmtr.models")
    if name not in _HOMES:
        raise AttributeError(f"module 'tfmtr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

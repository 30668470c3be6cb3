import json

import numpy as np
import pytest
from helpers import report_runs

from tfmtr.reporting import figures
from tfmtr.reporting.page import report


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The prepared directory of `report_runs`."""
    path = tmp_path_factory.mktemp("report") / "data"
    report_runs.write_prepared(path)
    return path


@pytest.fixture(scope="session")
def runs(prepared, tmp_path_factory):
    """Four run directories: the baseline, the upsampled one, and the multi-task model with two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    models = {"baseline": ("baseline", 0), "upsampled": ("upsampled", 0)}
    models |= {f"multi-task-seed-{seed}": ("multi-task", seed) for seed in (0, 1)}
    return [report_runs.write_run(folder / name, prepared, model, seed) for name, (model, seed) in models.items()]


@pytest.fixture(scope="session")
def evaluations(runs):
    """The runs' `evaluation.json`, by directory name."""
    return {run.name: json.loads((run / "evaluation.json").read_text()) for run in runs}


def made_up_vectors(run, data):
    """In place of a model's: two groups, apart after the branch."""
    rng = np.random.default_rng(0)
    return {
        stage: {group: rng.normal(size=(20, 4)) + shift * i for i, group in enumerate(("east", "west"))}
        for stage, shift in (("before", 0), ("after", 5))
    }


@pytest.fixture(scope="session")
def write(tmp_path_factory):
    """Writes a report without a model and returns its file; without charts, which take most of the time, if asked."""

    def written(runs, *, has_charts=True, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(figures, "user_vectors", made_up_vectors)
            for chart in () if has_charts else ("gains_chart", "histogram_chart", "lines_chart", "tsne_chart"):
                patch.setattr(figures, chart, lambda name, **_: None)  # as where there is too little evidence
            return report(runs, tmp_path_factory.mktemp("page") / "r.html", num_samples=30, **options)

    return written


@pytest.fixture(scope="session")
def file(runs, write):
    """The report of all runs."""
    return write(runs)

import numpy as np
import pytest

from tfmtr.reporting.overview import METRICS, overview
from tfmtr.reporting.runs import read_models


def test_figures_are_means_over_windows_with_deviation_over_seeds(runs, evaluations):
    figures = overview(read_models(runs), "event")
    assert set(figures) == set(METRICS)
    seeds = [
        np.mean([cells["overall"]["ndcg"] for cells in evaluations[name]["lists"]["ranking"].values()])
        for name in ("multi-task-seed-0", "multi-task-seed-1")
    ]
    assert figures["ndcg"]["multi-task"] == pytest.approx((np.mean(seeds), np.std(seeds, ddof=1)))
    assert figures["ndcg"]["baseline"].deviation is None
    local = [
        cells["local"]["calibration_error"] for cells in evaluations["baseline"]["title_classes"]["event"].values()
    ]
    assert figures["local_calibration_error"]["baseline"].mean == pytest.approx(np.mean(local))
    assert figures["local_calibration_error"] != figures["global_calibration_error"]


def test_a_territory_has_its_own_and_what_is_missing_is_not_available(runs, evaluations):
    models = read_models(runs)
    figures = overview(models, "event", "eu-01")
    gauc = [cells["eu-01"]["gauc"] for cells in evaluations["baseline"]["gauc"]["event"]["territory"].values()]
    assert figures["gauc"]["baseline"].mean == pytest.approx(np.mean(gauc))
    assert overview(models, "event", "tiny")["pr_auc"]["baseline"] == (None, None)
    models[0].runs[0].evaluation["lists"] = {}  # a model without an index
    assert overview(models, "event")["recall"]["baseline"] == (None, None)

import numpy as np
import pytest

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.reporting.curves import calibration_lines, exposure_lines, hit_rate_lines, loss_lines
from tfmtr.reporting.pairs import read_pairs
from tfmtr.reporting.runs import read_models


@pytest.fixture
def models(runs):
    return read_models(runs)


def test_exposure_is_cumulated_over_popularity(models, evaluations):
    lines = exposure_lines(models)
    assert [line.name for line in lines] == ["baseline", "upsampled", "multi-task"]
    cells = [of["overall"] for of in evaluations["upsampled"]["lists"]["exposure_curve"].values()]
    for values, key in ((lines[1].x, "popularity"), (lines[1].y, "exposure")):
        np.testing.assert_allclose(values, [0, *np.cumsum(np.mean([cell[key] for cell in cells], axis=0))])
    for line in lines:
        assert line.x[-1] == pytest.approx(1)
        assert line.y[-1] == pytest.approx(1)
    models[0].runs[0].evaluation["lists"] = {}
    assert [line.name for line in exposure_lines(models)] == ["upsampled", "multi-task"]
    assert [line.name for line in hit_rate_lines(models)] == ["upsampled", "multi-task"]


def test_hit_rates_leave_out_deciles_without_evidence(models, evaluations):
    line = hit_rate_lines(models)[0]
    deciles = [of["overall"] for of in evaluations["baseline"]["lists"]["hit_rate_by_popularity"].values()]
    assert line.x.tolist() == list(range(1, 11))
    for place in range(10):
        known = [cells[place]["hit_rate"] for cells in deciles if cells[place]["hit_rate"] is not None]
        assert np.isnan(line.y[place]) if not known else line.y[place] == pytest.approx(np.mean(known))


def test_calibration_is_of_bins_of_equal_numbers(models, prepared):
    data = Dataset(prepared)
    pairs = read_pairs(data, models, "event")
    rows = title_facts(data).local[pairs.titles]
    line = calibration_lines(models, pairs, rows)[2]
    scores, labels = pairs.of(models[2])[:, rows].ravel(), np.tile(pairs.labels[rows], 2)
    lowest = np.argsort(scores)[: -(-len(scores) // 10)]
    assert (len(line.x), line.x[0], line.y[0]) == (10, scores[lowest].mean(), labels[lowest].mean())
    assert (np.diff(line.x) > 0).all()
    assert np.mean(line.y) == pytest.approx(labels.mean(), abs=1e-2)
    assert calibration_lines(models, pairs, np.arange(len(rows)) < 9) == []


def test_losses_are_those_of_all_windows(models):
    training, validation = loss_lines(models[0].runs[0])
    assert (training.x.tolist(), training.y.tolist()) == ([1, 2, 3], [0.5, 0.4, 0.4])
    assert np.isnan(validation.y[2])
    assert validation.y[:2].tolist() == pytest.approx([0.55, 0.45])

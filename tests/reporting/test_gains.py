import numpy as np
import pytest

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.reporting.gains import compare_models, major_territories
from tfmtr.reporting.pairs import read_pairs
from tfmtr.reporting.runs import read_models


@pytest.fixture(scope="module")
def comparisons(runs, prepared):
    models, data = read_models(runs), Dataset(prepared)
    pairs = read_pairs(data, models, "event")
    positives = title_facts(data).territories
    return compare_models(models, pairs, positives, major_territories(positives), "event", num_samples=60)


def test_major_territories_are_sixteen_or_half_of_all():
    many = {f"T{i:02}": i for i in range(40)}
    assert major_territories(many) == {f"T{i}" for i in range(24, 40)}
    assert major_territories(dict(list(many.items())[:31])) == {f"T{i:02}" for i in range(16, 31)}
    assert major_territories({"a": 1, "b": 1, "c": 1}) == {"a"}


def test_gains_are_those_of_the_documents(comparisons, evaluations):
    def pr_auc(run, window, territory):
        return evaluations[run]["tasks"]["event"]["territory"][window][territory]["pr_auc"]

    assert [comparison.baseline for comparison in comparisons] == ["baseline", "upsampled"]
    for comparison in comparisons:
        for gain in (*comparison.gains, comparison.overall):
            if gain.territory == "tiny":
                assert {*gain.windows.values(), gain.average, gain.low, gain.high, gain.model} == {None}
                continue
            for window in ("1", "2", "3"):
                ours = np.mean([pr_auc(f"multi-task-seed-{seed}", window, gain.territory) for seed in (0, 1)])
                theirs = pr_auc(comparison.baseline, window, gain.territory)
                assert gain.windows[window] == pytest.approx(100 * (ours / theirs - 1))
            assert gain.average == pytest.approx(np.mean(list(gain.windows.values())))
            assert gain.low < gain.average < gain.high
            assert gain.p_value is None  # the baselines have one seed


def test_territories_are_sorted_by_gain_and_told_apart(comparisons, prepared):
    facts = title_facts(Dataset(prepared))
    for comparison in comparisons:
        names = [gain.territory for gain in comparison.gains]
        assert names[-1] == "tiny"
        averages = [gain.average for gain in comparison.gains[:-1]]
        assert averages == sorted(averages, reverse=True)
        assert {gain.territory for gain in comparison.gains if gain.is_major} == {"am-00", "eu-01"}
        assert {gain.territory: gain.training_positives for gain in comparison.gains} == facts.territories
        assert comparison.major["slices"] == comparison.minor["slices"] == 2
        major = [gain.average for gain in comparison.gains if gain.is_major]
        assert comparison.major["gain"] == pytest.approx(np.mean(major))

import dataclasses

import numpy as np
import pytest
from helpers import report_runs
from sklearn.metrics import average_precision_score

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.reporting.pairs import read_pairs
from tfmtr.reporting.runs import read_models
from tfmtr.reporting.titles_section import choose_titles, describe_titles, score_histograms, shift_by_class


@pytest.fixture(scope="module")
def study(runs, prepared):
    models, data = read_models(runs), Dataset(prepared)
    return models, read_pairs(data, models, "event"), title_facts(data), data


def test_the_most_positive_titles_of_both_classes_are_chosen(study):
    _, pairs, facts, _ = study
    chosen = choose_titles(pairs, facts, per_class=3)
    assert len(chosen) == 6
    for own, is_local in ((chosen[:3], True), (chosen[3:], False)):
        assert facts.local[own].tolist() == [is_local] * 3
        tested = [
            row for row in np.flatnonzero(facts.local == is_local) if np.sum(pairs.labels[pairs.titles == row]) >= 30
        ]  # all of these have 20 users
        assert own == sorted(tested, key=lambda row: (-facts.popularity[row], row))[:3]
    every = choose_titles(pairs, facts, per_class=100)
    assert len(every) == report_runs.NUM_TITLES


def test_titles_without_evidence_come_last_however_popular(study):
    _, pairs, facts, _ = study
    positives = np.bincount(pairs.titles, pairs.labels)
    facts = dataclasses.replace(facts, popularity=1000 - positives.astype(int))
    of_class = [row for row in choose_titles(pairs, facts, per_class=100) if not facts.local[row]]
    has_evidence = [positives[row] >= 30 for row in of_class]
    assert has_evidence == sorted(has_evidence, reverse=True)
    assert len(set(has_evidence)) == 2
    assert positives[of_class[0]] < positives[of_class[1]]


def test_a_title_s_figures_are_of_its_rows(study):
    models, pairs, facts, data = study
    (title,) = describe_titles([8], models, pairs, facts, data)
    rows = pairs.titles == 8
    labels = pairs.labels[rows]
    assert (title.id, title.name, title.is_local) == ("t08", "Title 8", False)
    assert (title.positives, title.training_positives) == (labels.sum(), facts.popularity[8])
    pr_auc = {
        model.name: np.mean([average_precision_score(labels, scores) for scores in pairs.of(model)[:, rows]])
        for model in models
    }
    assert title.pr_auc == pytest.approx(pr_auc)
    assert title.gain == pytest.approx(
        {name: 100 * (pr_auc["multi-task"] / pr_auc[name] - 1) for name in list(pr_auc)[:2]}
    )
    ours, theirs = (pairs.of(models[i])[0, rows] for i in (-1, 0))
    shift = np.mean(ours[:, None] > theirs) + np.mean(ours[:, None] == theirs) / 2 - 0.5
    assert title.shift["baseline"] == pytest.approx(shift)


def test_shifts_by_class_are_means_over_their_titles(study):
    models, pairs, facts, data = study
    shifts = {(of.baseline, of.is_local): of for of in shift_by_class(models, pairs, facts)}
    assert list(shifts) == [("baseline", True), ("baseline", False), ("upsampled", True), ("upsampled", False)]
    titles = describe_titles(range(report_runs.NUM_TITLES), models, pairs, facts, data)
    for (name, is_local), of in shifts.items():
        own = [title.shift[name] for title in titles if title.is_local == is_local and title.shift[name] is not None]
        assert of.shift == pytest.approx(np.mean(own))
        assert (of.up, of.titles) == (sum(shift > 0 for shift in own), len(own))
    # The made-up baseline is fond of global titles, and the multi-task model is not.
    assert shifts["baseline", True].shift > 0 > shifts["baseline", False].shift


def test_histograms_are_shares_of_a_title_s_pairs(study):
    models, pairs, facts, data = study
    (histogram,) = score_histograms(describe_titles([9], models, pairs, facts, data), models, pairs)
    for model in models:
        scores = pairs.of(model)[:, pairs.titles == 9].ravel()
        shares = histogram.shares[model.name]
        assert shares.sum() == pytest.approx(1)
        assert shares[0] == np.mean(scores < histogram.edges[1])
    assert len(histogram.edges) == 21

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tfmtr.evaluation.areas import areas, stable_order


def test_both_areas_follow_their_definitions_on_three_rows():
    labels, scores = np.array([True, False, True]), np.array([0.2, 0.5, 0.9])
    pr_auc, roc_auc = areas(labels, scores, np.zeros(3, int), 1)
    assert pr_auc == pytest.approx((1 / 1 + 2 / 3) / 2)  # precision at each positive
    assert roc_auc == pytest.approx((1 + 0) / 2)  # of two pairs one is in order
    tied = areas(labels, np.array([0.5, 0.5, 0.9]), np.zeros(3, int), 1)
    assert tied == (pytest.approx((1 + 2 / 3) / 2), pytest.approx((1 + 0.5) / 2))


@pytest.mark.parametrize("decimals", [1, 12])
def test_groups_get_the_areas_of_their_own_rows(decimals):
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(0, 6, 300), rng.random(300) < 0.3
    scores = np.round(rng.random(300) * 0.7 + 0.3 * labels, decimals)
    labels[groups == 4], labels[groups == 5] = False, True
    pr_auc, roc_auc = areas(labels, scores, groups, 7)
    for group in range(4):
        rows = groups == group
        assert pr_auc[group] == pytest.approx(average_precision_score(labels[rows], scores[rows]), abs=1e-12)
        assert roc_auc[group] == pytest.approx(roc_auc_score(labels[rows], scores[rows]), abs=1e-12)
    assert np.isnan(pr_auc[[4, 6]]).all()  # without a positive, without a row
    assert pr_auc[5] == 1
    assert np.isnan(roc_auc[4:]).all()


def test_no_rows_give_no_area():
    assert np.isnan(areas(np.zeros(0, bool), np.zeros(0), np.zeros(0, int), 2)).all()


@pytest.mark.parametrize("end", [1, 2**16, 2**16 + 2, 2**32])
def test_integers_of_one_and_of_two_radixes_are_sorted_stably(end):
    codes = np.random.default_rng(0).choice(np.unique([0, 1, end // 2, end - 1]), 500)
    assert stable_order(codes).tolist() == np.argsort(codes, kind="stable").tolist()
    assert stable_order(codes[:0]).tolist() == []

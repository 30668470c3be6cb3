import numpy as np
import pytest
from helpers.head_oracles import CLICK_AND_PURCHASE, LABELS, LOGITS, P, cross_entropy, losses_and_gradients, outputs

from tfmtr.heads.naive_cvr import naive_cvr
from tfmtr.schema import Task


def test_conversion_is_trained_on_clicked_rows_and_served_for_all():
    head = naive_cvr(CLICK_AND_PURCHASE)
    losses, gradients = losses_and_gradients(head, LOGITS, LABELS)
    clicked = np.asarray(LABELS["click"]) == 1
    rows = cross_entropy(P["purchase"], LABELS["purchase"])
    assert losses["click"] == pytest.approx(cross_entropy(P["click"], LABELS["click"]).mean(), rel=1e-5)
    assert losses["purchase"] == pytest.approx(rows[clicked].mean(), rel=1e-5)
    assert ((gradients["purchase"] != 0) == clicked).all()
    served = outputs(head, LOGITS)
    np.testing.assert_allclose(served["purchase"], P["click"] * P["purchase"], rtol=1e-5)
    np.testing.assert_allclose(served["purchase|click"], P["purchase"], rtol=1e-5)


def test_tasks_that_do_not_follow_one_another_are_refused():
    with pytest.raises(ValueError, match="`head=naive_cvr` is for tasks that follow one another"):
        naive_cvr([Task("click"), Task("like")])

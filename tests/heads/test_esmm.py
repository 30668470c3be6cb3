import numpy as np
import pytest
from helpers.head_oracles import (
    CLICK_AND_PURCHASE,
    LABELS,
    LOGITS,
    P,
    cross_entropy,
    losses_and_gradients,
    nan,
    outputs,
)

from tfmtr.heads.esmm import esmm
from tfmtr.schema import Task


def test_both_losses_are_over_all_impressions():
    losses, gradients = losses_and_gradients(esmm(CLICK_AND_PURCHASE), LOGITS, LABELS)
    product = P["click"] * P["purchase"]
    assert losses["click"] == pytest.approx(cross_entropy(P["click"], LABELS["click"]).mean(), rel=1e-5)
    assert losses["purchase"] == pytest.approx(cross_entropy(product, LABELS["purchase"]).mean(), rel=1e-5)
    # d CE(p q) / d logit q = (p q - y) (1 - q) / (1 - p q): rows without a click teach the conversion too
    expected = (product - LABELS["purchase"]) * (1 - P["purchase"]) / (1 - product) / 4
    np.testing.assert_allclose(gradients["purchase"], expected, rtol=1e-4)
    assert (gradients["purchase"] != 0).all()


def test_the_conversion_has_no_loss_of_its_own():
    """A click that did not convert is explained by either factor: only the product counts."""
    head = esmm([Task("click", weight=0.0), Task("purchase", after="click")])
    swapped = {"click": LOGITS["purchase"], "purchase": LOGITS["click"]}
    values = [losses_and_gradients(head, logits, LABELS)[0]["purchase"] for logits in (LOGITS, swapped)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_chain_multiplies_on_and_regression_stands_beside():
    tasks = [Task("click"), Task("cart", after="click"), Task("paid", after="cart"), Task("watch", kind="regression")]
    logits = {"click": [1.0], "cart": [-1.0], "paid": [0.5], "watch": [7.0]}
    p = [1 / (1 + np.exp(-logits[name][0])) for name in ("click", "cart", "paid")]
    labels = {"click": [1.0], "cart": [1.0], "paid": [0.0], "watch": [5.0]}
    losses, _ = losses_and_gradients(esmm(tasks), logits, labels)
    assert losses == pytest.approx(
        {
            "click": -np.log(p[0]),
            "cart": -np.log(p[0] * p[1]),
            "paid": -np.log(1 - np.prod(p)),
            "watch": 2.0,
        },
        rel=1e-5,
    )
    assert outputs(esmm(tasks), logits)["watch"] == [7.0]


def test_an_unknown_conversion_after_a_click_is_masked_and_without_one_it_is_0():
    tasks = CLICK_AND_PURCHASE
    known = losses_and_gradients(esmm(tasks), LOGITS, LABELS)[0]["purchase"]
    without = {**LABELS, "purchase": [1.0, nan, 0.0, nan]}
    assert losses_and_gradients(esmm(tasks), LOGITS, without)[0]["purchase"] == pytest.approx(known)
    masked = {**LABELS, "purchase": [nan, 0.0, 0.0, 0.0]}
    product = (P["click"] * P["purchase"])[1:]
    expected = cross_entropy(product, 0.0).mean()
    assert losses_and_gradients(esmm(tasks), LOGITS, masked)[0]["purchase"] == pytest.approx(expected, rel=1e-5)


def test_tasks_that_do_not_follow_one_another_are_refused():
    with pytest.raises(ValueError, match="`head=esmm` is for tasks that follow one another"):
        esmm([Task("click"), Task("like")])

import numpy as np
import pytest
from helpers.head_oracles import cross_entropy, losses_and_gradients, outputs

from tfmtr.heads.esm2 import esm2
from tfmtr.heads.hm3 import hm3
from tfmtr.schema import Task

CLICK, CART, BUY = Task("click", mean=0.3), Task("cart", after="click"), Task("buy", after="click")
LOGITS = {"click": [0.3, -1.0], "cart": [0.5, -2.0], "buy": [1.0, 0.2], "buy_otherwise": [-3.0, -1.0]}
LABELS = {"click": [1.0, 1.0], "cart": [1.0, 0.0], "buy": [0.0, 1.0]}


def test_a_purchase_goes_through_the_action_or_around_it():
    y1, y2, y3, y4 = (1 / (1 + np.exp(-np.asarray(value))) for value in LOGITS.values())
    head = esm2([CLICK, CART, BUY])
    pcvr = y2 * y3 + (1 - y2) * y4
    expected = {"click": y1, "cart|click": y2, "cart": y1 * y2, "buy|click": pcvr, "buy": y1 * pcvr}
    served = outputs(head, LOGITS)
    assert sorted(served) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(served[name], value, rtol=1e-5, err_msg=name)
    losses, _ = losses_and_gradients(head, LOGITS, LABELS)
    expected = {name: cross_entropy(expected[name], LABELS[name]).mean() for name in LABELS}
    assert losses == pytest.approx(expected, rel=1e-5)


def test_actions_teach_the_purchase():
    """The effect: a cart without a purchase moves p(purchase | cart) but hardly p(purchase | otherwise)."""
    labels = {"click": [1.0], "cart": [1.0], "buy": [0.0]}
    logits = {"click": [3.0], "cart": [4.0], "buy": [0.0], "buy_otherwise": [0.0]}
    _, gradients = losses_and_gradients(esm2([CLICK, CART, BUY]), logits, labels)
    assert gradients["buy"][0] > 10 * gradients["buy_otherwise"][0] > 0


def test_a_purchase_without_the_action_is_no_contradiction():
    losses, _ = losses_and_gradients(esm2([CLICK, CART, BUY]), LOGITS, LABELS)
    other, _ = losses_and_gradients(esm2([CLICK, CART, BUY]), LOGITS, {**LABELS, "buy": [0.0, 0.0]})
    assert losses["buy"] != other["buy"]  # the second row has a click, no cart and a purchase: it counts


@pytest.mark.parametrize(
    "tasks",
    [[CLICK, BUY], [CLICK, CART, Task("buy", after="cart")], [CLICK, CART, BUY, Task("return", after="click")]],
)
def test_refuses_other_graphs(tasks):
    with pytest.raises(
        ValueError, match=r"`head=esm2` needs 2 tasks after one and the same click.*Received: \['.* after"
    ):
        esm2(tasks)


def test_hm3_needs_three_levels():
    with pytest.raises(ValueError, match="`head=hm3` needs 3 tasks after one and the same click"):
        hm3([CLICK, CART, BUY])

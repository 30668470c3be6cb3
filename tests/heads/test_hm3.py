import numpy as np
import pytest
from helpers.head_oracles import cross_entropy, losses_and_gradients, outputs

from tfmtr.heads.hm3 import hm3
from tfmtr.schema import Task

TASKS = [Task("click"), *(Task(name, after="click") for name in ("view", "cart", "buy")), Task("like")]
TOWERS = ("click", "view", "cart", "cart_otherwise", "buy", "buy_otherwise", "like")
LOGITS = dict(zip(TOWERS, np.random.default_rng(0).normal(size=(7, 3)), strict=True))
LABELS = {"click": [1, 1, 0], "view": [1, 0, 0], "cart": [1, 0, 0], "buy": [0, 1, 0], "like": [0, 1, 1]}


def test_micro_and_macro_levels_follow_the_equations():
    p = {name: 1 / (1 + np.exp(-value)) for name, value in LOGITS.items()}
    micro = p["view"]
    macro = micro * p["cart"] + (1 - micro) * p["cart_otherwise"]
    pcvr = macro * p["buy"] + (1 - macro) * p["buy_otherwise"]
    expected = {"view|click": micro, "cart|click": macro, "buy|click": pcvr, "click": p["click"], "like": p["like"]}
    expected |= {name: p["click"] * expected[f"{name}|click"] for name in ("view", "cart", "buy")}
    head = hm3(TASKS)
    assert tuple(sorted(head.towers())) == tuple(sorted(TOWERS))
    served = outputs(head, LOGITS)
    assert sorted(served) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(served[name], value, rtol=1e-5, err_msg=name)
    losses, _ = losses_and_gradients(head, LOGITS, LABELS)
    assert losses == pytest.approx({n: cross_entropy(expected[n], LABELS[n]).mean() for n in LABELS}, rel=1e-4)


def test_a_micro_behaviour_reaches_the_purchase_through_the_macro_one():
    """The effect: with likely ways upwards, a likelier micro behaviour makes the purchase likelier."""
    ways = {
        "click": [0.0],
        "cart": [3.0],
        "cart_otherwise": [-3.0],
        "buy": [2.0],
        "buy_otherwise": [-2.0],
        "like": [0.0],
    }
    low, high = (outputs(hm3(TASKS), {**ways, "view": [logit]})["buy|click"][0] for logit in (-2.0, 2.0))
    assert high > 2 * low


def test_refuses_other_graphs():
    with pytest.raises(ValueError, match="`head=hm3` needs 3 tasks after one and the same click"):
        hm3(TASKS[:3])

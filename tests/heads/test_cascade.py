"""What the heads for tasks that follow one another share."""

import numpy as np
import pytest
from helpers import head_oracles
from helpers.head_oracles import CLICK_AND_PURCHASE, LOGITS, P, nan

from tfmtr.heads._cascade import cascade_label, cascade_outputs, cascade_towers, check_cascade
from tfmtr.schema import Scenario, Schema, Task

CHAIN = [Task("paid", mean=0.01, after="cart"), Task("cart", mean=0.02, after="click"), Task("click", mean=0.1)]


def test_probabilities_multiply_along_a_chain_in_any_order_of_the_tasks():
    logits = {**{k: np.asarray(v, "float32")[:, None] for k, v in LOGITS.items()}}
    logits = {"click": logits["click"], "cart": logits["purchase"], "paid": logits["click"] - 1}
    p = {name: 1 / (1 + np.exp(-value)) for name, value in logits.items()}
    outputs = cascade_outputs(CHAIN, head_oracles.tensors(logits))
    assert sorted(outputs) == ["cart", "cart|click", "click", "paid", "paid|cart"]
    np.testing.assert_allclose(outputs["paid|cart"], p["paid"], rtol=1e-6)
    np.testing.assert_allclose(outputs["paid"], p["click"] * p["cart"] * p["paid"], rtol=1e-5)


def test_towers_start_at_the_conditional_mean():
    starts = {name: 1 / (1 + np.exp(-tower.start)) for name, tower in cascade_towers(CHAIN).items()}
    assert starts == pytest.approx({"click": 0.1, "cart": 0.2, "paid": 0.5})


def test_what_cannot_have_happened_has_the_label_0():
    labels = head_oracles.tensors(
        {"click": [0, 1, 1, nan, 1], "cart": [nan, 0, 1, 1, nan], "paid": [nan, nan, 1, 1, 1]}
    )
    np.testing.assert_array_equal(cascade_label(CHAIN[1], CHAIN, labels), [0, 0, 1, nan, nan])
    np.testing.assert_array_equal(cascade_label(CHAIN[0], CHAIN, labels), [0, 0, 1, nan, nan])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([Task("a"), Task("b")], r"`head=esmm` is for tasks that follow one another.*\['a', 'b'\], none after another"),
        ([Task("a"), Task("b", after="c")], "`after` of task 'b' must be one of .* Received: .*'c'"),
        ([Task("a", after="b"), Task("b", after="a")], "must not follow one another in a circle. Received: a after b"),
        ([Task("a", kind="regression"), Task("b", after="a")], "must be binary. Received: 'a' of kind 'regression'"),
    ],
)
def test_what_is_no_cascade(tasks, message):
    with pytest.raises(ValueError, match=message):
        check_cascade(tasks, "esmm")


def test_what_follows_what_is_kept_with_the_schema():
    schema = Schema([], CLICK_AND_PURCHASE, Scenario(["territory"], {}))
    assert Schema.from_json(schema.to_json()) == schema


def test_the_oracle_s_probabilities():
    assert P["click"][0] == pytest.approx(0.574, abs=1e-3)

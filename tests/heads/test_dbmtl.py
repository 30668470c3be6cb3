import keras
import numpy as np
import pytest
from helpers.head_oracles import cross_entropy, losses

from tfmtr.heads.dbmtl import dbmtl
from tfmtr.schema import Task

TASKS = [Task("buy"), Task("click"), Task("like")]
PARENTS = {"buy": ("click", "like"), "like": ("click",)}


def related(parents, q):
    inputs = {task.name: keras.Input((4,), name=task.name) for task in TASKS}
    model = keras.Model(inputs, dbmtl(TASKS, parents=parents).relate(inputs))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model, model.predict(q, verbose=0)


def test_a_task_reads_its_parents_towers_and_no_others():
    q = {task.name: np.random.default_rng(0).normal(size=(3, 4)).astype("float32") for task in TASKS}
    model, z = related(PARENTS, q)
    np.testing.assert_array_equal(z["click"], q["click"])

    def after(name, *parents):
        x = np.concatenate([q[name], *parents], axis=1)
        hidden, last = (model.get_layer(f"{name}_{part}").get_weights() for part in ("given_parents", "related"))
        return np.maximum(x @ hidden[0] + hidden[1], 0) @ last[0] + last[1]

    like = after("like", q["click"])
    np.testing.assert_allclose(z["like"], like, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(z["buy"], after("buy", q["click"], like), rtol=1e-4, atol=1e-4)
    moved = related(PARENTS, {**q, "buy": q["buy"] + 1})[1]
    np.testing.assert_array_equal(moved["like"], z["like"])  # a child does not speak to its parents


def test_losses_are_the_tasks_own():
    logits = {"buy": [0.3], "click": [-1.0], "like": [2.0]}
    labels = {"buy": [1.0], "click": [0.0], "like": [1.0]}
    expected = {k: cross_entropy(1 / (1 + np.exp(-np.asarray(v))), labels[k]).mean() for k, v in logits.items()}
    assert losses(dbmtl(TASKS, parents=PARENTS), logits, labels) == pytest.approx(expected, rel=1e-5)


def test_by_default_a_task_s_parent_is_the_one_it_follows():
    tasks = [Task("click"), Task("buy", after="click")]
    inputs = {task.name: keras.Input((4,)) for task in tasks}
    vectors = dbmtl(tasks).relate(inputs)
    assert vectors["click"] is inputs["click"]
    assert vectors["buy"] is not inputs["buy"]


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        (None, r"`head=dbmtl` needs a graph of tasks.*Received: \['buy', 'click', 'like'\], none with a parent"),
        ({"buy": ("clik",)}, r"`parents` must be one of .* Did you mean 'click'\?"),
        ({"buy": ("like",), "like": ("buy",)}, "`parents` must have no circle. Received: .*buy"),
    ],
)
def test_graphs_that_are_refused(parents, message):
    with pytest.raises(ValueError, match=message):
        dbmtl(TASKS, parents=parents)

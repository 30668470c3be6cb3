import numpy as np
import pytest
import tensorflow as tf
from helpers.head_oracles import LOGITS, P, cross_entropy, losses, losses_and_gradients, nan

from tfmtr import models
from tfmtr.heads.mt_fwfm import mt_fwfm
from tfmtr.heads.parallel import parallel
from tfmtr.schema import Feature, Scenario, Schema, Task

TYPES = [Task("click", column="converted"), Task("purchase", column="converted")]
CONVERTED = {"converted": [1.0, 0.0, 1.0, 0.0]}
TYPE = ["click", "purchase", "purchase", "click"]


def of_type():
    return {"training": {f"is_{task.name}": tf.constant([t == task.name for t in TYPE]) for task in TYPES}}


def test_a_row_trains_the_task_of_its_own_type():
    head = mt_fwfm(TYPES, conversion_type="type")
    found, gradients = losses_and_gradients(head, LOGITS, CONVERTED, **of_type())
    for task in TYPES:
        own = np.asarray([t == task.name for t in TYPE])
        expected = cross_entropy(P[task.name], CONVERTED["converted"])
        assert found[task.name] == pytest.approx(expected[own].mean(), rel=1e-5)
        expected = own * (P[task.name] - np.asarray(CONVERTED["converted"])) / own.sum()
        np.testing.assert_allclose(gradients[task.name], expected, rtol=1e-4, atol=1e-8)


def test_null_labels_say_the_same():
    tasks = [Task("click"), Task("purchase")]
    labels = {
        t.name: [y if kind == t.name else nan for y, kind in zip(CONVERTED["converted"], TYPE, strict=True)]
        for t in tasks
    }
    expected = losses(mt_fwfm(TYPES, conversion_type="type"), LOGITS, CONVERTED, **of_type())
    assert losses(mt_fwfm(tasks), LOGITS, labels) == pytest.approx(expected)
    assert losses(parallel(tasks), LOGITS, labels) == pytest.approx(expected)


def schema(*vocabulary):
    features = [Feature("user", "user", "id", ["a"]), Feature("type", "training", "id", vocabulary)]
    return Schema(features, TYPES, Scenario(["market"], {("all",): "all"}))


def test_the_type_is_read_by_its_name_in_the_vocabulary():
    def head(tasks):
        return mt_fwfm(tasks, conversion_type="type")

    model = models.ranking(schema("purchase", "other", "click"), head=head)
    x = {"user": [1, 1, 1], "type": [3, 1, 0], "scenario": [1, 1, 1]}
    found = model({name: np.asarray(values, "int32") for name, values in x.items()})["training"]
    assert np.asarray(found["is_click"]).tolist() == [True, False, False]
    assert np.asarray(found["is_purchase"]).tolist() == [False, True, False]
    assert set(model.predictor.input) == {"user", "scenario"}

    with pytest.raises(ValueError, match=r"must hold the tasks' names. .* lacks \['purchase'\]"):
        models.ranking(schema("click"), head=head)

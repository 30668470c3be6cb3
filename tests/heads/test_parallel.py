import numpy as np
import pytest
from keras import ops

from tfmtr.heads.parallel import parallel
from tfmtr.schema import Task

nan = float("nan")


def losses(tasks, logits, labels, **context):
    head = parallel(tasks)
    logits = {name: ops.array(values, "float32")[:, None] for name, values in logits.items()}
    labels = {name: ops.array(values, "float32") for name, values in labels.items()}
    result = head.losses(head.outputs(logits), logits, {}, labels, context)
    return {name: float(loss) for name, loss in result.items()}


def cross_entropy(logit, label):
    p = 1 / (1 + np.exp(-np.asarray(logit)))
    return -(label * np.log(p) + (1 - np.asarray(label)) * np.log(1 - p))


def test_binary_loss_is_the_mean_cross_entropy_over_observed_rows():
    result = losses([Task("click")], {"click": [0.3, -1.0, 2.0]}, {"click": [1.0, nan, 0.0]})
    expected = (cross_entropy(0.3, 1) + cross_entropy(2.0, 0)) / 2
    np.testing.assert_allclose(result["click"], expected, rtol=1e-6)


def test_regression_loss_and_task_weight():
    task = Task("watch", "seconds", kind="regression", weight=3.0)
    result = losses([task], {"watch": [1.0, 2.0]}, {"seconds": [2.0, 5.0]})
    np.testing.assert_allclose(result["watch"], 3.0 * 0.5 * (1.0 + 9.0) / 2)


def test_weights_per_row_and_per_task():
    tasks = [Task("click"), Task("like")]
    logits = {"click": [0.5, -0.5], "like": [1.0, 1.0]}
    labels = {"click": [1.0, 0.0], "like": [0.0, 1.0]}
    row = losses(tasks, logits, labels, sample_weight=ops.array([2.0, 0.0]))
    np.testing.assert_allclose(row["click"], 2 * cross_entropy(0.5, 1) / 2, rtol=1e-6)
    task = losses(tasks, logits, labels, sample_weight={"like": ops.array([0.0, 4.0])})
    np.testing.assert_allclose(task["click"], losses(tasks, logits, labels)["click"])
    np.testing.assert_allclose(task["like"], 4 * cross_entropy(1.0, 1) / 2, rtol=1e-6)


def test_a_sum_of_the_scenarios_means_gives_a_small_scenario_the_weight_of_a_large_one():
    tf = pytest.importorskip("tensorflow")
    head = parallel([Task("click", weight=2.0)], normalizer="groups", num_groups=3)
    logits = tf.Variable([[0.3], [-1.0], [2.0], [0.7], [0.5]])
    labels, scenario = tf.constant([1.0, nan, 0.0, 1.0, 1.0]), tf.constant([1, 1, 1, 2, 0])  # none of scenario 3
    with tf.GradientTape() as tape:
        outputs = head.outputs({"click": logits})
        loss = head.losses(outputs, {"click": logits}, {}, {"click": labels}, {"scenario": scenario})["click"]
    first = (cross_entropy(0.3, 1) + cross_entropy(2.0, 0)) / 2
    np.testing.assert_allclose(loss, 2 * (first + cross_entropy(0.7, 1) + cross_entropy(0.5, 1)), rtol=1e-6)
    p = 1 / (1 + np.exp(-logits.numpy()[:, 0]))
    expected = 2 * np.array([(p[0] - 1) / 2, 0, p[2] / 2, p[3] - 1, p[4] - 1])  # N_s is the scenario's own
    np.testing.assert_allclose(tape.gradient(loss, logits)[:, 0], expected, rtol=1e-5)


def test_weights_scale_the_scenarios_means():
    head = parallel([Task("click")], normalizer="groups", num_groups=2)
    logits = {"click": ops.array([[0.5], [-0.5], [1.0]])}
    context = {"scenario": ops.array([1, 1, 2]), "sample_weight": ops.array([2.0, 0.0, 3.0])}
    loss = head.losses({}, logits, {}, {"click": ops.array([1.0, 0.0, 0.0])}, context)["click"]
    np.testing.assert_allclose(loss, 2 * cross_entropy(0.5, 1) / 2 + 3 * cross_entropy(1.0, 0), rtol=1e-6)


@pytest.mark.parametrize("options", [{"normalizer": "groups"}, {"num_groups": 3}])
def test_the_number_of_groups_belongs_to_the_normalizer(options):
    with pytest.raises(ValueError, match=r'Give `num_groups`, .* with `normalizer="groups"` and only then. Received: '):
        parallel([Task("click")], **options)


def test_unknown_normalizer():
    with pytest.raises(ValueError, match=r"`normalizer` must be one of \['groups', 'rows'\]. Did you mean 'groups'?"):
        parallel([Task("click")], normalizer="group")


def test_outputs_are_probabilities_or_the_value_itself():
    head = parallel([Task("click"), Task("watch", kind="regression")])
    outputs = head.outputs({"click": ops.array([[0.0]]), "watch": ops.array([[7.0]])})
    assert float(outputs["click"][0, 0]) == 0.5
    assert float(outputs["watch"][0, 0]) == 7.0


@pytest.mark.parametrize("label", [0.0, 1.0, nan])
def test_extreme_logits_and_empty_tasks_stay_finite_in_loss_and_gradient(label):
    tf = pytest.importorskip("tensorflow")
    head = parallel([Task("click")])
    logits = tf.Variable([[1e4], [-1e4]])
    with tf.GradientTape() as tape:
        outputs = head.outputs({"click": logits})
        loss = head.losses(outputs, {"click": logits}, {}, {"click": tf.fill([2], label)}, {})["click"]
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, logits)).all()

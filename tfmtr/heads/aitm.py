"""What is known of one step of the chain is handed to the next one, as much of it as the next one wants."""

from collections.abc import Sequence

import keras
from keras import ops

from tfmtr.heads._cascade import cascade_label, check_cascade, followers
from tfmtr.heads._head import Context, Head, Tensors, observed_mean, task_losses, task_outputs, task_towers
from tfmtr.schema import Task


def aitm(tasks: Sequence[Task], *, calibrator_weight: float = 0.6) -> Head:
    """Transfers information along chains of any length, and keeps later steps no likelier than earlier ones.

    For a task t after task t - 1, with tower vectors `q` and the earlier one's `z` (the first of a chain has `z = q`):

        p_t = g_t(z_{t-1}),    z_t = w_p h1(p_t) + w_q h1(q_t),    w = softmax over u of <h2(u), h3(u)> / sqrt(d)
        P_t = sigmoid(logit(z_t)),    L = sum_t CE(P_t, label_t) + calibrator_weight sum_t mean(max(P_t - P_{t-1}, 0))

    `g`, `h1`, `h2` and `h3` are linear layers of the task's own. The last term is the behavioural expectation
    calibrator: nobody purchases without a click, so `P_t` should not exceed `P_{t-1}`.

    Reference: Xi et al., Modeling the Sequential Dependence among Audience Multi-step Conversions with Multi-task
    Learning in Targeted Display Advertising, KDD 2021, https://arxiv.org/abs/2105.08489, section 3, equations 4 to 10.
    The paper's `g` is a layer; ours is linear, so that a two-tower model's vectors are. In the authors' code
    (xidongbo/AITM, AITM_standard.py) `h1`, `h2` and `h3` are shared by all tasks and have no biases, and `g` in AITM.py
    is followed by ReLU.

    Args:
        tasks: The schema's tasks, one or more of them with `after`.
        calibrator_weight: Factor of the calibrator.

    Returns:
        A `Head` with one output a task, the unconditional probability.

    Raises:
        ValueError: If no task follows another, the tasks' `after` make no chains of binary tasks, or
            `calibrator_weight` is negative.
    """
    check_cascade(tasks, "aitm")
    if calibrator_weight < 0:
        raise ValueError(f"`calibrator_weight` must not be negative. Received: calibrator_weight={calibrator_weight}")

    def relate(vectors: Tensors) -> Tensors:
        related = dict(vectors)
        for task, before in followers(tasks):
            q, name = vectors[task.name], task.name
            p = keras.layers.Dense(q.shape[-1], name=f"{name}_transferred")(related[before.name])
            pair = ops.stack([p, q], axis=1)  # (batch, 2, width)
            value, key, query = (
                keras.layers.Dense(q.shape[-1], name=f"{name}_attention_{part}")(pair)
                for part in ("value", "key", "query")
            )
            scores = ops.sum(key * query, axis=-1, keepdims=True) / q.shape[-1] ** 0.5  # (batch, 2, 1)
            related[name] = ops.sum(ops.softmax(scores, axis=1) * value, axis=1)
        return related

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        labels = labels | {task.column: cascade_label(task, tasks, labels) for task in tasks}
        result = task_losses(tasks, logits, labels, context)
        for task, before in followers(tasks):
            excess = ops.relu(ops.sigmoid(logits[task.name]) - ops.sigmoid(logits[before.name]))
            result[f"{task.name}_calibrator"] = calibrator_weight * observed_mean(excess, ops.zeros_like(excess))
        return result

    return Head(lambda: task_towers(tasks), lambda logits: task_outputs(tasks, logits), losses, relate)

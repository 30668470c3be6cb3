"""Independent tasks: a weighted sum of losses."""

from keras import ops

from tfmtr.heads._head import Head, known, observed_mean


def parallel(tasks):
    """One tower a task, one loss a task, nothing between them.

    Binary tasks: `p = sigmoid(logit)` and binary cross-entropy; regression tasks: the logit itself and
    half the squared error. Each loss is the mean over the rows where the task's label was observed, times
    the task's weight (Zhao et al., Joint Modeling in Recommendations: A Survey, 2025, equation 4).

    Args:
        tasks: The schema's tasks.

    Returns:
        A `Head`.

    Example:
    >>> from tfmtr.schema import Task
    >>> head = parallel([Task("click")])
    >>> float(head.outputs({"click": ops.zeros((1, 1))})["click"][0, 0])
    0.5
    """

    def towers():
        return {task.name: True for task in tasks}

    def outputs(logits):
        return {
            task.name: ops.sigmoid(logits[task.name]) if task.kind == "binary" else logits[task.name]
            for task in tasks
        }

    def losses(outputs, logits, vectors, labels, context):
        result = {}
        for task in tasks:
            logit, label = logits[task.name][:, 0], labels[task.column]
            if task.kind == "binary":
                loss = ops.softplus(logit) - known(label) * logit  # cross-entropy, from the logit
            else:
                loss = 0.5 * ops.square(logit - known(label))
            weights = context.get("sample_weight")
            if isinstance(weights, dict):
                weights = weights.get(task.name)
            result[task.name] = task.weight * observed_mean(loss, label, weights)
        return result

    return Head(towers, outputs, losses)

"""A penalty for scores that go with popularity."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from tfmtr.checks import check_number
from tfmtr.debiasing._popularity import TITLE, check_has_binary, popularity_of
from tfmtr.heads._head import Context, Head, Tensors, TrainingGraph
from tfmtr.schema import Task


def score_correlation(tasks: Sequence[Task], head: Head, *, weight: float = 1.0) -> Head:
    """Adds the squared correlation of scores with popularity to the losses of any head.

        L_t = weight PCC(logit_t, m)^2    over the batch's rows of label 1

    with Pearson's coefficient and the title's popularity `m` among the training rows' positives: what users chose shall
    have scores that do not tell how popular it is.

    Reference: Zhu et al., Popularity-Opportunity Bias in Collaborative Filtering, WSDM 2021,
    https://doi.org/10.1145/3437963.3441820. The paper was not read; after stillpsy/popbias at 39a6f71, main_basic.py
    (`pearson`), which compares its own method with it.

    Args:
        tasks: The schema's tasks.
        head: The `Head` that gets a loss more for each binary task.
        weight: Weight of the penalty.

    Returns:
        A `Head` with the outputs of `head`.

    Raises:
        ValueError: If no task is binary, or `weight` is below 0.
    """
    check_has_binary("score_correlation", tasks)
    check_number("weight", weight, least=0)

    def training(graph: TrainingGraph) -> Tensors:
        return head.training(graph) | {"popularity": popularity_of(graph)}

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        result = dict(head.losses(outputs, logits, vectors, labels, context))
        for task in (task for task in tasks if task.kind == "binary"):
            is_positive = ops.cast(labels[task.column] == 1, "float32")
            coefficient = correlation(logits[task.name][:, 0], context["training"]["popularity"], is_positive)
            result[f"{task.name}_correlation"] = weight * task.weight * coefficient**2
        return result

    return head._replace(losses=losses, training=training, features=(*head.features, TITLE))


def correlation(first: KerasTensor, second: KerasTensor, mask: KerasTensor) -> KerasTensor:
    """Pearson's coefficient over the rows where `mask` is 1, a scalar; 0 where one of both does not vary.

    All arguments have shape `(batch,)`.
    """
    count = ops.maximum(ops.sum(mask), 1)
    first, second = (mask * (x - ops.sum(mask * x) / count) for x in (first, second))
    return ops.sum(first * second) / ops.sqrt(ops.sum(first**2) * ops.sum(second**2) + 1e-12)

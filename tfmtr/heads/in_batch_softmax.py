"""Retrieval as a choice among the titles of the batch."""

from collections.abc import Sequence
from typing import Literal

from keras import KerasTensor, ops

from tfmtr.checks import check_choice, check_number
from tfmtr.heads._head import (
    Context,
    Head,
    Tensors,
    Tower,
    TrainingGraph,
    number_of,
    observed_mean,
    row_weights,
    start,
    task_losses,
    task_outputs,
    training_feature,
    two_tower_only,
)
from tfmtr.layers._sizes import check_sizes
from tfmtr.layers.streaming_frequency import StreamingFrequency
from tfmtr.schema import Feature, Task

TITLE = Feature("title", "training", "string", width=2**31 - 1)  # a hash: no table is as wide


@two_tower_only
def in_batch_softmax(
    tasks: Sequence[Task],
    *,
    title: str = "title",
    frequency: str | None = "streaming",
    negatives: Literal["batch", "mixed"] = "mixed",
    num_hard_negatives: int | None = None,
    within: str | None = None,
    temperature: float = 1.0,
    power: float = 1.0,
) -> Head:
    """For each task, a row that has it must find its own title among those of the batch.

        s_ij = <q_i, v_j> / temperature - power log p_j
        L_t  = - 1/N sum_{i: label 1} log (e^{s_ii} / sum_{j in C_i} e^{s_ij})

    with the queries `q` of task t, the title vectors `v`, the probability `p_j` that title j is in a batch (without it
    popular titles, which are in most batches, would be pushed down), and N rows of label 1. `C_i` is i itself and the
    rows j that `negatives` and `within` allow, without other rows of the same title: those are hits, not negatives.

    Probabilities served are `sigmoid(<q, v>)`: their order is what was learnt, their size is not; see
    `tfmtr/calibration/`. Tasks of kind regression are trained as in `parallel`.

    Reference: Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, RecSys 2019,
    https://doi.org/10.1145/3298689.3346996, section 3 (loss) and 4, algorithm 2 (frequency). Mixed negatives: Yang et
    al., Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations, WWW 2020 companion, section
    3. The papers weigh a row by a reward; here that is `sample_weight`, and the label says whether the row counts.

    Args:
        tasks: The schema's tasks.
        title: Name of the feature of kind id or string that tells titles apart; by default the examples' title.
        frequency: `"streaming"` estimates `p` from the batches themselves; otherwise the name of a number feature of
            the role `"training"` that holds `log p`, or `None` for no correction.
        negatives: `"batch"`: titles of rows in which some task happened, drawn as often as they are popular; `"mixed"`:
            titles of all rows, those of sampled negatives among them.
        num_hard_negatives: Keeps only this many negatives with the highest scores a row; all by default.
        within: Name of a model input such as `"scenario"` or `"territory"`: negatives come from rows with its value.
        temperature: Positive float.
        power: Number from 0, how much of the correction is made; chosen here. With 1, as in the paper, popular titles
            are ahead as far as users choose them; the less, the less they are, and with 0, which is no correction,
            scores tell a user's choices from everybody's.

    Returns:
        A `Head` with one output a task, for two-tower models only.

    Raises:
        ValueError: If no task is binary, or an option is unknown or out of its range.
    """
    binary = [task for task in tasks if task.kind == "binary"]
    check_choice("negatives", negatives, ("batch", "mixed"))
    check_sizes(num_hard_negatives=1 if num_hard_negatives is None else num_hard_negatives)
    check_number("power", power, least=0)
    if not binary or not temperature > 0:
        raise ValueError(
            "`head=in_batch_softmax` needs a binary task and a positive `temperature`. Received: "
            f"{[f'{task.name} of kind {task.kind}' for task in tasks]}, temperature={temperature}"
        )

    def towers() -> dict[str, Tower]:
        # The softmax does not depend on a bias, so binary towers have none.
        return {task.name: Tower(None if task.kind == "binary" else start(task)) for task in tasks}

    def training(graph: TrainingGraph) -> Tensors:
        kinds = {feature.name: feature.kind for feature in graph.schema.features}
        check_choice("title", title, [name for name, kind in kinds.items() if kind in ("id", "string")])
        tensors = {"id": graph.inputs[title], "title": graph.title}
        tensors |= {f"query/{task.name}": graph.queries[task.name] for task in binary}
        if frequency == "streaming":
            tensors["log_p"] = StreamingFrequency(name="title_frequency")(tensors["id"])
        elif frequency is not None:
            names = [f.name for f in graph.schema.by_role("training") if f.kind == "number"]
            check_choice("frequency", frequency, ["streaming", *names])
            feature = training_feature(graph.schema, frequency, "in_batch_softmax")
            tensors["log_p"] = number_of(graph, feature)
        if within is not None:
            check_choice("within", within, [name for name, value in graph.inputs.items() if len(value.shape) == 1])
            tensors["within"] = graph.inputs[within]
        return tensors

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        given = context["training"]
        result = task_losses([task for task in tasks if task.kind != "binary"], logits, labels, context)
        candidates = ops.ones_like(given["id"], dtype="bool")
        if negatives == "batch":
            candidates = ops.any(ops.stack([labels[task.column] == 1 for task in binary]), axis=0)
        for task in binary:
            label = labels[task.column]
            scores = ops.matmul(given[f"query/{task.name}"], ops.transpose(given["title"]))
            scores = ops.cast(scores, "float32") / temperature
            if frequency is not None:
                scores = scores - power * ops.expand_dims(given["log_p"], 0)
            log_probability = own_log_softmax(
                scores, is_negative(given["id"], candidates, given.get("within")), num_hard_negatives
            )
            positive = ops.where(label == 1, label, float("nan"))
            result[task.name] = task.weight * observed_mean(-log_probability, positive, row_weights(task, context))
        return result

    features = (TITLE,) if title == TITLE.name else ()

    def outputs(logits: Tensors) -> Tensors:
        return task_outputs(tasks, logits)

    return Head(towers, outputs, losses, training=training, features=features)


def is_negative(ids: KerasTensor, candidates: KerasTensor, within: KerasTensor | None = None) -> KerasTensor:
    """Which titles j are negatives of row i, `(batch, batch)`: candidates of another title, from the same `within`."""
    mask = ops.logical_and(ops.expand_dims(ids, 1) != ops.expand_dims(ids, 0), ops.expand_dims(candidates, 0))
    if within is not None:
        mask = ops.logical_and(mask, ops.expand_dims(within, 1) == ops.expand_dims(within, 0))
    return mask


def own_log_softmax(scores: KerasTensor, mask: KerasTensor, num_hard_negatives: int | None = None) -> KerasTensor:
    """Log-probability of each row's own title among it and its negatives, shape `(batch,)`.

    Args:
        scores: Tensor of shape `(batch, batch)`, the rows' own titles on the diagonal.
        mask: Which are negatives; the probability of all others is exactly 0.
        num_hard_negatives: Number of negatives to keep, those with the highest scores.
    """
    own = ops.diagonal(scores)
    excluded = ops.where(mask, scores, float("-inf"))
    if num_hard_negatives is not None:
        size = ops.shape(excluded)[1]  # a tensor where batches differ in size
        k = min(num_hard_negatives, size) if isinstance(size, int) else ops.minimum(num_hard_negatives, size)
        excluded, _ = ops.top_k(excluded, k)
    return own - ops.logsumexp(ops.concatenate([ops.expand_dims(own, 1), excluded], axis=1), axis=1)

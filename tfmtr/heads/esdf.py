"""Conversion after click, some of which will only be seen later."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from tfmtr.heads._cascade import (
    cascade_label,
    cascade_outputs,
    cascade_probabilities,
    cascade_towers,
    check_cascade,
    followers,
    own_losses,
)
from tfmtr.heads._head import (
    Context,
    Head,
    Tensors,
    Tower,
    TrainingGraph,
    number_of,
    observed_mean,
    row_weights,
    training_feature,
)
from tfmtr.layers._sizes import check_sizes
from tfmtr.schema import Task

TINY = 1e-30


def esdf(tasks: Sequence[Task], *, elapsed: str = "elapsed", num_slots: int = 4, slot: float = 1.0) -> Head:
    """Learns the conversions of all impressions from a log that shows only those that have come so far.

    A conversion comes in one of `num_slots` slots of time, the last of which ends when conversions stop being counted.
    With the hazards `h_k = p(d in slot k | d not before)`, one training-only tower each, and a time t in slot k:

        S(t) = p(d > t) = prod_{j < k} (1 - h_j) (1 - h_k)^(t - k),    f(t) = - dS/dt
        seen at t:            p = pCTR pCVR f(t)
        not seen until t:     p = 1 - pCTR pCVR + pCTR pCVR S(t)
        L = CE(pCTR, click) - 1/N sum_i log p_i

    over all impressions. Where every slot has passed (S = 0) a row counts as in ESMM; no shape of the delay over the
    slots is assumed.

    Reference: Wang et al., Delayed Feedback Modeling for the Entire Space Conversion Rate Prediction, 2020,
    https://arxiv.org/abs/2011.11826, section 3. The paper maximises by EM; its M-step's gradient, with the posterior
    probability that a conversion is still to come as weights, is the gradient of this likelihood, so no second pass is
    needed. The paper's times are whole days; here the hazard is constant within a slot (in the last one what remains
    comes evenly), so that `f` over slot k sums to the paper's `h_k S(k)` and a slot that has half passed counts half.
    Impressions without a click are treated as the others: taking them for certain while clicks wait would bias pCVR
    downwards.

    Args:
        tasks: The schema's tasks, exactly one of them with `after`.
        elapsed: Name of a number feature of the role `"training"`, known for every row: the time from the impression to
            the conversion, or to the moment the log was read if none was seen.
        num_slots: Number of slots, at least 2.
        slot: Length of a slot in the units of `elapsed`.

    Returns:
        A `Head` with outputs such as `click`, `purchase|click` and `purchase`, the conversions in the end.

    Raises:
        ValueError: If not exactly one task follows another, a size is wrong, or (when a model is built) the schema has
            no number feature `elapsed` for training.
    """
    check_cascade(tasks, "esdf")
    check_sizes(num_slots=num_slots)
    pairs = followers(tasks)
    if len(pairs) != 1:
        raise ValueError(
            "`head=esdf` has one elapsed time, so exactly one task may follow another. Received: "
            f"{[f'{task.name} after {before.name}' for task, before in pairs]}"
        )
    if num_slots < 2 or not slot > 0:
        raise ValueError(
            f"`num_slots` must be at least 2 and `slot` positive. Received: num_slots={num_slots}, slot={slot}"
        )
    ((task, _),) = pairs
    hazards = [f"{task.name}_hazard_{k}" for k in range(num_slots - 1)]

    def towers() -> dict[str, Tower]:
        return cascade_towers(tasks) | {name: Tower(is_served=False) for name in hazards}

    def training(graph: TrainingGraph) -> Tensors:
        feature = training_feature(graph.schema, elapsed, "esdf")
        if feature.kind != "number":
            raise ValueError(f"`elapsed` must be a number feature. Received: {elapsed!r} of kind {feature.kind!r}")
        return {"slots": number_of(graph, feature) / slot}

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        result = own_losses(tasks, logits, labels, context)
        label = cascade_label(task, tasks, labels)
        time = ops.maximum(ops.cast(context["training"]["slots"], "float32"), 0.0)
        density, survival = delay([logits[name][:, 0] for name in hazards], time)
        p = cascade_probabilities(tasks, logits)[task.name]
        yes, no = p.yes[:, 0], p.no[:, 0]
        unseen = ops.where(time < num_slots, ops.logaddexp(no, yes + survival), no)
        loss = -ops.where(label == 1, yes + density, unseen)
        result[task.name] = task.weight * observed_mean(loss, label, row_weights(task, context))
        return result

    return Head(towers, lambda logits: cascade_outputs(tasks, logits), losses, training=training)


def delay(logits: list[KerasTensor], time: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """`log f(t)` and `log S(t)`, each of shape `(batch,)`.

    Args:
        logits: Logits of the hazards of all slots but the last, each of shape `(batch,)`.
        time: Time in slots, shape `(batch,)`. After the last slot it is taken for its end.
    """
    survival = ops.zeros_like(time)
    density = survival
    for k, logit in enumerate(logits):
        rate = ops.softplus(logit)  # (1 - h)^x = exp(-rate x)
        survival = survival - rate * ops.clip(time - k, 0.0, 1.0)
        inside = ops.logical_and(time >= k, time < k + 1)
        density = ops.where(inside, survival + ops.log(ops.maximum(rate, TINY)), density)
    last = len(logits)
    density = ops.where(time >= last, survival, density)
    return density, survival + ops.log(ops.maximum(1.0 - ops.clip(time - last, 0.0, 1.0), TINY))

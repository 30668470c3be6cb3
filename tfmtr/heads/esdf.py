"""Conversion after click, some of which will only be seen later."""

from keras import ops

from tfmtr.heads._cascade import (
    cascade_label,
    cascade_outputs,
    cascade_probabilities,
    cascade_towers,
    check_cascade,
    followers,
    own_losses,
)
from tfmtr.heads._head import Head, Tower, observed_mean, row_weights, training_feature
from tfmtr.layers._sizes import check_sizes


def esdf(tasks, *, elapsed="elapsed", num_slots=4, slot=1.0):
    """Learns the conversions of all impressions from a log that shows only those that have come so far.

    A conversion comes in one of `num_slots` slots of time, the last of which ends when conversions stop being counted.
    With the hazard `h_k = p(d = k | d >= k)` of slot k, one training-only tower each (the last slot's is 1), and
    `S(n) = prod_{k < n} (1 - h_k)`:

        seen, in slot k:               p = pCTR pCVR h_k S(k)
        not seen in n whole slots:     p = 1 - pCTR pCVR + pCTR pCVR S(n)
        L = CE(pCTR, click) - 1/N sum_i log p_i

    over all impressions. Where every slot has passed (S = 0) a row counts as in ESMM; no shape of the delay is
    assumed.

    Reference: Wang et al., Delayed Feedback Modeling for the Entire Space Conversion Rate Prediction, 2020,
    https://arxiv.org/abs/2011.11826, section 3. The paper maximises by EM; its M-step's gradient, with the posterior
    probability that a conversion is still to come as weights, is the gradient of this likelihood, so no second pass is
    needed. Chosen here: a slot that has not passed whole says nothing; impressions without a click are treated as the
    others, because taking them for certain while clicks wait would bias pCVR downwards.

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

    def towers():
        return cascade_towers(tasks) | {name: Tower(is_served=False) for name in hazards}

    def training(graph):
        feature = training_feature(graph.schema, elapsed, "esdf")
        if feature.kind != "number":
            raise ValueError(f"`elapsed` must be a number feature. Received: {elapsed!r} of kind {feature.kind!r}")
        time = graph.inputs[elapsed] * feature.std + feature.mean  # inputs are normalised
        return {"slots": ops.floor(time / slot)}

    def losses(outputs, logits, vectors, labels, context):
        result = own_losses(tasks, logits, labels, context)
        label = cascade_label(task, tasks, labels)
        slots = ops.clip(ops.cast(context["training"]["slots"], "float32"), 0, num_slots)
        survival, hazard = ops.zeros_like(slots), ops.zeros_like(slots)  # log S(slots), log h of the row's slot
        for k, name in enumerate(hazards):
            logit = logits[name][:, 0]
            survival = survival + ops.where(slots > k, ops.log_sigmoid(-logit), 0.0)
            hazard = ops.where(slots == k, ops.log_sigmoid(logit), hazard)
        p = cascade_probabilities(tasks, logits)[task.name]
        yes, no = p.yes[:, 0], p.no[:, 0]
        unseen = ops.where(slots < num_slots, ops.logaddexp(no, yes + survival), no)
        loss = -ops.where(label == 1, yes + hazard + survival, unseen)
        result[task.name] = task.weight * observed_mean(loss, label, row_weights(task, context))
        return result

    return Head(towers, lambda logits: cascade_outputs(tasks, logits), losses, training=training)

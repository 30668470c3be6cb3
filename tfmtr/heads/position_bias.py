"""What a click owes to the place where the title was shown is learnt beside the model and left out when serving."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfmtr import components
from tfmtr.checks import check_choice
from tfmtr.encoders.embed import embed
from tfmtr.heads._head import Context, Head, Tensors, TrainingGraph, training_feature
from tfmtr.schema import Task


def position_bias(
    tasks: Sequence[Task],
    *,
    head: Any = "parallel",
    features: Sequence[str] = ("position",),
    biased: Sequence[str] | None = None,
    drop_rate: float = 0.1,
    units: Sequence[int] = (16,),
) -> Head:
    """Adds a shallow side tower of the position to the logits of another head, in training only.

        logit_t in the losses = logit_t + keep s_t(position),    s_t(position) = w_t ReLU(V position + c)

    `keep` is 0 for a share `drop_rate` of the training rows and for unknown positions, so that the logit without the
    term is trained too: it is what the served graph computes, as for a position that is not known.

    Reference: Zhao et al., Recommending What Video to Watch Next: A Multitask Ranking System, RecSys 2019,
    https://doi.org/10.1145/3298689.3346997, section 4.4. Left open there and chosen here: a dropped position has the
    term 0 instead of a learnt one, which keeps the served probabilities calibrated on the dropped rows.

    Args:
        tasks: The schema's tasks.
        head: The head whose logits are corrected: its name, or a function like those in `tfmtr/heads/`.
        features: Names of features of the role `"training"`, such as the position and the device it was shown on. Of
            kind `"id"`, a value outside the vocabulary is unknown.
        biased: Towers that get a term; by default the binary tasks that follow no other, since what happens after a
            click no longer depends on where the title was.
        drop_rate: Share of training rows without the term, in [0, 1).
        units: Widths of the side tower's hidden layers.

    Returns:
        A `Head` with the outputs of `head`.

    Raises:
        ValueError: If `features` or `biased` is empty, a name in `biased` is no tower of the head's, `drop_rate` is not
            in [0, 1), or (when a model is built) the schema has no such feature.
    """
    base = components.find("heads", head)(tasks)
    if biased is None:
        biased = tuple(task.name for task in tasks if task.kind == "binary" and task.after is None)
    for tower in biased:
        check_choice("biased", tower, base.towers())
    if not biased or not features:
        raise ValueError(
            "`head=position_bias` needs a feature and a tower to correct, by default the binary tasks that follow no "
            f"other. Received: features={features}, biased={biased}, tasks {[task.name for task in tasks]}"
        )
    if not 0.0 <= drop_rate < 1.0:
        raise ValueError(f"`drop_rate` must be in [0, 1). Received: drop_rate={drop_rate}")

    def training(graph: TrainingGraph) -> Tensors:
        used = [training_feature(graph.schema, name, "position_bias") for name in features]
        x = embed(graph.inputs, used, embedding_dim=8, name="position_bias")
        for i, width in enumerate(units):
            x = keras.layers.Dense(width, activation="relu", name=f"position_bias_dense_{i}")(x)
        known = [ops.not_equal(graph.inputs[f.name], 0) for f in used if f.kind == "id"]
        terms = {}
        for tower in biased:
            term = keras.layers.Dense(1, use_bias=False, name=f"{tower}_position_bias", dtype="float32")(x)
            for is_known in known:
                term = term * ops.expand_dims(ops.cast(is_known, term.dtype), -1)
            terms[tower] = term
        # Dropout scales what it keeps, so it is asked for the rows only: 0, or something positive.
        kept = keras.layers.Dropout(drop_rate, name="position_bias_kept")(ops.ones_like(terms[biased[0]]))
        terms = {tower: term * ops.cast(kept > 0, term.dtype) for tower, term in terms.items()}
        corrected = graph._replace(logits=corrected_logits(graph.logits, terms))
        return base.training(corrected) | {f"{tower}_position_bias": term for tower, term in terms.items()}

    def corrected_logits(logits: Tensors, terms: Tensors) -> Tensors:
        return logits | {tower: logits[tower] + term for tower, term in terms.items()}

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        terms = {tower: context["training"][f"{tower}_position_bias"] for tower in biased}
        logits = corrected_logits(logits, terms)
        return base.losses(base.outputs(logits), logits, vectors, labels, context)

    return base._replace(losses=losses, training=training)

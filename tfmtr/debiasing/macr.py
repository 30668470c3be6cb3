"""A counterfactual: what a title's popularity and a user's activity alone would give is taken off."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from tfmtr.checks import check_number
from tfmtr.debiasing._popularity import check_binary
from tfmtr.heads import two_tower_only
from tfmtr.heads._head import Context, Head, Pair, Tensors, Tower, observed_mean, row_loss, row_weights
from tfmtr.schema import Task


@two_tower_only
def macr(
    tasks: Sequence[Task], head: Head, *, c: float = 1.0, title_weight: float = 1e-3, user_weight: float = 1e-3
) -> Head:
    """Learns a title's and a user's part of a click beside their match, and serves the match without them.

        L = CE(y_k sigmoid(y_i) sigmoid(y_u)) + title_weight CE(y_i) + user_weight CE(y_u),
        y_k = <q, v>,    y_i = <w, v>,    y_u = <w_u, q>,    served:  (y_k - c) sigmoid(y_i) sigmoid(y_u)

    What is served is one dot product, of the query `sigmoid(y_u) [q, -c]` with the title vector `sigmoid(y_i) [v, 1]`:
    vectors are wider by one, and one index serves all tasks. `y_i` is common to the tasks, as the title vector is.

    Reference: Wei et al., Model-Agnostic Counterfactual Reasoning for Eliminating Popularity Bias in Recommender
    System, KDD 2021, https://arxiv.org/abs/2010.15363, as in the authors' code, weitianxin/MACR at b3b7bf1,
    macr_mf/model.py, `create_bce_loss_two_brach_both` and `rubi_ratings_both`; weights are those of its README for
    ML10M, whose `c` is 30: scores have another size there.

    Args:
        tasks: The schema's tasks, all binary.
        head: The head `parallel`, whose losses these are for the product.
        c: What is taken off the match; 0 leaves the order as it was learnt. Choose it on validation users.
        title_weight: Weight of the loss of `y_i`, the paper's alpha.
        user_weight: Weight of the loss of `y_u`, the paper's beta.

    Returns:
        A `Head` with the outputs of `head`, for two-tower models only. Probabilities served are too small with `c > 0`:
        their order is what was learnt; see `tfmtr/calibration/`.

    Raises:
        ValueError: If a task is not binary, or an option is out of its range.
    """
    check_binary("macr", tasks)
    for name, value in (("c", c), ("title_weight", title_weight), ("user_weight", user_weight)):
        check_number(name, value, least=0)

    def pair(queries: Tensors, title: KerasTensor) -> Pair:
        def module(name: str, x: KerasTensor) -> KerasTensor:
            return keras.layers.Dense(1, use_bias=False, dtype="float32", name=f"macr_{name}")(x)

        y_i, served, extra = module("of_title", title), {}, {}
        for tower, query in queries.items():
            y_u, y_k = module(tower, query), ops.sum(query * title, axis=-1, keepdims=True)
            extra[f"{tower}_match"], extra[f"{tower}_user"] = y_k * ops.sigmoid(y_i) * ops.sigmoid(y_u), y_u
            served[tower] = ops.sigmoid(y_u) * ops.concatenate([query, -c * ops.ones_like(y_u)], axis=-1)
        wider = ops.sigmoid(y_i) * ops.concatenate([title, ops.ones_like(y_i)], axis=-1)
        return Pair(served, wider, extra | {"title": y_i})  # pyright: ignore[reportArgumentType]

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        given, result = context["training"], {}
        for task in tasks:
            label = labels[task.column]
            parts = {f"{task.name}_match": 1.0, "title": title_weight, f"{task.name}_user": user_weight}
            loss = sum(weight * row_loss(task, given[name][:, 0], label) for name, weight in parts.items())
            result[task.name] = task.weight * observed_mean(loss, label, row_weights(task, context))  # pyright: ignore[reportArgumentType]
        return result

    return head._replace(towers=lambda: {task.name: Tower(None) for task in tasks}, losses=losses, pair=pair)

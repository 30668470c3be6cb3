"""One half of the vectors is for interest, the other for conformity, which popular titles are chosen by."""

from collections.abc import Sequence
from typing import Literal

from keras import KerasTensor, ops

from tfmtr.checks import check_choice, check_number
from tfmtr.debiasing._popularity import TITLE, check_binary, pairwise_head, popularity_of
from tfmtr.heads import two_tower_only
from tfmtr.heads._head import Head, Pair, Tensors, TrainingGraph
from tfmtr.schema import Task


@two_tower_only
def dice(
    tasks: Sequence[Task],
    head: Head,
    *,
    served: Literal["interest", "both"] = "interest",
    interest_weight: float = 0.1,
    conformity_weight: float = 0.1,
    discrepancy_weight: float = 0.01,
    num_negatives: int = 4,
) -> Head:
    """Learns interest and conformity apart, from what a title's popularity says about why it was chosen.

        L = l(s > s') + conformity_weight [O l(c' > c) + (1 - O) l(c > c')] + interest_weight O l(s_int > s_int')
            - discrepancy_weight mean |v_int - v_con|,        s = s_int + c,    l(a > b) = - log sigmoid(a - b)

    for a positive title and a title `'` in which nothing happened, with O = 1 if that is the more popular one: then the
    choice was out of interest, and in spite of conformity. The first half of the towers' vectors is for interest, the
    second for conformity.

    Reference: Zheng et al., Disentangling User Interest and Conformity for Recommendation with Causal Embedding, WWW
    2021, https://arxiv.org/abs/2006.11011, as in the authors' code, tsinghua-fib-lab/DICE at 591b883, src/model.py;
    weights are those of src/app.py. The code serves both halves, `served="both"`; for lists that follow interest
    `"interest"` is the default here. Left open and chosen here: negatives are titles of other rows of the batch,
    without the code's margin in popularity; weights do not decay; of the code's
    three discrepancies this is L1, over the titles and queries of the rows.

    Args:
        tasks: The schema's tasks, all binary.
        head: The head `parallel`, whose losses these replace.
        served: `"interest"`: the served vectors are the first halves; `"both"`: the whole.
        interest_weight: Weight of the loss of interest.
        conformity_weight: Weight of the loss of conformity.
        discrepancy_weight: Weight of the distance between the halves.
        num_negatives: Titles that a positive one is compared with.

    Returns:
        A `Head` with one output a task, for two-tower models only. Probabilities served are the sigmoid of the score:
        their order is what was learnt, their size is not; see `tfmtr/calibration/`.

    Raises:
        ValueError: If a task is not binary, an option is out of its range, or the vectors have an odd width.
    """
    check_binary("dice", tasks)
    check_choice("served", served, ("interest", "both"))
    for name, value in (
        ("interest_weight", interest_weight),
        ("conformity_weight", conformity_weight),
        ("discrepancy_weight", discrepancy_weight),
    ):
        check_number(name, value, least=0)

    def pair(queries: Tensors, title: KerasTensor) -> Pair:
        if title.shape[-1] % 2:
            raise ValueError(
                "`debias=dice` parts vectors in two halves, so the last of `units` must be even. Received: "
                f"{title.shape[-1]}"
            )
        whole = {f"query/{tower}": query for tower, query in queries.items()} | {"title": title}
        if served == "both":
            return Pair(queries, title, whole)
        return Pair({tower: _halves(query)[0] for tower, query in queries.items()}, _halves(title)[0], whole)

    def training(graph: TrainingGraph) -> Tensors:
        return {"id": graph.inputs[TITLE.name], "popularity": popularity_of(graph)}

    def loss(rows: Tensors, others: Tensors, task: str) -> KerasTensor:
        query = rows[f"query/{task}"]
        interest, conformity = _scores(query, rows["title"])
        other_interest, other_conformity = _scores(query, others["title"])
        is_interest = ops.cast(others["popularity"] > rows["popularity"], interest.dtype)
        of_interest = is_interest * ops.softplus(other_interest - interest)
        of_conformity = is_interest * ops.softplus(conformity - other_conformity)
        of_conformity = of_conformity + (1 - is_interest) * ops.softplus(other_conformity - conformity)
        of_both = ops.softplus(other_interest + other_conformity - interest - conformity)
        apart = _distance(rows["title"]) + _distance(query)
        return (
            of_both
            + interest_weight * of_interest
            + conformity_weight * of_conformity
            - discrepancy_weight * apart
        )  # fmt: skip

    return pairwise_head(tasks, loss, num_negatives, training)._replace(pair=pair)


def _halves(vectors: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    half = vectors.shape[-1] // 2
    return vectors[:, :half], vectors[:, half:]  # pyright: ignore[reportReturnType]


def _scores(query: KerasTensor, title: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """Scores of interest and of conformity, each of shape `(batch,)`."""
    first, second = (ops.sum(q * v, axis=-1) for q, v in zip(_halves(query), _halves(title), strict=True))
    return first, second


def _distance(vectors: KerasTensor) -> KerasTensor:
    interest, conformity = _halves(vectors)
    return ops.mean(ops.abs(interest - conformity), axis=-1)

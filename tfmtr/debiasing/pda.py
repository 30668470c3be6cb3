"""Popularity is a factor of the probability in training, which serving leaves out."""

from collections.abc import Sequence

from keras import KerasTensor, ops

from tfmtr.checks import check_number
from tfmtr.debiasing._popularity import TITLE, check_binary, pairwise_head, popularity_of
from tfmtr.heads import two_tower_only
from tfmtr.heads._head import Head, Tensors, TrainingGraph
from tfmtr.schema import Task


@two_tower_only
def pda(tasks: Sequence[Task], head: Head, *, power: float = 0.1, num_negatives: int = 4) -> Head:
    """Learns the match of user and title beside the title's popularity, and serves the match alone.

        P(u, i) = (ELU(f_ui) + 1) m_i^power,    L = - mean log sigmoid(P(u, i) - P(u, j)),    f_ui = <q_u, v_i>

    with a positive title i, titles j in which nothing happened, and the popularity `m` among the training rows'
    positives. Lists are ordered by `f`, which orders titles as `ELU(f) + 1` does: one dot product and one index. This
    is the paper's PD, for which the effect of popularity is taken out. Its other form, which puts a popularity that is
    wished for or foreseen back in, would have a factor of the title that no dot product has, and is not built.

    Reference: Zhang et al., Causal Intervention for Leveraging Popularity Bias in Recommendation, SIGIR 2021,
    https://arxiv.org/abs/2105.06067, as in the authors' code, zyang1580/PDA at e8f1776, MF/model_api.py. Left open and
    chosen here: negatives are titles of other rows of the batch; popularity is (n + 1) / (max n + 1) of the training
    rows as a whole, and of a later window's in its turn, where the code has the least popular title at 0.

    Args:
        tasks: The schema's tasks, all binary.
        head: The head `parallel`, whose losses these replace.
        power: From 0, which leaves popularity in the match.
        num_negatives: Titles that a positive one is compared with.

    Returns:
        A `Head` with one output a task, for two-tower models only. Probabilities served are `sigmoid(f)`: their order
        is what was learnt, their size is not; see `tfmtr/calibration/`.

    Raises:
        ValueError: If a task is not binary, or an option is out of its range.
    """
    check_binary("pda", tasks)
    check_number("power", power, least=0)

    def training(graph: TrainingGraph) -> Tensors:
        tensors = {"id": graph.inputs[TITLE.name], "title": graph.title, "factor": popularity_of(graph) ** power}
        return tensors | {f"query/{task.name}": graph.queries[task.name] for task in tasks}  # pyright: ignore[reportReturnType]

    def probability(rows: Tensors, task: str) -> KerasTensor:
        match = ops.sum(rows[f"query/{task}"] * rows["title"], axis=-1)
        return (ops.elu(match) + 1) * rows["factor"]  # pyright: ignore[reportReturnType]

    def loss(rows: Tensors, others: Tensors, task: str) -> KerasTensor:
        return ops.softplus(probability(others, task) - probability(rows, task))

    return pairwise_head(tasks, loss, num_negatives, training)

"""Negatives count the more, the more popular their title is."""

from collections.abc import Sequence

from tfmtr.checks import check_number
from tfmtr.debiasing._popularity import check_has_binary, weighed
from tfmtr.heads._head import Head
from tfmtr.schema import Task


def popular_negatives(tasks: Sequence[Task], head: Head, *, power: float = 0.75) -> Head:
    """Weighs rows of label 0 by their title's popularity, in the losses of any head.

        weight_j = m_j^power / mean of m^power over the batch's rows of label 0

    with the title's popularity `m` among the training rows' positives: as if negatives, which are sampled from the
    catalogue, were drawn as often. With `power` 1 a title has negatives as it has positives, and scores tell what sets
    a user's choices apart. Rows of other labels count as before, and negatives do as a whole.

    After the noise distribution of word2vec, counts to the power 3/4 (Mikolov et al., NIPS 2013,
    https://arxiv.org/abs/1310.4546, which was not read); weights in the place of draws are chosen here, so that
    `tfmtr prepare` samples negatives alike for all.

    Args:
        tasks: The schema's tasks.
        head: The `Head` whose losses are weighed.
        power: From 0, which weighs all alike.

    Returns:
        A `Head` with the outputs of `head`.

    Raises:
        ValueError: If no task is binary, or `power` is below 0.
    """
    check_has_binary("popular_negatives", tasks)
    check_number("power", power, least=0)
    return weighed(tasks, head, 0, lambda m: m**power, is_normalized=True)

"""Positives count by the inverse of their title's propensity to be seen."""

from collections.abc import Sequence

from keras import ops

from tfmtr.checks import check_boolean, check_number
from tfmtr.debiasing._popularity import check_has_binary, weighed
from tfmtr.heads._head import Head
from tfmtr.schema import Task


def ips(
    tasks: Sequence[Task], head: Head, *, power: float = 0.5, clip: float = 20.0, is_normalized: bool = True
) -> Head:
    """Weighs rows of label 1 by the inverse propensity of their title, in the losses of any head.

        weight_i = min(clip, 1 / theta_i),    theta_i = m_i^power

    with the title's popularity `m` among the training rows' positives, 1 for the most popular one. Rows of other labels
    count as before.

    Reference: Saito et al., Unbiased Recommender Learning from Missing-Not-At-Random Implicit Feedback, WSDM 2020,
    https://arxiv.org/abs/1909.03601; its propensity is that of the authors' code, `pscore` in
    usaito/unbiased-implicit-rec-real at ff1435e, src/data/preprocessor.py, which has `power` 1/2. Left open and chosen
    here: popularity is (n + 1) / (max n + 1); a label is weighed instead of being replaced by label / theta, whose loss
    is unbounded below; weights are clipped above, and divided by their mean over a batch's positives, so that
    positives count as much as before as a whole.

    Args:
        tasks: The schema's tasks.
        head: The `Head` whose losses are weighed.
        power: From 0, which weighs nothing.
        clip: Largest weight, from 1 up.
        is_normalized: Whether weights have the mean 1 over the positives of a batch.

    Returns:
        A `Head` with the outputs of `head`.

    Raises:
        ValueError: If no task is binary, or an option is out of its range.
    """
    check_has_binary("ips", tasks)
    check_number("power", power, least=0)
    check_number("clip", clip, least=1)
    check_boolean("is_normalized", is_normalized)
    return weighed(tasks, head, 1, lambda m: ops.minimum(clip, m**-power), is_normalized=is_normalized)

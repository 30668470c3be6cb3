"""Conversion with inverse propensities and an imputed error: right if either is."""

from collections.abc import Sequence

from tfmtr.heads._cascade import (
    cascade_outputs,
    cascade_probabilities,
    cascade_towers,
    check_cascade,
    followers,
    own_losses,
)
from tfmtr.heads._counterfactual import check_clip, doubly_robust_losses, imputation_name
from tfmtr.heads._head import Context, Head, Tensors, Tower
from tfmtr.schema import Task


def multi_dr(tasks: Sequence[Task], *, clip: float = 0.02) -> Head:
    """Adds to inverse propensity weighting a tower that imputes the error of the rows that were not clicked.

        L_DR  = 1/N sum_i (e_i + o_i (CE_i - e_i) / max(sg(pCTR_i), clip)),    CE_i = CE(pCVR_i, conversion_i)
        L_imp = 1/N sum_i o_i (CE_i - e_i)^2 / max(sg(pCTR_i), clip)
        L = CE(pCTR, click) + L_DR + L_imp

    The estimate has no bias if the propensities `pCTR` or the imputed errors `e` are right, and less variance than
    inverse propensities alone. The imputation tower exists in training only.

    Reference: Zhang et al., Large-scale Causal Approaches to Debiasing Post-click Conversion Rate Estimation with
    Multi-task Learning, WWW 2020, https://arxiv.org/abs/1910.09337, section 4.2. Left open there and chosen here:
    `e = softplus(logit)`, since an error is not negative; `L_DR` trains the imputation tower too (it is through what
    the towers share that `e` matters for pCVR); `L_imp` fits `e` to the error and leaves pCVR alone.

    Args:
        tasks: The schema's tasks, one or more of them with `after`.
        clip: Smallest propensity, in (0, 1].

    Returns:
        A `Head` with outputs such as `click`, `purchase|click` and `purchase`.

    Raises:
        ValueError: If no task follows another, the tasks' `after` make no chains of binary tasks, or `clip` is not
            in (0, 1].
    """
    check_cascade(tasks, "multi_dr")
    check_clip(clip)

    def towers() -> dict[str, Tower]:
        imputations = {imputation_name(task): Tower(is_served=False) for task, _ in followers(tasks)}
        return cascade_towers(tasks) | imputations

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        probabilities = cascade_probabilities(tasks, logits)
        result = own_losses(tasks, logits, labels, context)
        for task, before in followers(tasks):
            imputation = imputation_name(task)
            result[task.name], result[imputation] = doubly_robust_losses(
                *(task, before, tasks, logits[task.name][:, 0], logits[imputation][:, 0]),
                *(probabilities[before.name], labels, context, clip),
            )
        return result

    return Head(towers, lambda logits: cascade_outputs(tasks, logits), losses)

"""Conversion with a counterfactual risk beside the risk over the entire space."""

from collections.abc import Sequence
from typing import Literal

from tfmtr.checks import check_choice
from tfmtr.heads._cascade import (
    cascade_outputs,
    cascade_probabilities,
    cascade_towers,
    check_cascade,
    entire_space_loss,
    followers,
    own_losses,
)
from tfmtr.heads._counterfactual import check_clip, doubly_robust_losses, imputation_name, inverse_propensity_loss
from tfmtr.heads._head import Context, Head, Tensors, Tower
from tfmtr.schema import Task


def escm2(
    tasks: Sequence[Task],
    *,
    regularizer: Literal["ipw", "dr"] = "ipw",
    counterfactual_weight: float = 0.1,
    global_weight: float = 1.0,
    clip: float = 0.02,
) -> Head:
    """Keeps ESMM's loss of pCTCVR and adds one that makes pCVR itself right over all impressions.

        L = CE(pCTR, click) + counterfactual_weight L_CVR + global_weight CE(pCTR pCVR, click conversion)

    with `L_CVR` the inverse propensity weighted (`"ipw"`) or doubly robust (`"dr"`) loss of pCVR, see `multi_ipw` and
    `multi_dr`. ESMM alone only sees the product: its pCVR is biased (upwards, as clicks make both factors likely),
    and it can explain a missing conversion by either factor.

    Reference: Wang et al., ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate
    Estimation, SIGIR 2022, https://arxiv.org/abs/2204.05125, section 3.4. The two weights are the paper's lambda_c
    and lambda_g; their defaults are choices of ours.

    Args:
        tasks: The schema's tasks, one or more of them with `after`.
        regularizer: `"ipw"` or `"dr"`.
        counterfactual_weight: Factor of the counterfactual risk.
        global_weight: Factor of the risk of pCTCVR.
        clip: Smallest propensity, in (0, 1].

    Returns:
        A `Head` with outputs such as `click`, `purchase|click` and `purchase`.

    Raises:
        ValueError: If no task follows another, the tasks' `after` make no chains of binary tasks, `regularizer` is
            unknown, a weight is negative, or `clip` is not in (0, 1].
    """
    check_cascade(tasks, "escm2")
    check_choice("regularizer", regularizer, ("ipw", "dr"))
    check_clip(clip)
    for argument, value in (("counterfactual_weight", counterfactual_weight), ("global_weight", global_weight)):
        if value < 0:
            raise ValueError(f"`{argument}` must not be negative. Received: {argument}={value}")

    def towers() -> dict[str, Tower]:
        names = [imputation_name(task) for task, _ in followers(tasks)] if regularizer == "dr" else []
        return cascade_towers(tasks) | dict.fromkeys(names, Tower(is_served=False))

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        probabilities = cascade_probabilities(tasks, logits)
        result = own_losses(tasks, logits, labels, context)
        for task, before in followers(tasks):
            logit, p = logits[task.name][:, 0], probabilities[before.name]
            if regularizer == "ipw":
                risks = [inverse_propensity_loss(task, before, tasks, logit, p, labels, context, clip)]
            else:
                imputation = logits[imputation_name(task)][:, 0]
                risks = doubly_robust_losses(task, before, tasks, logit, imputation, p, labels, context, clip)
            entire = entire_space_loss(task, tasks, probabilities[task.name], labels, context)
            result[f"{task.name}|{before.name}"] = counterfactual_weight * sum(risks)
            result[task.name] = global_weight * entire
        return result

    return Head(towers, lambda logits: cascade_outputs(tasks, logits), losses)

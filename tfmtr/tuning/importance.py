"""Which keys of a space the figures of the tries depend on."""

from typing import Any

import numpy as np

from tfmtr.tuning.space import Choices, Space
from tfmtr.tuning.tries import import_optuna

LEAST = 4  # complete tries
METHODS = {
    "fanova": "share of the variance that a forest of the tries puts down to it (fANOVA, Hutter et al., ICML 2014)",
    "plain": "share of the variance of the figure's ranks that it explains by itself",
}


def importances(study: Any, space: Space, seed: int = 0) -> dict[str, Any]:
    """How much each key matters, judged by the complete tries.

    Args:
        study: Optuna's study.
        space: The `Space`.
        seed: Of the forest.

    Returns:
        `{"method": key of METHODS, "values": {key: share}}`, shares that add up to 1 by falling share; or `{"reason":
        text}` where there are too few tries or all have one figure.
    """
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if len(complete) < LEAST:
        return {"reason": f"{len(complete)} complete tries, {LEAST} needed"}
    if len({trial.value for trial in complete}) < 2:
        return {"reason": "all complete tries have the same figure"}
    optuna = import_optuna()
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        shares, method = optuna.importance.get_param_importances(study, evaluator=evaluator), "fanova"
    except Exception:  # its forest needs a scikit-learn that Optuna knows
        shares, method = plain_importances(complete, space), "plain"
    order = sorted(shares, key=lambda key: (-shares[key], key))
    return {"method": method, "values": {key: float(shares[key]) for key in order}}


def plain_importances(trials: list[Any], space: Space) -> dict[str, float]:
    """The shares of the ranks' variance that lie between the choices, or that a line over the range's ranks explains.

    Args:
        trials: Complete tries of Optuna.
        space: The `Space`.

    Returns:
        `{key: share}`, which add up to 1; all 0 where nothing explains anything.
    """
    ranks = _ranks([trial.value for trial in trials])
    shares = {}
    for key, dimension in space.dimensions.items():
        drawn = [trial.params[key] for trial in trials]
        if isinstance(dimension, Choices):
            groups = [ranks[[value == label for value in drawn]] for label in dimension.labels]
            between = sum(len(group) * (group.mean() - ranks.mean()) ** 2 for group in groups if len(group))
            shares[key] = float(between / (len(ranks) * ranks.var()))
        else:
            others = _ranks(drawn)
            shares[key] = float(np.corrcoef(ranks, others)[0, 1] ** 2) if others.std() else 0.0
    total = sum(shares.values())
    return {key: value / total if total else 0.0 for key, value in shares.items()}


def _ranks(values: list[float]) -> np.ndarray:
    """Ranks of numbers, equal ones with their mean rank."""
    from scipy.stats import rankdata

    return rankdata(values)

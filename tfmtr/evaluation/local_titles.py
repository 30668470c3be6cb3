"""Whether local titles get their share: of recommendations against what is liked, and at equal quality.

A local title is one of a single territory or culture, a global one is available in most territories; what is which
comes from training data. Cells are as in `tfmtr.evaluation.metrics`: by slice and pooled, n/a under 30 positives or 20
users.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.metrics import Cells, why_not_available


def local_share(lists: Lists, local: ArrayLike) -> Cells:
    """Share of local titles among the recommendations of a slice, and among what its users liked.

    Both are shares of pairs of a user and a title. (Means over users of each one's share would differ where users
    have different numbers of positives; the literature has both.) A recommender that favors global titles
    recommends fewer local ones than are liked: `gap` is negative.

    Reference: Lesota et al., Traces of Globalization in Online Music Consumption Patterns and Results of
    Recommendation Algorithms, ISMIR 2022, https://doi.org/10.5281/zenodo.7316652 (domestic share of what is
    recommended against that of what is heard).

    Args:
        lists: `Lists`.
        local: Boolean array of shape `(num_titles,)`: whether a title is local, by training data.

    Returns:
        `{slice: cell}` with `recommended`, `truth`, `gap` (recommended minus truth), `positives`, `users` (with a
        positive) and `reason`.

    Raises:
        ValueError: If `local` does not fit the titles.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> lists = Lists(np.tile([0, 2], (40, 1)), ["DE"] * 40, np.arange(40), np.full(40, 2), num_titles=3)
    >>> cell = local_share(lists, [False, True, True])["DE"]
    >>> cell["recommended"], cell["truth"], cell["gap"]
    (0.5, 1.0, -0.5)
    """
    local = _check_local(lists, local)
    recommended, liked = local[lists.recommended[1]], local[lists.positive_titles]

    def cell(recommendations: np.ndarray | slice, positives: np.ndarray | slice) -> dict[str, Any]:
        num_users = len(np.unique(lists.positive_users[positives]))
        reason = why_not_available(lists.num_pairs, num_users, len(liked[positives]))
        ours = truth = gap = None
        if reason is None and not len(recommended[recommendations]):
            reason = "no recommendations"
        if reason is None:
            ours, truth = float(recommended[recommendations].mean()), float(liked[positives].mean())
            gap = ours - truth
        return {
            "recommended": ours,
            "truth": truth,
            "gap": gap,
            "positives": len(liked[positives]),
            "users": num_users,
            "reason": reason,
        }

    return {name: cell(*index[1:]) for name, index in lists.by_slice().items()}


def equal_opportunity(lists: Lists, local: ArrayLike, quality: ArrayLike) -> Cells:
    """How much more rarely a liked local title is in the list than a liked global one of equal quality.

    The true-positive rate of a class in a quality bin b is the share of its positives that are in their users' lists.
    With w_b the share of the local positives that are of bin b,

        gap = sum_b w_b (TPR_{local, b} - TPR_{global, b}),

    over the bins that have positives of both. 0 is equal opportunity, below 0 local titles are found more rarely.
    Hardt et al. compare classes as they are; equal quality is ours, as exposure may differ because quality does. The
    weights are those of the local positives (direct standardisation): the question is what local titles miss. Few
    global positives in a bin with many local ones make the gap noisy, so use few bins.

    Reference: Hardt, Price and Srebro, Equality of Opportunity in Supervised Learning, NeurIPS 2016,
    https://arxiv.org/abs/1610.02413; for lists Zhu, Wang and Caverlee, Measuring and Mitigating Item
    Under-Recommendation Bias in Personalized Ranking Systems, SIGIR 2020, https://doi.org/10.1145/3397271.3401177.

    Args:
        lists: `Lists`.
        local: Boolean array of shape `(num_titles,)`: whether a title is local, by training data.
        quality: Integer array of shape `(num_titles,)`: bin of each title, for example `quantile_bins` of its true
            quality or of its rate of positives; -1 leaves a title out.

    Returns:
        `{slice: cell}` with `gap` in [-1, 1], `local` and `global` (the two weighted rates), each with their counts
        beside them (`local_positives`, `local_users`, and so on, in bins that have both), and `reason`.

    Raises:
        ValueError: If `local` or `quality` does not fit the titles.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> lists = Lists(np.zeros((80, 1), int), ["DE"] * 80, np.arange(80), np.arange(80) % 2, num_titles=2)
    >>> cell = equal_opportunity(lists, [False, True], [0, 0])["DE"]
    >>> cell["gap"], cell["local"], cell["global"]
    (-1.0, 0.0, 1.0)
    """
    local = _check_local(lists, local)[lists.positive_titles]
    bins = lists.check_titles(
        "quality", quality, lambda values: (values.dtype.kind == "i") & (values >= -1), "a bin from 0 up, or -1"
    )[lists.positive_titles]
    hits, classes = np.isfinite(lists.positive_ranks), {"local": local, "global": ~local}
    num_bins = bins.max(initial=0) + 1

    def count(rows: np.ndarray) -> np.ndarray:
        return np.bincount(bins[rows], minlength=num_bins)

    def cell(positives: np.ndarray | slice) -> dict[str, Any]:
        rows = np.arange(len(bins))[positives]
        rows = rows[bins[rows] >= 0]
        shared = (count(rows[local[rows]]) > 0) & (count(rows[~local[rows]]) > 0)
        rows = rows[shared[bins[rows]]]
        weights = count(rows[local[rows]])[shared]
        result: dict[str, Any] = {"gap": None, "local": None, "global": None, "reason": None}
        for name, members in classes.items():
            of_class = rows[members[rows]]
            num_users = len(np.unique(lists.positive_users[of_class]))
            result |= {f"{name}_positives": len(of_class), f"{name}_users": num_users}
            reason = why_not_available(lists.num_pairs, num_users, len(of_class))
            if reason:
                result["reason"] = result["reason"] or f"{name} titles: {reason}"
            else:
                rates = count(of_class[hits[of_class]])[shared] / count(of_class)[shared]
                result[name] = float(np.average(rates, weights=weights))
        if result["reason"] is None:
            result["gap"] = result["local"] - result["global"]
        return result

    return {name: cell(positives) for name, (_, _, positives) in lists.by_slice().items()}


def _check_local(lists: Lists, local: ArrayLike) -> np.ndarray:
    return lists.check_titles("local", local, lambda values: values.dtype == bool, "True or False")
